//! Decode attention on random problems: lengths around every edge, every group, ragged batches, any split count.

use crate::support::{Guarded, Noise, bits, cases, first_difference, gpu, one_of};
use kernels_gen::kernels::Elem;
use kernels_gen::reference::{self, CacheShape, Decoded};
use kernels_gen::registry::CodecInfo;
use runtime::{Codec, Decode, DecodePlan, DecodeSpec, Device, PagedCache, Stream};

struct Problem {
    d: usize,
    group: usize,
    kv_heads: usize,
    page: usize,
    stride: usize,
    lens: Vec<i32>,
    table: Vec<i32>,
    splits: usize,
    q: Vec<f32>,
    scale: f32,
    shape: CacheShape,
    k: Vec<f32>,
    v: Vec<f32>,
    slots: Vec<i64>,
}

/// `pairs`: more shares than run at once, but not twice as many: blocks take two side by side. Shares are whole sequences, or parts of some.
fn problem(noise: &mut Noise, long: bool, pairs: bool, plain: bool) -> Problem {
    let d = one_of("KVF_DIMS", &[64, 128, 256], noise);
    let group = one_of("KVF_GROUPS", &[1, 2, 3, 4, 5, 6, 7, 8, 16], noise);
    let page = [32, 64, 128][noise.below(3)];
    // So many short sequences that blocks take several at once; a few longer ones among them.
    let many = !long && !pairs && noise.below(3) == 0;
    let kv_heads = if many || pairs { 8 } else { 1 + noise.below(2) };
    let parts = pairs && noise.below(2) == 0;
    let most = if long {
        32768
    } else if pairs {
        if parts { 4096 } else { 2048 }
    } else {
        1 + noise.below(if many { 3000 } else { 6000 })
    };
    let near = most / page + 1;
    // Tables may name more tokens than any sequence has: then there can be more parts than blocks run at once.
    let stride = if parts || !long && !many && !pairs && noise.below(3) == 0 { 131072 / page } else { near };
    let batch = if long {
        1
    } else if pairs {
        if parts { 33 } else { 61 }
    } else if many {
        40 + noise.below(100)
    } else {
        1 + noise.below(4)
    };
    let short = [40, 300, 700][noise.below(3)];
    let edge = |n: &mut Noise| match n.below(8) {
        0 => 0,
        1 => 1,
        2 => page - 1,
        3 => page,
        4 => page + 1,
        5 => 256 * n.below(25),
        _ => n.below(most + 1),
    };
    let len = |n: &mut Noise| match (long, many) {
        _ if pairs => most - n.below(1000),
        (true, _) => most,
        (_, true) if n.below(20) > 0 => n.below(short) * n.below(4).min(1),
        _ => edge(n),
    };
    let of = |i: usize, n: &mut Noise| len(n) - if parts && i > 2 { 2048 } else { 0 };
    let lens: Vec<i32> = (0..batch).map(|i| of(i, noise).min(near * page) as i32).collect();
    let pages = batch * near + 3;
    let shape = CacheShape { pages, page_tokens: page, kv_heads, d };
    let order = noise.shuffled(pages);
    let table: Vec<i32> = (0..batch * stride).map(|i| order[i / stride * near + (i % stride).min(near - 1)] as i32).collect();
    // Only the tokens in use are stored: the rest of the cache keeps its poison.
    let mut slots = vec![];
    for (b, len) in lens.iter().enumerate() {
        slots.extend((0..*len as usize).map(|t| table[b * stride + t / page] as i64 * page as i64 + (t % page) as i64));
    }
    if slots.is_empty() {
        slots.push(-1);
    }
    let n = slots.len() * kv_heads;
    let mut make = |n: usize| if plain { (0..n * d).map(|_| noise.gauss()).collect() } else { noise.rows(n, d) };
    let (k, v) = (make(n), make(n));
    let q: Vec<f32> = make(batch * kv_heads * group);
    Problem { d, group, kv_heads, page, stride, lens, table, splits: if pairs { 0 } else { noise.below(6) }, q, scale: 1.0 / (d as f32).sqrt(), shape, k, v, slots }
}

fn wanted(c: &CodecInfo, p: &Problem) -> (Vec<u8>, Decoded) {
    let mut cache = vec![0xff; p.shape.bytes(c)];
    reference::store(c, &p.shape, &mut cache, &p.k, &p.v, &p.slots);
    let heads = p.kv_heads * p.group;
    // `Sequence` has the bits of `reference::decode` and unpacks a sequence once.
    let mut want = Decoded { out: vec![], lse: vec![], status: reference::Status::OK };
    for (b, len) in p.lens.iter().enumerate() {
        let row = &p.table[b * p.stride..(b + 1) * p.stride];
        let sequence = reference::Sequence::new(c, &p.shape, &cache, row, *len as usize).expect("a good table");
        let (out, lse) = sequence.attend(&p.q[b * heads * p.d..(b + 1) * heads * p.d], heads, &[*len], p.scale);
        want.out.extend(out);
        want.lse.extend(lse);
    }
    (cache, want)
}

/// `late`: 1 or 2, the table, or lengths too, are written by the launch before, which has not ended when attention begins; until then they are others.
fn run(device: &Device, stream: &Stream, c: &CodecInfo, p: &Problem, cache: &[u8], late: usize) -> (Vec<f32>, Vec<f32>, Vec<i32>) {
    let spec = DecodeSpec { codec: Codec::open(c.name).expect("a codec"), head_dim: p.d, group: p.group, page_tokens: p.page, elem: Elem::F32, splits: p.splits };
    let plan = DecodePlan::prepare(device, &spec).expect("a plan");
    let (batch, heads) = (p.lens.len(), p.kv_heads * p.group);
    let need = plan.workspace_bytes(batch, heads, p.stride).expect("a size") as usize;
    let put = |b: Vec<u8>| {
        let g = Guarded::new(device, stream, b.len(), 0);
        g.upload(stream, &b);
        g
    };
    let words = |x: &[f32]| x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let ints = |x: &[i32]| x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (q, kv, table, lens) = (put(words(&p.q)), put(cache.to_vec()), put(ints(&p.table)), put(ints(&p.lens)));
    let (out, lse) = (Guarded::new(device, stream, batch * heads * p.d * 4, 0xff), Guarded::new(device, stream, batch * heads * 4, 0xff));
    let (workspace, status) = (Guarded::new(device, stream, need, 0xff), Guarded::new(device, stream, 16, 0));
    let call = Decode {
        batch,
        q: q.span(),
        cache: PagedCache { base: kv.span(), pages: p.shape.pages, page_tokens: p.page, kv_heads: p.kv_heads, head_dim: p.d },
        table: table.span(),
        table_stride: p.stride,
        lens: lens.span(),
        out: out.span(),
        lse: Some(lse.span()),
        scale: p.scale,
        workspace: workspace.span(),
        status: status.span(),
    };
    let zeros = Guarded::new(device, stream, 4, 0);
    let (its_table, its_lens) = (put(ints(&p.table)), put(ints(&p.lens)));
    if late > 0 {
        let pages = p.shape.pages as i32;
        table.upload(stream, &ints(&p.table.iter().map(|page| [pages - 1 - page, page ^ 1, -1, i32::MAX][*page as usize % 4]).collect::<Vec<_>>()));
        if late > 1 {
            let most = (p.stride * p.page) as i32;
            lens.upload(stream, &ints(&p.lens.iter().map(|len| [most - len, most, -1, i32::MAX][*len as usize % 4]).collect::<Vec<_>>()));
        }
        crate::late::write(device, stream, &zeros, [&its_lens, &its_table], [&lens, &table], batch, p.table.len());
    }
    plan.launch(stream, &call).expect("launch");
    let got = (out.download(stream, batch * heads * p.d), lse.download(stream, batch * heads), status.download(stream, 4));
    for g in [&q, &kv, &table, &lens, &out, &lse, &workspace, &status] {
        g.check(stream, "decode");
    }
    got
}

/// Bound of a bf16 kernel's error: products of bf16 are exact in f32, sums of d and of 32 terms round once a
/// term, weights round to bf16 (2^-9); all relative to the largest value.
fn bf16_bound(d: usize, most: f32) -> f32 {
    most * (2.0_f32.powi(-8) + d as f32 * 2.0_f32.powi(-22))
}

fn check(c: &CodecInfo, p: &Problem, want: &Decoded, got: &(Vec<f32>, Vec<f32>, Vec<i32>)) -> Result<(), String> {
    if c.exact() {
        if let Some(e) = first_difference(&bits(&got.0), &bits(&want.out)).or_else(|| first_difference(&bits(&got.1), &bits(&want.lse))) {
            return Err(e);
        }
        return Ok(());
    }
    let heads = p.kv_heads * p.group;
    let finite = p.v.iter().map(|v| if v.is_nan() { 0.0 } else { v.abs().min(3.39e38) }).fold(0.0, f32::max);
    let bound = bf16_bound(p.d, finite);
    let bad = (0..want.out.len()).find(|&i| !((got.0[i] - want.out[i]).abs() <= bound));
    bad.map_or(Ok(()), |i| Err(format!("out[{i}] of sequence {} is {}, wanted {} within {bound}", i / heads / p.d, got.0[i], want.out[i])))
}

#[test]
fn decode_is_bit_identical() {
    let Some((device, _)) = gpu("decode_is_bit_identical") else { return };
    let total = crate::side_by_side(&device, &crate::subjects(cases(24)), |stream, &(c, n)| {
        let mut noise = Noise(c.k.bits as u64 + 5);
        let problems: Vec<Problem> = (0..n).map(|i| problem(&mut noise, i % 50 == 49, i + 1 == n, !c.exact())).filter(|p| c.serves(p.d)).collect();
        let n = problems.len();
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let wants: Vec<(Vec<u8>, Decoded)> = std::thread::scope(|s| {
            let chunk = problems.len().div_ceil(threads);
            let jobs: Vec<_> = problems.chunks(chunk).map(|ps| s.spawn(move || ps.iter().map(|p| wanted(c, p)).collect::<Vec<_>>())).collect();
            jobs.into_iter().flat_map(|j| j.join().expect("reference")).collect()
        });
        let mut bad = 0;
        for (i, (p, (cache, want))) in problems.iter().zip(&wants).enumerate() {
            let got = run(&device, stream, c, p, cache, i % 3);
            if let Err(e) = check(c, p, want, &got) {
                bad += 1;
                if bad <= 3 {
                    println!("{} problem {i}: d {} group {} page {} splits {} lens {:?}: {e}", c.name, p.d, p.group, p.page, p.splits, p.lens);
                }
            }
        }
        println!("decode {}: {n} problems, {bad} wrong", c.name);
        bad
    });
    assert_eq!(total, 0, "problems with wrong bits");
}
