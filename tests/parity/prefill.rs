//! Several query tokens a sequence on random problems: speculative tokens and chunks of a prompt, each token against
//! decode attention by itself in the scalar reference.

use crate::support::{Guarded, Noise, bits, cases, first_difference, gpu, one_of};
use kernels_gen::kernels::{Elem, chunk};
use kernels_gen::reference::{self, CacheShape, Decoded};
use kernels_gen::registry::CodecInfo;
use runtime::{Codec, Decode, DecodeSpec, Device, PagedCache, QueriesPlan, Stream};

struct Problem {
    group: usize,
    queries: usize,
    stride: usize,
    splits: usize,
    lens: Vec<i32>,
    table: Vec<i32>,
    q: Vec<f32>,
    scale: f32,
    shape: CacheShape,
    cache: Vec<u8>,
    want: Decoded,
}

fn problem(c: &CodecInfo, noise: &mut Noise) -> Problem {
    let d = loop {
        let d = one_of("KVF_DIMS", &[64, 128, 256], noise);
        if c.serves(d) {
            break d;
        }
    };
    let group = one_of("KVF_GROUPS", &[1, 2, 3, 4, 5, 6, 7, 8, 16], noise);
    let queries = match noise.below(4) {
        0 => 5 + noise.below(60),
        // Enough for the kernel of long chunks.
        1 if chunk::chosen(c, d, group, 256, 227 * 1024) => 256usize.div_ceil(group) + noise.below(100),
        _ => 1 + noise.below(4),
    };
    let page_tokens = [32, 64, 128][noise.below(3)];
    let kv_heads = 1 + noise.below(2);
    let most = 1 + noise.below(if queries > 4 { 1500 } else { 6000 });
    let most = if queries > 64 { most.max(queries) } else { most };
    let (stride, batch) = (most / page_tokens + 1, 1 + noise.below(3));
    let lens: Vec<i32> = (0..batch)
        .map(|_| match noise.below(5) {
            0 => noise.below(queries + 2).min(most),
            1 => (512 * noise.below(3) + noise.below(queries + 1)).min(most),
            _ => noise.below(most + 1),
        })
        .map(|len| len as i32)
        .collect();
    let pages = batch * stride + 3;
    let shape = CacheShape { pages, page_tokens, kv_heads, d };
    let order = noise.shuffled(pages);
    let mut table: Vec<i32> = (0..batch * stride).map(|i| order[i] as i32).collect();
    let mut slots = vec![-1];
    for (b, len) in lens.iter().enumerate() {
        slots.extend((0..*len as usize).map(|t| table[b * stride + t / page_tokens] as i64 * page_tokens as i64 + (t % page_tokens) as i64));
    }
    let n = slots.len() * kv_heads;
    let mut make = |n: usize| if c.exact() { noise.rows(n, d) } else { (0..n * d).map(|_| noise.gauss()).collect() };
    let (k, v, q): (Vec<f32>, Vec<f32>, Vec<f32>) = (make(n), make(n), make(batch * queries * kv_heads * group));
    let mut cache = vec![0xff; shape.bytes(c)];
    reference::store(c, &shape, &mut cache, &k, &v, &slots);
    if noise.below(6) == 0 {
        table[noise.below(batch * stride)] = -1;
    }
    let scale = 1.0 / (d as f32).sqrt();
    let want = reference::prefill(c, &shape, &cache, &q, queries, kv_heads * group, &table, stride, &lens, scale);
    Problem { group, queries, stride, splits: noise.below(4), lens, table, q, scale, shape, cache, want }
}

/// Output, log-sum-exp and status of the plan's kernels.
fn run(device: &Device, stream: &Stream, c: &CodecInfo, p: &Problem) -> (Vec<f32>, Vec<f32>, Vec<i32>) {
    let CacheShape { pages, page_tokens, kv_heads, d: head_dim } = p.shape;
    let spec = DecodeSpec { codec: Codec::open(c.name).expect("a codec"), head_dim, group: p.group, page_tokens, elem: Elem::F32, splits: p.splits };
    let plan = QueriesPlan::prepare(device, &spec, p.queries).expect("a plan");
    let (batch, heads) = (p.lens.len(), kv_heads * p.group);
    let bytes = |x: &[f32]| x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let ints = |x: &[i32]| x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let put = |b: &[u8]| {
        let g = Guarded::new(device, stream, b.len(), 0);
        g.upload(stream, b);
        g
    };
    let (q, kv, table, lens) = (put(&bytes(&p.q)), put(&p.cache), put(&ints(&p.table)), put(&ints(&p.lens)));
    let need = plan.workspace_bytes(batch, heads, p.queries, p.stride).expect("a size") as usize;
    let rows = batch * p.queries * heads;
    let (out, lse, workspace, status) = (Guarded::new(device, stream, rows * head_dim * 4, 0xff), Guarded::new(device, stream, rows * 4, 0xff), Guarded::new(device, stream, need, 0xff), Guarded::new(device, stream, 16, 0));
    let call = Decode {
        batch,
        q: q.span(),
        cache: PagedCache { base: kv.span(), pages, page_tokens, kv_heads, head_dim },
        table: table.span(),
        table_stride: p.stride,
        lens: lens.span(),
        out: out.span(),
        lse: Some(lse.span()),
        scale: p.scale,
        workspace: workspace.span(),
        status: status.span(),
    };
    plan.launch(stream, &call, p.queries).expect("launch");
    let got = (out.download(stream, rows * head_dim), lse.download(stream, rows), status.download(stream, 4));
    for g in [&q, &kv, &table, &lens, &out, &lse, &workspace, &status] {
        g.check(stream, "prefill");
    }
    got
}

fn check(c: &CodecInfo, p: &Problem, got: &(Vec<f32>, Vec<f32>, Vec<i32>)) -> Result<(), String> {
    let flags = (0..3).filter(|&i| got.2[i] != 0).fold(0_u32, |all, i| all | 1 << i);
    if flags != p.want.status.0 {
        return Err(format!("status {:?}, wanted {:?}", got.2, p.want.status));
    }
    if c.exact() {
        let wrong = first_difference(&bits(&got.0), &bits(&p.want.out)).or_else(|| first_difference(&bits(&got.1), &bits(&p.want.lse)));
        return wrong.map_or(Ok(()), Err);
    }
    // Values are of about unit size; weights round to bf16.
    let bound = 4.0 * (2.0_f32.powi(-8) + p.shape.d as f32 * 2.0_f32.powi(-22));
    let bad = (0..p.want.out.len()).find(|&i| !((got.0[i] - p.want.out[i]).abs() <= bound));
    bad.map_or(Ok(()), |i| Err(format!("out[{i}] is {}, wanted {} within {bound}", got.0[i], p.want.out[i])))
}

#[test]
fn prefill_is_bit_identical() {
    let Some((device, _)) = gpu("prefill_is_bit_identical") else { return };
    let total = crate::side_by_side(&device, &crate::subjects(cases(24)), |stream, &(c, n)| {
        let mut noise = Noise(c.k.bits as u64 + 77);
        let (mut bad, mut speculative, mut long) = (0, 0, 0);
        for i in 0..n {
            let p = problem(c, &mut noise);
            speculative += usize::from(p.queries <= 4);
            long += usize::from(chunk::chosen(c, p.shape.d, p.group, p.queries, 227 * 1024));
            if let Err(e) = check(c, &p, &run(&device, stream, c, &p)) {
                bad += 1;
                if bad <= 3 {
                    println!("{} problem {i}: d {} group {} queries {} page {} splits {} lens {:?}: {e}", c.name, p.shape.d, p.group, p.queries, p.shape.page_tokens, p.splits, p.lens);
                }
            }
        }
        println!("prefill {}: {n} problems, {speculative} of them of up to 4 query tokens, {long} long chunks, {bad} wrong", c.name);
        bad
    });
    assert_eq!(total, 0, "problems with wrong bits");
}
