//! Several query tokens a sequence at every stage: each has the bits of decode attention by itself.

#[path = "support/stages.rs"]
mod run;
mod support;

use kernel_dsl::ir::interp::Arg;
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;
use kernels_gen::kernels::chunk::{attention::chunk_attention, chunk_ir, chunk_meta};
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::prefill_attention::{self as prefill, join_queries_ir, join_queries_meta, prefill_ir, prefill_meta};
use kernels_gen::kernels::{self, parts};
use kernels_gen::reference::{self, CacheShape, Decoded, Status};
use kernels_gen::registry::{CodecInfo, codec};
use run::{assert_bytes, buffer, global, interpreted, memory, scalar, shuffled, stages};
use support::Random;

const KV_HEADS: usize = 2;
/// Page table entries of a sequence.
const STRIDE: usize = 20;
const PAGE: usize = 32;

#[derive(Clone)]
struct Problem {
    d: usize,
    group: usize,
    queries: usize,
    /// Query tokens that the kernel is compiled for.
    block: usize,
    /// Warps of a block, 0 for what the codec has.
    warps: usize,
    lens: Vec<i32>,
    /// The sequence whose page table has a bad entry, and which.
    bad_page: Option<(usize, usize)>,
}

struct Data<T> {
    q: Global<T>,
    cache: Global<u8>,
    table: Global<i32>,
    lens: Global<i32>,
    pages: usize,
    scale: f32,
    want: Decoded,
}

impl Problem {
    fn data<T: Float>(&self, c: &CodecInfo) -> Data<T> {
        let mut random = Random((self.d * 100 + self.group * 10 + self.queries) as u64);
        let batch = self.lens.len();
        let pages = batch * STRIDE + 3;
        let shape = CacheShape { pages, page_tokens: PAGE, kv_heads: KV_HEADS, d: self.d };
        let mut table: Vec<i32> = shuffled(pages, &mut random).into_iter().take(batch * STRIDE).map(|p| p as i32).collect();
        let mut slots = vec![-1];
        for (b, len) in self.lens.iter().enumerate() {
            let used = (*len).clamp(0, (STRIDE * PAGE) as i32) as usize;
            slots.extend((0..used).map(|t| i64::from(table[b * STRIDE + t / PAGE]) * PAGE as i64 + (t % PAGE) as i64));
        }
        let n = slots.len() * KV_HEADS * self.d;
        let mut cache = vec![0xff; shape.bytes(c)];
        // Keys grow within each leaf, so that maxima rise and sums are shifted on the way.
        let mut keys = random.gaussians(n);
        keys.chunks_mut(KV_HEADS * self.d).enumerate().for_each(|(t, row)| row.iter_mut().for_each(|x| *x *= 1.0 + (t % 256) as f32 / 32.0));
        assert!(reference::store(c, &shape, &mut cache, &keys, &random.gaussians(n), &slots).is_ok());
        if let Some((b, entry)) = self.bad_page {
            table[b * STRIDE + entry] = pages as i32;
        }
        let heads = KV_HEADS * self.group;
        let q: Global<T> = global(&random.gaussians(batch * self.queries * heads * self.d));
        let scale = 1.0 / (self.d as f32).sqrt();
        let rows: Vec<f32> = q.to_vec().into_iter().map(T::to_f32).collect();
        let want = reference::prefill(c, &shape, &cache, &rows, self.queries, heads, &table, STRIDE, &self.lens, scale);
        // The definition, row by row.
        for (b, len) in self.lens.iter().enumerate() {
            for i in 0..self.queries {
                let token = b * self.queries + i;
                let own = if (0..=(STRIDE * PAGE) as i32).contains(len) { (len - self.queries as i32 + i as i32 + 1).max(0) } else { *len };
                let row = heads * self.d;
                let alone = reference::decode(c, &shape, &cache, &rows[token * row..][..row], heads, &table[b * STRIDE..][..STRIDE], STRIDE, &[own], scale);
                assert_eq!(alone.out, want.out[token * row..][..row], "reference");
                assert_eq!(alone.lse, want.lse[token * heads..][..heads], "reference");
            }
        }
        Data { q, cache: Global::new(&cache), table: Global::new(&table), lens: Global::new(&self.lens), pages, scale, want }
    }
}

/// Outputs within `bound` of the reference: 0 asks for its bits.
fn check<T: Float>(what: &str, bound: f32, want: &Decoded, out: &Global<T>, lse: &Global<f32>) {
    let wanted: Global<T> = global(&want.out);
    if bound == 0.0 {
        assert_bytes(&format!("{what}: out"), &out.bytes, &wanted.bytes);
        assert_bytes(&format!("{what}: lse"), &lse.bytes, &Global::new(&want.lse).bytes);
    }
    let near = |a: f32, b: f32| a == b || (a - b).abs() <= bound;
    for (i, (a, b)) in out.to_vec().into_iter().zip(wanted.to_vec()).enumerate() {
        assert!(near(a.to_f32(), b.to_f32()), "{what}: out[{i}] is {a:?}, wanted {b:?}");
    }
    for (i, (a, b)) in lse.to_vec().into_iter().zip(&want.lse).enumerate() {
        assert!(near(a, *b), "{what}: lse[{i}] is {a}, wanted {b}");
    }
}

fn attends<T: Float>(name: &str, p: &Problem) {
    let c = codec(name).unwrap();
    let x = p.data::<T>(c);
    let Problem { d, group, queries, block, .. } = *p;
    let batch = p.lens.len();
    let m = prefill_meta(c, d, group, block, PAGE);
    let m = if p.warps > 0 { DecodeMeta { warps: p.warps, ..m } } else { m };
    let j = join_queries_meta(&m);
    // As many as the kernel takes them for.
    let heads = KV_HEADS * m.fold;
    let splits = kernels::splits_of(&m, STRIDE * PAGE, 0);
    let (shift, log_share) = (splits.next_power_of_two().ilog2(), kernels::log_share(&m, 0) as i32);
    let what = format!("{name} d {d} group {group} queries {queries} in blocks of {} ({} parts, apart {}) lens {:?}", m.queries, m.parts, m.apart, p.lens);
    let blocks = queries.div_ceil(m.queries);
    let rows = batch * heads * blocks * splits * m.rows();
    let outs = batch * queries * KV_HEADS * group;
    let nan = |n: usize| Global::<f32>::new(&vec![f32::NAN; n]);
    let grids = [[(blocks << shift) as u32, heads as u32, batch as u32], [(queries * m.group) as u32, heads as u32, batch as u32]];
    let (kv, pages, stride, splits, queries, blocks) = (heads as i32, x.pages as i32, STRIDE as i32, splits as i32, queries as i32, blocks as i32);

    // The Rust functions.
    let (mut part, mut stat, mut status) = (nan(rows * d), nan(rows * 2), Global::<i32>::zeroed(4));
    let (mut out, mut lse) = (global::<T>(&vec![f32::NAN; outs * d]), nan(outs));
    let (part0, stat0, out0, lse0) = (part.clone(), stat.clone(), out.clone(), lse.clone());
    launch(grids[0], || {
        prefill::prefill_attention::<T>(
            m,
            c.k.bands,
            c.v.bands,
            &x.q,
            &Global::zeroed(0),
            &Global::zeroed(0),
            &x.cache,
            &x.table,
            &x.lens,
            &mut out,
            &mut lse,
            &mut part,
            &mut stat,
            &mut status,
            kv,
            pages,
            stride,
            0,
            splits,
            0,
            x.scale,
            queries,
            0,
            blocks,
            shift as i32,
        )
    });
    let attended = status.clone();
    launch(grids[1], || prefill::join_queries::<T>(j, c.v.bands[0], &Global::zeroed(0), &Global::zeroed(0), &part, &stat, &x.table, &x.lens, &mut out, &mut lse, &mut status, kv, splits, log_share, pages, stride, queries, 0, blocks));
    let bound = if c.exact() { 0.0 } else { 2e-2 };
    check(&format!("{what}, Rust"), bound, &x.want, &out, &lse);
    let flags: u32 = status.to_vec()[..3].iter().enumerate().map(|(i, s)| ((*s != 0) as u32) << i).sum();
    assert_eq!(Status(flags), x.want.status, "{what}: status");

    let joins = stages(join_queries_ir(c, &j, memory::<T>()).unwrap());
    for (stage, join) in stages(prefill_ir(c, &m, memory::<T>()).unwrap()).iter().zip(&joins) {
        let mut args = vec![buffer(&x.q), buffer(&x.cache), buffer(&x.table), buffer(&x.lens), buffer(&out0), buffer(&lse0), buffer(&part0), buffer(&stat0), buffer(&Global::<i32>::zeroed(4))];
        args.extend([kv, pages, stride, 0, splits, 0].map(scalar));
        args.push(scalar(x.scale));
        args.extend([queries, 0, blocks, shift as i32].map(scalar));
        let got = interpreted(&what, stage, grids[0], args);
        assert_bytes(&format!("{what}, {} IR: status", stage.0), &got[8], &attended.bytes);
        let mut args: Vec<Arg> = got[6..8].iter().cloned().map(Arg::Buffer).collect();
        args.extend([buffer(&x.table), buffer(&x.lens)]);
        args.extend(got[4..6].iter().cloned().map(Arg::Buffer));
        args.push(buffer(&attended));
        args.extend([kv, splits, log_share, pages, stride, queries, 0, blocks].map(scalar));
        let joined = interpreted(&format!("join after {what}"), join, grids[1], args);
        let (mut o, mut l) = (out0.clone(), lse0.clone());
        (o.bytes, l.bytes) = (joined[4].clone(), joined[5].clone());
        assert_bytes(&format!("{what}, {} IR: joined status", stage.0), &joined[6], &status.bytes);
        check(&format!("{what}, {} IR", stage.0), bound, &x.want, &o, &l);
    }
}

/// The kernel of long chunks: blocks of `warps` warps of `wide` eights of rows, each with 2^unit leaves of a row.
fn attends_in_chunks<T: Float>(name: &str, wide: usize, unit: usize, p: &Problem) {
    let c = codec(name).unwrap();
    let x = p.data::<T>(c);
    let Problem { d, group, queries, warps, .. } = *p;
    let batch = p.lens.len();
    let like = chunk_meta(c, d, group, PAGE);
    let m = DecodeMeta { warps, wide, queries: 8 * wide * warps / group, ..like };
    let j = join_queries_meta(&m);
    let splits = kernels::splits_of(&m, STRIDE * PAGE, unit);
    let shift = splits.next_power_of_two().ilog2();
    let what = format!("{name} d {d} group {group} queries {queries} in chunks of {}, 2^{unit} leaves, lens {:?}", m.queries, p.lens);
    let blocks = queries.div_ceil(m.queries);
    let rows = batch * KV_HEADS * blocks * splits * m.rows();
    let outs = batch * queries * KV_HEADS * group;
    let nan = |n: usize| Global::<f32>::new(&vec![f32::NAN; n]);
    let grids = [[(blocks << shift) as u32, KV_HEADS as u32, batch as u32], [(queries * group) as u32, KV_HEADS as u32, batch as u32]];
    let (kv, pages, stride, splits, queries, blocks) = (KV_HEADS as i32, x.pages as i32, STRIDE as i32, splits as i32, queries as i32, blocks as i32);

    let (mut part, mut stat, mut status) = (nan(rows * d), nan(rows * 2), Global::<i32>::zeroed(4));
    let (mut out, mut lse) = (global::<T>(&vec![f32::NAN; outs * d]), nan(outs));
    let (part0, stat0, out0, lse0) = (part.clone(), stat.clone(), out.clone(), lse.clone());
    launch(grids[0], || {
        chunk_attention::<T>(
            m,
            c.k.bands,
            c.v.bands,
            &x.q,
            &Global::zeroed(0),
            &Global::zeroed(0),
            &x.cache,
            &x.table,
            &x.lens,
            &mut out,
            &mut lse,
            &mut part,
            &mut stat,
            &mut status,
            kv,
            pages,
            stride,
            splits,
            unit as i32,
            x.scale,
            queries,
            0,
            blocks,
            shift as i32,
        )
    });
    let attended = status.clone();
    launch(grids[1], || prefill::join_queries::<T>(j, c.v.bands[0], &Global::zeroed(0), &Global::zeroed(0), &part, &stat, &x.table, &x.lens, &mut out, &mut lse, &mut status, kv, splits, unit as i32, pages, stride, queries, 0, blocks));
    check(&format!("{what}, Rust"), 0.0, &x.want, &out, &lse);
    let flags: u32 = status.to_vec()[..3].iter().enumerate().map(|(i, s)| ((*s != 0) as u32) << i).sum();
    assert_eq!(Status(flags), x.want.status, "{what}: status");

    let join = join_queries_ir(c, &j, memory::<T>()).unwrap();
    for stage in stages(chunk_ir(c, &m, memory::<T>()).unwrap()) {
        let mut args = vec![buffer(&x.q), buffer(&x.cache), buffer(&x.table), buffer(&x.lens), buffer(&out0), buffer(&lse0), buffer(&part0), buffer(&stat0), buffer(&Global::<i32>::zeroed(4))];
        args.extend([kv, pages, stride, splits, unit as i32].map(scalar));
        args.push(scalar(x.scale));
        args.extend([queries, 0, blocks, shift as i32].map(scalar));
        let got = interpreted(&what, &stage, grids[0], args);
        assert_bytes(&format!("{what}, {} IR: status", stage.0), &got[8], &attended.bytes);
        let mut args: Vec<Arg> = got[6..8].iter().cloned().map(Arg::Buffer).collect();
        args.extend([buffer(&x.table), buffer(&x.lens)]);
        args.extend(got[4..6].iter().cloned().map(Arg::Buffer));
        args.push(buffer(&attended));
        args.extend([kv, splits, unit as i32, pages, stride, queries, 0, blocks].map(scalar));
        let joined = interpreted(&format!("join after {what}"), &("tile", join.clone()), grids[1], args);
        let (mut o, mut l) = (out0.clone(), lse0.clone());
        (o.bytes, l.bytes) = (joined[4].clone(), joined[5].clone());
        assert_bytes(&format!("{what}, {} IR: joined status", stage.0), &joined[6], &status.bytes);
        check(&format!("{what}, {} IR", stage.0), 0.0, &x.want, &o, &l);
    }
}

/// Causal edges within tiles and leaves, rows without tokens, several blocks the last of which is not full, pages that do not exist, parts to join
/// and whole rows, trees that end in the middle.
fn chunks(name: &str) {
    let of = |warps: usize, p: Problem| Problem { warps, ..p };
    attends_in_chunks::<f32>(name, 2, 9, &of(1, problem(64, 4, 7, 0, &[40, 7, -1])));
    attends_in_chunks::<f32>(name, 1, 0, &of(2, problem(64, 2, 9, 0, &[300])));
    attends_in_chunks::<bf16>(name, 2, 1, &of(2, Problem { bad_page: Some((0, 9)), ..problem(64, 3, 7, 0, &[293]) }));
    attends_in_chunks::<bf16>(name, 1, 9, &of(2, Problem { bad_page: Some((0, 1)), ..problem(128, 1, 18, 0, &[60]) }));
    attends_in_chunks::<f32>(name, 2, 3, &of(1, problem(64, 4, 3, 0, &[639])));
    attends_in_chunks::<f32>(name, 1, 0, &of(2, problem(64, 8, 3, 0, &[270])));
    // More than eight warps: some bring their share of the next leaf before they attend to this one, some after.
    attends_in_chunks::<f32>(name, 1, 9, &of(12, problem(64, 4, 24, 0, &[290])));
}

fn problem(d: usize, group: usize, queries: usize, block: usize, lens: &[i32]) -> Problem {
    Problem { d, group, queries, block, warps: 0, lens: lens.to_vec(), bad_page: None }
}

/// Speculative tokens: one block, around the edges of tiles and of the sequence.
fn speculates(name: &str) {
    for (group, queries) in [(1, 2), (1, 4), (2, 2), (3, 4), (4, 2), (4, 4), (5, 3), (8, 2)] {
        attends::<f32>(name, &problem(64, group, queries, queries, &[33, 2, 0]));
    }
    attends::<bf16>(name, &problem(128, 4, 3, 3, &[65, -3]));
    attends::<f32>(name, &Problem { warps: 1, ..problem(64, 4, 4, 4, &[515]) });
}

/// A chunk of a prompt: several blocks, the last one not full, some rows without a token.
fn prefills(name: &str) {
    attends::<f32>(name, &problem(64, 4, 11, 64, &[40, 7]));
    attends::<f32>(name, &problem(64, 16, 3, 64, &[34]));
    attends::<bf16>(name, &problem(128, 8, 5, 64, &[5, 700]));
    attends::<f32>(name, &Problem { bad_page: Some((0, 1)), ..problem(64, 1, 37, 64, &[60]) });
    attends::<f32>(name, &problem(256, 4, 3, 64, &[33]));
}

#[test]
fn chunks_int4() {
    chunks("int4");
}

#[test]
fn chunks_e8w4() {
    chunks("e8w4");
}

/// Offsets, keys and values by blocks, tails of bits, other zeros.
#[test]
fn chunks_of_families() {
    for name in ["turboquant_4bit_nc", "int4_per_token_head", "int8", "int3", "e8q38", "int5/int2"] {
        attends_in_chunks::<f32>(name, 1, 9, &Problem { warps: 1, ..problem(64, 4, 2, 0, &[290]) });
        attends_in_chunks::<bf16>(name, 2, 0, &Problem { warps: 1, ..problem(128, 2, 4, 0, &[66]) });
    }
}

macro_rules! codecs {
    ($($few:ident, $many:ident: $codec:literal;)*) => { $(
        #[test]
        fn $few() {
            speculates($codec);
        }
        #[test]
        fn $many() {
            prefills($codec);
        }
    )* };
}
codecs! {
    speculates_bf16, prefills_bf16: "bf16";
    speculates_int4, prefills_int4: "int4";
    speculates_e8w4, prefills_e8w4: "e8w4";
    speculates_e8q38, prefills_e8q38: "e8q38";
    speculates_half_exact, prefills_half_exact: "int4/bf16";
}

/// Offsets of keys and values, keys by fours of blocks, two-byte lanes, float keys beside integer values.
#[test]
fn families() {
    for name in ["turboquant_4bit_nc", "int4_per_token_head", "int8", "e8q255", "turboquant_k8v4"] {
        attends::<f32>(name, &problem(64, 4, 4, 4, &[37, 3]));
        attends::<f32>(name, &problem(64, 2, 2, 2, &[66]));
        attends::<bf16>(name, &problem(128, 8, 3, 64, &[34]));
    }
}

#[test]
fn bands() {
    attends::<f32>("e8w5+e8w4+e8w4+e8w2/e8w5+e8w3", &problem(128, 4, 4, 4, &[70]));
    attends::<f32>("e8w5+e8w4+e8w4+e8w2/e8w5+e8w3", &problem(128, 2, 2, 2, &[33]));
}

/// A block has as many rows as columns and registers allow, and at least one query token.
#[test]
fn blocks_fit_the_tensor_core() {
    for name in ["bf16", "int4", "e8q38"] {
        let c = codec(name).unwrap();
        for d in [64, 128, 256] {
            for group in [1, 2, 3, 4, 5, 6, 7, 8, 16] {
                for queries in [1, 2, 3, 4, 2048] {
                    let m = prefill_meta(c, d, group, queries, 64);
                    assert!(m.queries >= 1 && m.queries <= queries && m.rows() * m.parts <= m.cols && m.cols <= 16 && m.fold * m.group - group < m.fold);
                    // The same sums as in decode.
                    assert_eq!(m.parts == 2 || m.apart, parts(c) == 2);
                }
            }
        }
    }
}
