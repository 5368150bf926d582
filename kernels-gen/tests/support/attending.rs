//! A decode problem through the decode and the join kernel: in Rust beside the reference, then every stage of the IR beside those bytes.
#![allow(dead_code)] // each test binary uses its part

use crate::run::{assert_bytes, buffer, global, interpreted, memory, scalar, stages};
use kernel_dsl::ir::interp::Arg;
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;
use kernels_gen::kernels;
use kernels_gen::kernels::decode_attention::{DecodeMeta, decode_attention};
use kernels_gen::kernels::join_splits::{JoinMeta, join_splits};
use kernels_gen::reference::{CacheShape, Decoded, Status};
use kernels_gen::registry::CodecInfo;

/// What both kernels are launched with.
pub struct Launches<'a> {
    pub m: DecodeMeta,
    pub join: JoinMeta,
    pub c: &'a CodecInfo,
    pub shape: CacheShape,
    pub group: usize,
    pub stride: usize,
    /// log2 of the leaves of a warp.
    pub unit: usize,
    pub blocks: usize,
    /// What the kernel is told of who finds a block's shares.
    pub own: i32,
    pub table: &'a [i32],
    pub lens: &'a [i32],
    pub scale: f32,
}

/// What the decode kernel was given, and what it left before the join.
pub struct Left {
    pub args: Vec<Arg>,
    pub grid: [u32; 3],
    /// out, lse, part, stat, chosen, status
    pub bytes: [Vec<u8>; 6],
}

pub const LEFT: [&str; 6] = ["out", "lse", "part", "stat", "chosen", "status"];

/// `q`: queries, or what a kernel made of them.
pub fn attends<T: Float>(what: &str, l: &Launches, q: &Global<T>, cache: &Global<u8>, want: &Decoded) -> Left {
    let (m, c, d) = (l.m, l.c, l.shape.d);
    // As many as the kernel takes them for.
    let heads = l.shape.kv_heads * m.fold;
    let splits = kernels::splits_of(&m, l.stride * l.shape.page_tokens, l.unit);
    let (table, lens, batch, rows) = (Global::new(l.table), Global::new(l.lens), l.lens.len(), l.lens.len() * l.shape.kv_heads * l.group);
    let (parts, grids) = (batch * heads * m.group * splits, [[l.blocks as u32, 1, 1], [m.group as u32, heads as u32, batch as u32]]);
    let nan = |n: usize| Global::<f32>::new(&vec![f32::NAN; n]);
    let (mut part, mut stat, mut status, mut chosen) = (nan(parts * d), nan(parts * 2), Global::<i32>::zeroed(4), Global::<i32>::zeroed(1));
    let (mut out, mut lse) = (global::<T>(&vec![f32::NAN; rows * d]), nan(rows));
    let sizes = [batch, heads, l.shape.pages, l.stride, 0, splits, l.blocks, l.unit].map(|n| n as i32);
    let [join_heads, group, most, pages, stride] = [heads, m.group, splits, l.shape.pages, l.stride].map(|n| n as i32);
    // Shares that the host knows are told, others looked up.
    let known = if l.own == 1 { kernels::log_share(&m, l.unit) as i32 } else { -1 };
    let join_sizes = [join_heads, group, most, pages, stride, known, batch as i32 & 1];
    let mut args = vec![buffer(q), buffer(cache), buffer(&table), buffer(&lens), buffer(&out), buffer(&lse), buffer(&part), buffer(&stat), buffer(&chosen), buffer(&status)];
    args.extend(sizes.map(scalar));
    args.extend([scalar(l.own), scalar(l.scale)]);

    // The Rust functions.
    let (k, v, none, none_f32) = (c.k.bands, c.v.bands, Global::<i8>::zeroed(0), Global::<f32>::zeroed(0));
    launch(grids[0], || {
        let [batch, heads, pages, stride, segments, splits, blocks, unit] = sizes;
        #[rustfmt::skip] // one line a kind of argument
        decode_attention::<T>(
            m, k, v, q, &none, &none_f32, cache, &table, &lens,
            &mut out, &mut lse, &mut part, &mut stat, &mut chosen, &mut status,
            batch, heads, pages, stride, segments, splits, blocks, unit, l.own, l.scale,
        );
    });
    let left = [out.bytes.clone(), lse.bytes.clone(), part.bytes.clone(), stat.bytes.clone(), chosen.bytes.clone(), status.bytes.clone()];
    launch(grids[1], || {
        let [heads, group, splits, pages, stride, known, hurry] = join_sizes;
        #[rustfmt::skip] // likewise
        join_splits::<T>(
            l.join, v[0], &none, &none_f32, &part, &stat, &chosen, &table, &lens,
            &mut out, &mut lse, &mut status,
            heads, group, splits, pages, stride, known, hurry,
        );
    });
    check(&format!("{what}, Rust"), c, want, &out, &lse);
    let flags: u32 = status.to_vec()[..3].iter().enumerate().map(|(i, s)| ((*s != 0) as u32) << i).sum();
    assert_eq!(Status(flags), want.status, "{what}: status");

    let joins = stages(kernels::join_ir(c, &l.join, memory::<T>()).unwrap());
    for (stage, join) in stages(kernels::decode_ir(c, &m, memory::<T>()).unwrap()).iter().zip(&joins) {
        let got = interpreted(what, stage, grids[0], args.clone());
        // Floats of the thread IR: products sum in another order, and so do the parts they leave.
        let bits = c.exact() || stage.0 != "thread";
        for (i, name) in LEFT.iter().enumerate().filter(|(i, _)| bits || *i > 3) {
            assert_bytes(&format!("{what}, {} IR: {name}", stage.0), &got[4 + i], &left[i]);
        }
        let mut args: Vec<Arg> = got[6..9].iter().cloned().map(Arg::Buffer).collect();
        args.extend([buffer(&table), buffer(&lens)]);
        args.extend(got[4..6].iter().cloned().map(Arg::Buffer));
        args.push(Arg::Buffer(left[5].clone()));
        args.extend(join_sizes.map(scalar));
        let joined = interpreted(&format!("join after {what}"), join, grids[1], args);
        let (mut o, mut s) = (out.clone(), lse.clone());
        (o.bytes, s.bytes) = (joined[5].clone(), joined[6].clone());
        assert_bytes(&format!("{what}, {} IR: joined status", stage.0), &joined[7], &status.bytes);
        check(&format!("{what}, {} IR", stage.0), c, want, &o, &s);
        if bits {
            assert_bytes(&format!("{what}, {} IR: joined", stage.0), &o.bytes, &out.bytes);
            assert_bytes(&format!("{what}, {} IR: joined lse", stage.0), &s.bytes, &lse.bytes);
        }
    }
    Left { args, grid: grids[0], bytes: left }
}

/// The reference's bits, or near it where scores sum in another order and weights round to bf16.
fn check<T: Float>(what: &str, c: &CodecInfo, want: &Decoded, out: &Global<T>, lse: &Global<f32>) {
    let wanted: Global<T> = global(&want.out);
    if c.exact() {
        assert_bytes(&format!("{what}: out"), &out.bytes, &wanted.bytes);
        assert_bytes(&format!("{what}: lse"), &lse.bytes, &Global::new(&want.lse).bytes);
        return;
    }
    let near = |a: f32, b: f32, bound: f32| a == b || (a - b).abs() <= bound;
    for (i, (a, b)) in out.to_vec().into_iter().zip(wanted.to_vec()).enumerate() {
        assert!(near(a.to_f32(), b.to_f32(), 2e-2), "{what}: out[{i}] is {a:?}, wanted {b:?}");
    }
    for (i, (a, b)) in lse.to_vec().into_iter().zip(&want.lse).enumerate() {
        assert!(near(a, *b, 1e-3), "{what}: lse[{i}] is {a}, wanted {b}");
    }
}
