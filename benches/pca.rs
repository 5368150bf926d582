//! Attention over blocks of the PCA codec beside codecs that code tokens: 8 kv heads of 4 query heads each, D 128, cold L2, the launch
//! that folds queries and the join included; and what a block costs the host. Times are device events around a replayed graph.
//!
//! `KVF_SHAPES=32x8192` chooses shapes (sequences x tokens), `KVF_CODECS=pca_b3_post_r64,int4` codecs, `KVF_HEADS=64` how many query heads, `KVF_RESULTS=FILE` appends JSON.
//! `KVF_WARPS`, `KVF_STAGES`, `KVF_MIN_BLOCKS` and `KVF_SPLITS` change what the plan would choose. Without a GPU it prints SKIPPED.

#[path = "support/mod.rs"]
mod support;

use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::pca::decode_meta;
use runtime::{Codec, Decode, DecodePlan, DecodeSpec, Device, Elem, Memory, PagedCache, Result, Stream};
use std::time::Instant;
use support::{D, HEADS, KV_HEADS, PAGE, chosen};

/// Pages that differ.
const POOL: usize = 3;

/// Bytes of a cache of `blocks` pages of a head, then for a codec that shares bases those of each kv head, and milliseconds that the host takes
/// for one; of a codec of tokens any bytes serve.
fn bytes_of(codec: Codec, page: usize, blocks: usize) -> Result<(Vec<u8>, f64)> {
    let size = codec.block_bytes(D, page)?;
    if codec.pca().is_none() {
        return Ok(((0..size * blocks).map(|i| (i * 31 % 59) as u8).collect(), 0.0));
    }
    let rows = |seed| support::values(page * D, seed).iter().enumerate().map(|(j, x)| x.to_f32() * (-((j % D) as f32) / 20.0).exp()).collect::<Vec<f32>>();
    let bases = if codec.lead_pages() > 0 { Some(codec.fit_bases(D, &rows(8), &rows(9))?) } else { None };
    let begin = Instant::now();
    let pool = (0..POOL as u64).map(|i| codec.encode_block_under(D, bases.as_deref(), &rows(2 * i), &rows(2 * i + 1))).collect::<Result<Vec<_>>>()?;
    let ms = begin.elapsed().as_secs_f64() * 1e3 / POOL as f64;
    let blocks = (0..blocks).flat_map(|i| pool[i * 7 % POOL].iter().copied());
    Ok((blocks.chain(bases.into_iter().flat_map(|page| page.repeat(KV_HEADS))).collect(), ms))
}

fn measure(device: &Device, stream: &Stream, name: &str, batch: usize, len: usize) -> Result<()> {
    let codec = Codec::open(name)?;
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse().ok());
    let heads = number("KVF_HEADS").unwrap_or(HEADS);
    let page = if codec.pca().is_some() { 512 } else { PAGE };
    let (blocks, lead) = (len.div_ceil(page), codec.lead_pages());
    let (stride, pages) = (blocks + lead, batch * blocks);
    let (one, encode_ms) = bytes_of(codec, page, pages * KV_HEADS)?;
    // The page behind the blocks comes first in every row.
    let order = support::shuffled(pages);
    let table: Vec<i32> = order.chunks(blocks).flat_map(|own| (0..lead).map(|_| pages as i32).chain(own.iter().copied())).collect();
    let pages = pages + lead;
    let copies = support::copies(device, one.len());
    let caches = (0..copies).map(|_| Memory::from_slice(device, &one)).collect::<Result<Vec<_>>>()?;
    let status = Memory::zeroed(device, 16)?;
    let (table, lens) = (Memory::from_slice(device, &table)?, Memory::from_slice(device, &vec![len as i32; batch])?);
    let q = Memory::from_slice(device, &support::values(batch * heads * D, 3))?;
    let [out, lse] = [2 * D, 4].map(|bytes| Memory::zeroed(device, batch * heads * bytes));
    let (out, lse) = (out?, lse?);
    let splits = number("KVF_SPLITS").unwrap_or(0);
    let spec = DecodeSpec { codec, head_dim: D, group: heads / KV_HEADS, page_tokens: page, elem: Elem::Bf16, splits };
    let [warps, stages, min_blocks] = ["KVF_WARPS", "KVF_STAGES", "KVF_MIN_BLOCKS"].map(number);
    let plan = match codec.pca() {
        Some(pca) if warps.or(stages).or(min_blocks).is_some() => {
            let own = decode_meta(pca, D, heads / KV_HEADS);
            DecodePlan::with_meta(device, &spec, DecodeMeta { warps: warps.unwrap_or(own.warps), stages: stages.unwrap_or(own.stages), min_blocks: min_blocks.unwrap_or(own.min_blocks), ..own })?
        }
        _ => DecodePlan::prepare(device, &spec)?,
    };
    let workspace = Memory::zeroed(device, plan.workspace_bytes(batch, heads, stride)? as usize)?;
    let cache_of = |i: usize| PagedCache { base: caches[i % copies].span(), pages, page_tokens: page, kv_heads: KV_HEADS, head_dim: D };
    let call = |i: usize| Decode {
        batch,
        q: q.span(),
        cache: cache_of(i),
        table: table.span(),
        table_stride: stride,
        lens: lens.span(),
        out: out.span(),
        lse: Some(lse.span()),
        scale: 0.088388346,
        workspace: workspace.span(),
        status: status.span(),
    };
    let us = support::graph_us(device, stream, copies.max(4), |stream, i| plan.launch(stream, &call(i)));
    let fold_us = support::graph_us(device, stream, copies.max(4), |stream, i| plan.launch_records(stream, &call(i)));
    let floor = support::read_us(device, stream, one.len());
    support::report(&serde_json::json!({
        "bench": "pca", "codec": name, "shape": format!("{batch}x{len}"), "batch": batch, "ctx": len, "heads": heads, "kv_heads": KV_HEADS, "d": D, "us": us, "fold_us": if codec.pca().is_some() { Some(fold_us) } else { None }, "read_us": floor,
        "share_of_ceiling": floor / us, "kv_bytes": one.len(), "bits": codec.stored_bits_per_element(D)?, "encode_ms": encode_ms, "splits": splits, "warps": warps, "stages": stages, "min_blocks": min_blocks, "device": device.name(),
    }));
    Ok(())
}

fn main() -> Result<()> {
    let Some((device, stream)) = support::open("pca") else { return Ok(()) };
    for shape in chosen("KVF_SHAPES", "32x8192,8x32768") {
        let (batch, len) = shape.split_once('x').and_then(|(b, n)| Some((b.parse().ok()?, n.parse().ok()?))).unwrap_or_else(|| panic!("KVF_SHAPES: {shape}; write sequences x tokens, such as 32x8192"));
        for name in chosen(
            "KVF_CODECS",
            "pca_b3_post_r64,pca_b2_post_r64,pca_b4_post_r64,pca_b3_post,pca_b3_post_r64/pca_b3_share_r64,pca_b3_post_share_r64,pca_b3_post_t2_r64/pca_b3_r64,pca_b3_post_ds_t2_r64/pca_b2_share_ds_r64,pca_b3_r64,pca_b3_ds_t2_r64/pca_b2_share_ds_r64,int4,bf16",
        ) {
            measure(&device, &stream, &name, batch, len)?;
        }
    }
    Ok(())
}
