//! Several query tokens a sequence at every stage: each has the bits of decode attention by itself.

#[path = "support/stages.rs"]
mod run;
mod support;

use kernel_dsl::ir::Program;
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

/// A kernel of `m` and its join on a problem.
struct Launches {
    what: String,
    /// How far outputs may be from the reference: 0 asks for its bits.
    bound: f32,
    m: DecodeMeta,
    /// As many as the kernel takes them for.
    heads: usize,
    splits: usize,
    /// log2 of the leaves of a part.
    log_share: usize,
    /// Blocks of query tokens.
    blocks: usize,
}

/// What both write.
struct Written<T> {
    part: Global<f32>,
    stat: Global<f32>,
    out: Global<T>,
    lse: Global<f32>,
    status: Global<i32>,
}

impl Launches {
    fn of(what: String, bound: f32, m: DecodeMeta, queries: usize, unit: usize, log_share: usize) -> Self {
        Launches { what, bound, m, heads: KV_HEADS * m.fold, splits: kernels::splits_of(&m, STRIDE * PAGE, unit), log_share, blocks: queries.div_ceil(m.queries) }
    }

    fn log_splits(&self) -> u32 {
        self.splits.next_power_of_two().ilog2()
    }

    /// `kernel` and the join in Rust beside the reference, then `ir`, and what `joins` has for each of its stages, beside those bytes.
    /// `scalars`: what follows the buffers of the kernel.
    fn run<T: Float>(&self, c: &CodecInfo, p: &Problem, x: &Data<T>, ir: Program, joins: [(&'static str, Program); 3], scalars: &[Arg], kernel: impl FnMut(&mut Written<T>)) {
        let Launches { what, m, heads, splits, blocks, .. } = self;
        let (batch, rows, outs) = (p.lens.len(), p.lens.len() * heads * blocks * splits * m.rows(), p.lens.len() * p.queries * KV_HEADS * p.group);
        let nan = |n: usize| Global::<f32>::new(&vec![f32::NAN; n]);
        let before = || Written { part: nan(rows * p.d), stat: nan(rows * 2), out: global::<T>(&vec![f32::NAN; outs * p.d]), lse: nan(outs), status: Global::zeroed(4) };
        let grid = [(blocks << self.log_splits()) as u32, *heads as u32, batch as u32];
        let join_grid = [(p.queries * m.group) as u32, *heads as u32, batch as u32];

        // The Rust functions.
        let (mut w, mut kernel) = (before(), kernel);
        launch(grid, || kernel(&mut w));
        let attended = w.status.clone();
        let after = [*heads, *splits, self.log_share, x.pages, STRIDE, p.queries, 0, *blocks].map(|n| n as i32);
        launch(join_grid, || {
            let [heads, splits, log_share, pages, stride, queries, first, blocks] = after;
            let (j, none, none_f32) = (join_queries_meta(m), Global::zeroed(0), Global::zeroed(0));
            prefill::join_queries::<T>(j, c.v.bands[0], &none, &none_f32, &w.part, &w.stat, &x.table, &x.lens, &mut w.out, &mut w.lse, &mut w.status, heads, splits, log_share, pages, stride, queries, first, blocks)
        });
        check(&format!("{what}, Rust"), self.bound, &x.want, &w.out, &w.lse);
        let flags: u32 = w.status.to_vec()[..3].iter().enumerate().map(|(i, s)| ((*s != 0) as u32) << i).sum();
        assert_eq!(Status(flags), x.want.status, "{what}: status");

        for (stage, join) in stages(ir).iter().zip(&joins) {
            let new = before();
            let mut args = vec![buffer(&x.q), buffer(&x.cache), buffer(&x.table), buffer(&x.lens), buffer(&new.out), buffer(&new.lse), buffer(&new.part), buffer(&new.stat), buffer(&new.status)];
            args.extend_from_slice(scalars);
            let got = interpreted(what, stage, grid, args);
            assert_bytes(&format!("{what}, {} IR: status", stage.0), &got[8], &attended.bytes);
            let mut args: Vec<Arg> = got[6..8].iter().cloned().map(Arg::Buffer).collect();
            args.extend([buffer(&x.table), buffer(&x.lens)]);
            args.extend(got[4..6].iter().cloned().map(Arg::Buffer));
            args.push(buffer(&attended));
            args.extend(after.map(scalar));
            let joined = interpreted(&format!("join after {what}"), join, join_grid, args);
            let (mut out, mut lse) = (new.out, new.lse);
            (out.bytes, lse.bytes) = (joined[4].clone(), joined[5].clone());
            assert_bytes(&format!("{what}, {} IR: joined status", stage.0), &joined[6], &w.status.bytes);
            check(&format!("{what}, {} IR", stage.0), self.bound, &x.want, &out, &lse);
        }
    }
}

fn attends<T: Float>(name: &str, p: &Problem) {
    let c = codec(name).unwrap();
    let x = p.data::<T>(c);
    let Problem { d, group, queries, block, .. } = *p;
    let m = prefill_meta(c, d, group, block, PAGE);
    let m = if p.warps > 0 { DecodeMeta { warps: p.warps, ..m } } else { m };
    let what = format!("{name} d {d} group {group} queries {queries} in blocks of {} ({} parts, apart {}) lens {:?}", m.queries, m.parts, m.apart, p.lens);
    let l = Launches::of(what, if c.exact() { 0.0 } else { 2e-2 }, m, queries, 0, kernels::log_share(&m, 0));
    let sizes = [l.heads, x.pages, STRIDE, 0, l.splits, 0].map(|n| n as i32);
    let tokens = [queries, 0, l.blocks, l.log_splits() as usize].map(|n| n as i32);
    let mut scalars = sizes.map(scalar).to_vec();
    scalars.push(scalar(x.scale));
    scalars.extend(tokens.map(scalar));
    let (none, none_f32) = (Global::zeroed(0), Global::zeroed(0));
    l.run(c, p, &x, prefill_ir(c, &m, memory::<T>()).unwrap(), stages(join_queries_ir(c, &join_queries_meta(&m), memory::<T>()).unwrap()), &scalars, |w| {
        let ([heads, pages, stride, segments, splits, unit], [queries, first, blocks, log_splits]) = (sizes, tokens);
        let (k, v) = (c.k.bands, c.v.bands);
        #[rustfmt::skip] // one line a kind of argument
        prefill::prefill_attention::<T>(
            m, k, v, &x.q, &none, &none_f32, &x.cache, &x.table, &x.lens,
            &mut w.out, &mut w.lse, &mut w.part, &mut w.stat, &mut w.status,
            heads, pages, stride, segments, splits, unit, x.scale, queries, first, blocks, log_splits,
        );
    });
}

/// The kernel of long chunks: blocks of `warps` warps of `wide` eights of rows, each with 2^unit leaves of a row.
fn attends_in_chunks<T: Float>(name: &str, wide: usize, unit: usize, p: &Problem) {
    let c = codec(name).unwrap();
    let x = p.data::<T>(c);
    let Problem { d, group, queries, warps, .. } = *p;
    let m = DecodeMeta { warps, wide, queries: 8 * wide * warps / group, ..chunk_meta(c, d, group, PAGE) };
    let what = format!("{name} d {d} group {group} queries {queries} in chunks of {}, 2^{unit} leaves, lens {:?}", m.queries, p.lens);
    let l = Launches::of(what, 0.0, m, queries, unit, unit);
    let sizes = [l.heads, x.pages, STRIDE, l.splits, unit].map(|n| n as i32);
    let tokens = [queries, 0, l.blocks, l.log_splits() as usize].map(|n| n as i32);
    let mut scalars = sizes.map(scalar).to_vec();
    scalars.push(scalar(x.scale));
    scalars.extend(tokens.map(scalar));
    let (none, none_f32) = (Global::zeroed(0), Global::zeroed(0));
    // The join's own stages are compared above.
    let join = ("tile", join_queries_ir(c, &join_queries_meta(&m), memory::<T>()).unwrap());
    l.run(c, p, &x, chunk_ir(c, &m, memory::<T>()).unwrap(), [join.clone(), join.clone(), join], &scalars, |w| {
        let ([heads, pages, stride, splits, unit], [queries, first, blocks, log_splits]) = (sizes, tokens);
        let (k, v) = (c.k.bands, c.v.bands);
        #[rustfmt::skip] // likewise
        chunk_attention::<T>(
            m, k, v, &x.q, &none, &none_f32, &x.cache, &x.table, &x.lens,
            &mut w.out, &mut w.lse, &mut w.part, &mut w.stat, &mut w.status,
            heads, pages, stride, splits, unit, x.scale, queries, first, blocks, log_splits,
        );
    });
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
