//! Rows of one head that is key and value at once.

use crate::device;
use crate::guarded::Guarded;
use crate::problem::{random, rows};
use half::bf16;
use kernels_gen::latent::{DIM, List, Problem, format};
use runtime::*;

/// Rows into both caches, then attention over lists with holes: in one part and in several, the bytes and bits of the reference.
#[test]
fn rows_of_integers_are_stored_and_attended_to() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for (name, capacities, lens, share) in [("v4_int4_int8", [128, 512], vec![128, 512, 77, 300, 0, 0, 0, 5], 640), ("v4_e8w4_int8", [128, 300], vec![128, 300, 1, 200], 256), ("v4_int8_int8", [0, 900], vec![0, 900, 0, 401, 0, 1], 384)] {
        let (f, mut state, heads, tokens) = (format(name).unwrap(), 5, 64, lens.len() / 2);
        let plan = LatentPlan::prepare(&device, &f).unwrap();
        let status = Guarded::new(&device, &stream, &[0_i32; 4]);
        let counts = [300_usize, 500];
        let x = counts.map(|n| self::rows(n * DIM, &mut state));
        let mut stored = counts.map(|n| vec![0xc3_u8; n * f.row_bytes()]);
        let caches = stored.each_ref().map(|bytes| Guarded::new(&device, &stream, bytes));
        for i in 0..2 {
            // The last row is not stored, nor is one that has no place.
            let slots: Vec<i64> = (0..counts[i] as i64).map(|s| if s == 9 { -4 } else { counts[i] as i64 - 2 - s }).collect();
            for (x, slot) in x[i].chunks(DIM).zip(&slots).filter(|(_, slot)| **slot >= 0) {
                f.store(&mut stored[i], counts[i], *slot as usize, x.try_into().unwrap());
            }
            let (gx, gs) = (Guarded::new(&device, &stream, &x[i]), Guarded::new(&device, &stream, &slots));
            let cache = LatentRows { base: caches[i].span(), rows: counts[i] };
            plan.store(&stream, &StoreLatent { rows: counts[i], x: gx.span(), slots: gs.span(), cache, status: status.span() }).unwrap();
            assert_eq!(caches[i].read::<u8>(&stream), stored[i], "{name}: cache {i}");
        }
        assert_eq!(status.read::<i32>(&stream), [0; 4], "{name}: status");
        let at = [0, 1].map(|i| {
            let one = |state: &mut u64| match random(state) % 9 {
                0 => -1,
                1 => i32::MAX,
                // Rows that nobody stored hold anything.
                _ => (random(state) as usize % (counts[i] - 1)) as i32,
            };
            (0..tokens * capacities[i]).map(|_| one(&mut state)).map(|row| if row == counts[i] as i32 - 11 { -7 } else { row }).collect::<Vec<i32>>()
        });
        let q = self::rows(tokens * heads * DIM, &mut state);
        let sinks: Vec<f32> = (0..heads).map(|h| if h % 3 == 0 { f32::NEG_INFINITY } else { h as f32 / 20.0 - 1.0 }).collect();
        let each = [0, 1].map(|i| lens.iter().skip(i).step_by(2).copied().collect::<Vec<i32>>());
        let list = |i: usize| List { rows: &stored[i], at: &at[i], capacity: capacities[i], lens: &each[i] };
        let scale = (DIM as f32).sqrt().recip();
        let p = Problem { q: &q, heads, window: list(0), extra: list(1), sinks: &sinks, scale, share: share / 128 };
        let (out, lse) = p.solve(f.integers().unwrap());

        let halves = |x: &[f32]| x.iter().map(|x| bf16::from_f32(*x).to_bits()).collect::<Vec<u16>>();
        let (gq, gout, glse) = (Guarded::new(&device, &stream, &halves(&q)), Guarded::new(&device, &stream, &vec![0_u16; out.len()]), Guarded::new(&device, &stream, &vec![0_f32; lse.len()]));
        let gat = at.each_ref().map(|at| Guarded::new(&device, &stream, if at.is_empty() { &[0] } else { at }));
        let (glens, gsinks) = (Guarded::new(&device, &stream, &lens), Guarded::new(&device, &stream, &sinks));
        let list = |i: usize| LatentList { cache: LatentRows { base: caches[i].span(), rows: counts[i] }, at: gat[i].span(), capacity: capacities[i] };
        let mut call = DecodeLatent { tokens, heads, q: gq.span(), window: list(0), extra: list(1), lens: glens.span(), sinks: gsinks.span(), out: gout.span(), lse: glse.span(), scale, share, workspace: glse.span() };
        let need = plan.workspace_bytes(&call).unwrap() as usize;
        let workspace = Guarded::new(&device, &stream, &vec![0_u8; need.max(16)]);
        call.workspace = workspace.span();
        plan.decode(&stream, &call).unwrap();
        assert_eq!(gout.read::<u16>(&stream), halves(&out), "{name}: outputs");
        assert_eq!(glse.read::<u32>(&stream), lse.iter().map(|x| x.to_bits()).collect::<Vec<u32>>(), "{name}: lse");

        let refused = |call: &DecodeLatent<'_>| plan.decode(&stream, call).unwrap_err().to_string();
        assert!(refused(&DecodeLatent { heads: 96, ..call }).contains("a multiple of 64"));
        assert!(refused(&DecodeLatent { share: 100, ..call }).contains("a multiple of 128"));
        assert!(refused(&DecodeLatent { q: call.q.part(0, 64).unwrap(), ..call }).contains("q has 64 bytes"));
    }
}
