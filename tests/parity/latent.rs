//! Rows of one head: the formats' bytes, and attention over lists of them with the reference's bits, whatever the lists hold and
//! however they are cut.

use crate::support::{Guarded, Noise, bits, cases, first_difference, gpu};
use half::bf16;
use kernels_gen::latent::{DIM, Format, LEAF, List, Problem, format};
use runtime::{DecodeLatent, Device, LatentList, LatentPlan, LatentRows, StoreLatent, Stream};

const NAMES: [&str; 3] = ["v4_int4_int8", "v4_e8w4_int8", "v4_int8_int8"];

fn put<T: Copy, const N: usize>(device: &Device, stream: &Stream, x: &[T], bytes: fn(T) -> [u8; N]) -> Guarded {
    let bytes: Vec<u8> = x.iter().flat_map(|v| bytes(*v)).collect();
    let g = Guarded::new(device, stream, bytes.len().max(16), 0);
    g.upload(stream, &bytes);
    g
}

/// Rows stored at shuffled slots, some at none; what differs.
fn store(device: &Device, stream: &Stream, f: &Format, plan: &LatentPlan, rows: usize, noise: &mut Noise) -> (Vec<u8>, Guarded, Option<String>) {
    let mut want = vec![0x11; rows * f.row_bytes()];
    let cache = Guarded::new(device, stream, want.len(), 0x11);
    let x = noise.rows(rows, DIM);
    let slots: Vec<i64> = noise.shuffled(rows).iter().map(|s| if noise.below(20) == 0 { -1 } else { *s as i64 }).collect();
    for (x, slot) in x.as_chunks::<DIM>().0.iter().zip(&slots).filter(|(_, slot)| **slot >= 0) {
        f.store(&mut want, rows, *slot as usize, x);
    }
    let (gx, gs, status) = (put(device, stream, &x, f32::to_le_bytes), put(device, stream, &slots, i64::to_le_bytes), Guarded::new(device, stream, 16, 0));
    let call = StoreLatent { rows, x: gx.span(), slots: gs.span(), cache: LatentRows { base: cache.span(), rows }, status: status.span() };
    plan.store(stream, &call).expect("launch");
    let found: Vec<u8> = cache.download(stream, want.len());
    let wide = |x: &[u8]| x.iter().map(|b| u32::from(*b)).collect::<Vec<u32>>();
    let wrong = first_difference(&wide(&found), &wide(&want)).map(|e| format!("store: {e}"));
    (want, cache, wrong)
}

/// What differs of a problem's stores and decode.
fn run(device: &Device, stream: &Stream, f: &Format, noise: &mut Noise) -> Option<String> {
    let plan = LatentPlan::prepare(device, f).expect("a plan");
    let (tokens, heads) = (1 + noise.below(3), 64 * (1 + noise.below(2)));
    let capacities = [[0, 128, 64, 200][noise.below(4)], 1 + noise.below(2000)];
    let rows = [1 + noise.below(300), 1 + noise.below(1000)];
    let share = LEAF * (1 + noise.below(20));
    let stores = rows.map(|n| store(device, stream, f, &plan, n, noise));
    if let Some(wrong) = stores.iter().find_map(|s| s.2.clone()) {
        return Some(wrong);
    }
    let at = [0, 1].map(|i| {
        let one = |noise: &mut Noise| match noise.below(9) {
            0 => -1,
            1 => [rows[i] as i32, i32::MAX, i32::MIN][noise.below(3)],
            _ => noise.below(rows[i]) as i32,
        };
        (0..tokens * capacities[i]).map(|_| one(noise)).collect::<Vec<i32>>()
    });
    let lens: Vec<i32> = (0..2 * tokens).map(|i| if noise.below(5) == 0 { [0, -3, i32::MAX][noise.below(3)] } else { noise.below(capacities[i % 2] + 1) as i32 }).collect();
    let q: Vec<bf16> = noise.rows(tokens * heads, DIM).iter().map(|x| bf16::from_f32(*x)).collect();
    let sinks: Vec<f32> = (0..heads).map(|_| if noise.below(4) == 0 { f32::NEG_INFINITY } else { noise.gauss() * 4.0 }).collect();
    let scale = (DIM as f32).sqrt().recip();
    let wide: Vec<f32> = q.iter().map(|x| x.to_f32()).collect();
    let each = [0, 1].map(|i| lens.iter().skip(i).step_by(2).copied().collect::<Vec<i32>>());
    let list = |i: usize| List { rows: &stores[i].0, at: &at[i], capacity: capacities[i], lens: &each[i] };
    let (want, want_lse) = Problem { q: &wide, heads, window: list(0), extra: list(1), sinks: &sinks, scale, share: share / LEAF }.solve(f.integers().expect("rows of integers"));

    let (gq, glens, gsinks) = (put(device, stream, &q, bf16::to_le_bytes), put(device, stream, &lens, i32::to_le_bytes), put(device, stream, &sinks, f32::to_le_bytes));
    let gat = at.each_ref().map(|at| put(device, stream, at, i32::to_le_bytes));
    let (out, lse) = (Guarded::new(device, stream, 2 * q.len(), 0xff), Guarded::new(device, stream, 4 * tokens * heads, 0xff));
    let list = |i: usize| LatentList { cache: LatentRows { base: stores[i].1.span(), rows: rows[i] }, at: gat[i].span(), capacity: capacities[i] };
    let call = DecodeLatent { tokens, heads, q: gq.span(), window: list(0), extra: list(1), lens: glens.span(), sinks: gsinks.span(), out: out.span(), lse: lse.span(), scale, share, workspace: lse.span() };
    let workspace = Guarded::new(device, stream, plan.workspace_bytes(&call).expect("a size").max(16) as usize, 0xff);
    plan.decode(stream, &DecodeLatent { workspace: workspace.span(), ..call }).expect("launch");
    let (found, total): (Vec<u16>, Vec<f32>) = (out.download(stream, q.len()), lse.download(stream, tokens * heads));
    for g in [&gq, &glens, &gsinks, &gat[0], &gat[1], &out, &lse, &workspace, &stores[0].1, &stores[1].1] {
        g.check(stream, "latent");
    }
    let found: Vec<u32> = found.iter().map(|b| u32::from(*b)).collect();
    let want: Vec<u32> = want.iter().map(|x| u32::from(bf16::from_f32(*x).to_bits())).collect();
    let of = |what: &str, wrong: Option<String>| wrong.map(|e| format!("{what} (tokens {tokens} heads {heads} lists {capacities:?} lens {lens:?} share {share}): {e}"));
    of("out", first_difference(&found, &want)).or(of("lse", first_difference(&bits(&total), &bits(&want_lse))))
}

#[test]
fn latent_rows_are_bit_identical() {
    let Some((device, _)) = gpu("latent_rows_are_bit_identical") else { return };
    let items: Vec<(&str, usize)> = (0..cases(8)).flat_map(|i| NAMES.map(|name| (name, i))).collect();
    let total = crate::side_by_side(&device, &items, |stream, &(name, i)| {
        let f = format(name).unwrap_or_else(|e| panic!("{e}"));
        let wrong = run(&device, stream, &f, &mut Noise((100 * i + name.len()) as u64));
        if let Some(e) = &wrong {
            println!("{name} problem {i}: {e}");
        }
        usize::from(wrong.is_some())
    });
    println!("latent: {} problems, {total} wrong", items.len());
    assert_eq!(total, 0, "problems with wrong bits");
}
