//! A decode problem through the decode and the join kernel: in Rust beside the reference, then every stage of the IR beside those bytes.

use crate::run::{assert_bytes, buffer, global, interpreted, memory, scalar, stages};
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;
use kernels_gen::kernels;
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::join_splits::JoinMeta;
use kernels_gen::reference::{CacheShape, Decoded, Status};
use kernels_gen::registry::CodecInfo;

/// What both kernels are launched with; `share` is the warps of a block and log2 of the leaves of a warp.
pub struct Launches<'a> {
    pub m: DecodeMeta,
    pub join: JoinMeta,
    pub halves: &'a CodecInfo,
    pub shape: CacheShape,
    pub group: usize,
    pub stride: usize,
    pub share: (usize, usize),
    pub table: &'a [i32],
    pub lens: &'a [i32],
    pub scale: f32,
}

/// `q`: queries, or what a kernel made of them.
pub fn attends<T: Float>(what: &str, l: &Launches, q: &Global<T>, cache: &Global<u8>, want: &Decoded) {
    let (m, j, halves, d) = (l.m, l.join, l.halves, l.shape.d);
    let (batch, kv_heads, pages, stride) = (l.lens.len(), l.shape.kv_heads, l.shape.pages as i32, l.stride as i32);
    let splits = kernels::splits_of(&m, l.stride * l.shape.page_tokens, l.share.1);
    // Fewer blocks than parts, so that some take several.
    let (unit, blocks) = (l.share.1 as i32, 2 + l.group as i32 % 2);
    let (table, lens, rows) = (Global::new(l.table), Global::new(l.lens), batch * kv_heads * l.group);
    let nan = |n: usize| Global::<f32>::new(&vec![f32::NAN; n]);
    let (mut part, mut stat, mut status, mut chosen) = (nan(rows * splits * d), nan(rows * splits * 2), Global::<i32>::zeroed(4), Global::<i32>::zeroed(1));
    let (mut out, mut lse) = (global::<T>(&vec![f32::NAN; rows * d]), nan(rows));
    let mut args = vec![buffer(q), buffer(cache), buffer(&table), buffer(&lens), buffer(&out), buffer(&lse), buffer(&part), buffer(&stat), buffer(&chosen), buffer(&status)];
    args.extend([batch as i32, kv_heads as i32, pages, stride, 0, splits as i32, blocks, unit, 0].map(scalar));
    args.push(scalar(l.scale));
    let (none_i8, none_f32, grid) = (Global::<i8>::zeroed(0), Global::<f32>::zeroed(0), [blocks as u32, 1, 1]);
    launch(grid, || {
        kernels::decode_attention::decode_attention::<T>(
            m,
            halves.k.bands,
            halves.v.bands,
            q,
            &none_i8,
            &none_f32,
            cache,
            &table,
            &lens,
            &mut out,
            &mut lse,
            &mut part,
            &mut stat,
            &mut chosen,
            &mut status,
            batch as i32,
            kv_heads as i32,
            pages,
            stride,
            0,
            splits as i32,
            blocks,
            unit,
            0,
            l.scale,
        )
    });
    let first = [out.bytes.clone(), lse.bytes.clone(), part.bytes.clone(), stat.bytes.clone(), chosen.bytes.clone(), status.bytes.clone()];
    launch([l.group as u32, kv_heads as u32, batch as u32], || {
        kernels::join_splits::join_splits::<T>(j, halves.v.bands[0], &none_i8, &none_f32, &part, &stat, &chosen, &table, &lens, &mut out, &mut lse, &mut status, kv_heads as i32, l.group as i32, splits as i32, pages, stride)
    });
    assert_bytes(&format!("{what}, Rust: out"), &out.bytes, &global::<T>(&want.out).bytes);
    assert_bytes(&format!("{what}, Rust: lse"), &lse.bytes, &Global::new(&want.lse).bytes);
    let flags: u32 = status.to_vec()[..3].iter().enumerate().map(|(i, s)| ((*s != 0) as u32) << i).sum();
    assert_eq!(Status(flags), want.status, "{what}: status");
    for stage in stages(kernels::decode_ir(halves, &m, memory::<T>()).unwrap()) {
        let got = interpreted(what, &stage, grid, args.clone());
        for (i, name) in ["out", "lse", "part", "stat", "chosen", "status"].iter().enumerate() {
            assert_bytes(&format!("{what}, {} IR: {name}", stage.0), &got[4 + i], &first[i]);
        }
    }
}
