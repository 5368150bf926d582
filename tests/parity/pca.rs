//! Pages of the PCA codec, attention over them, and what is raw beside them: the reference's bits, whatever the shape.

use crate::support::{Guarded, Noise, bits, cases, first_difference, gpu};
use kernels_gen::kernels::Elem;
use kernels_gen::pca::pages::{BLOCK, PcaPages};
use kernels_gen::reference::{self, CacheShape, PcaHead};
use runtime::{Codec, Decode, DecodePlan, DecodeSpec, Device, Merge, MergePlan, PagedCache, Rows, State, Store, StorePlan, StoreSpec, Stream};

const NAMES: [&str; 10] = [
    "pca_b3_post_r64",
    "pca_b4_post",
    "pca_b2_post_k1_r64/pca_b1_r64",
    "pca_b3_post_random_ds/pca_b4_norm_qwen_b2",
    "pca_b3_post_ds_t2_r64/pca_b2_share_ds_r64",
    "pca_b3_post_share_t2.5/pca_b3_r64",
    "pca_b4_post_share_t3_r64/pca_b2_share_t2",
    "pca_b3_r64",
    "pca_b4_theta1000000/pca_b3_t2.5_r64",
    "pca_b3_ds_t2_r64/pca_b2_share_ds_r64",
];

fn pages(name: &str) -> &'static PcaPages {
    Codec::open(name).expect("a codec").pca().expect("pages")
}

/// Rows of few directions, as keys have them.
fn smooth(noise: &mut Noise, n: usize, d: usize) -> Vec<f32> {
    let mut x: Vec<f32> = (0..n * d).map(|i| noise.gauss() * 3.0 * (-((i % d) as f32) / 20.0).exp()).collect();
    x.chunks_mut(d).for_each(reference::rotate);
    x.iter_mut().enumerate().for_each(|(i, x)| *x += ((i % d) as f32).sin());
    x
}

fn put<T: Copy, const N: usize>(device: &Device, stream: &Stream, x: &[T], bytes: fn(T) -> [u8; N]) -> Guarded {
    let bytes: Vec<u8> = x.iter().flat_map(|v| bytes(*v)).collect();
    let g = Guarded::new(device, stream, bytes.len(), 0);
    g.upload(stream, &bytes);
    g
}

/// What differs of one problem; its pages are some of `pool`, or the last of it, which has the bases that they share.
fn run(device: &Device, stream: &Stream, c: &'static PcaPages, d: usize, pool: &[Vec<u8>], noise: &mut Noise, i: usize) -> Option<String> {
    let (group, kv_heads, batch) = (1 + noise.below(8), 1 + noise.below(2), if i == 0 { 1 } else { 1 + noise.below(3) });
    let most = if i == 0 { 20000 } else { 1 + noise.below(4000) };
    let (stride, heads) = (most / BLOCK + 1 + c.lead(), kv_heads * group);
    let lens: Vec<i32> = (0..batch).map(|_| if i == 0 { most } else { noise.below(4).min(1) * (1 + noise.below(most)) } as i32).collect();
    let shape = CacheShape { pages: batch * stride + 3, page_tokens: BLOCK, kv_heads, d };
    let order = noise.shuffled(shape.pages);
    let mut table: Vec<i32> = order[..batch * stride].iter().map(|p| *p as i32).collect();
    let broken = i % 4 == 3;
    if broken {
        table[0] = shape.pages as i32;
    }
    let bases = order[batch * stride];
    (0..c.lead() * batch).filter(|b| !broken || *b > 0).for_each(|b| table[b * stride] = bases as i32);
    let of = |page: usize, at: usize| &pool[if c.lead() > 0 && page == bases { pool.len() - 1 } else { at }];
    let stored: Vec<u8> = (0..shape.pages * kv_heads).flat_map(|page| of(page / kv_heads, noise.below(pool.len() - c.lead())).clone()).collect();
    let q = noise.rows(batch * heads, d);
    let scale = 1.0 / (d as f32).sqrt();
    let want = reference::decode_pca(c, &shape, &stored, &q, heads, &table, stride, &lens, scale);
    let spec = DecodeSpec { codec: Codec::open(&c.name).expect("a codec"), head_dim: d, group, page_tokens: BLOCK, elem: Elem::F32, splits: noise.below(6) };
    let plan = DecodePlan::prepare(device, &spec).expect("a plan");
    let cache = put(device, stream, &stored, |b| [b]);
    let [rows, table, lens_of] = [put(device, stream, &q, f32::to_le_bytes), put(device, stream, &table, i32::to_le_bytes), put(device, stream, &lens, i32::to_le_bytes)];
    let (out, lse) = (Guarded::new(device, stream, batch * heads * d * 4, 0xff), Guarded::new(device, stream, batch * heads * 4, 0xff));
    let workspace = Guarded::new(device, stream, plan.workspace_bytes(batch, heads, stride).expect("a size") as usize, 0xff);
    let status = Guarded::new(device, stream, 16, 0);
    let paged = PagedCache { base: cache.span(), pages: shape.pages, page_tokens: BLOCK, kv_heads, head_dim: d };
    let call = Decode { batch, q: rows.span(), cache: paged, table: table.span(), table_stride: stride, lens: lens_of.span(), out: out.span(), lse: Some(lse.span()), scale, workspace: workspace.span(), status: status.span() };
    plan.launch(stream, &call).expect("launch");
    let (found, total): (Vec<f32>, Vec<f32>) = (out.download(stream, batch * heads * d), lse.download(stream, batch * heads));
    for g in [&cache, &rows, &table, &lens_of, &out, &lse, &workspace, &status] {
        g.check(stream, "pca");
    }
    let flags: Vec<i32> = status.download(stream, 4);
    let flagged = flags[..3].iter().any(|f| *f != 0);
    let of = |what: &str, got: &[f32], want: &[f32]| first_difference(&bits(got), &bits(want)).map(|e| format!("{what}: {e}"));
    let wrong = (flagged == want.status.is_ok()).then(|| format!("status {flags:?}")).or(of("out", &found, &want.out)).or(of("lse", &total, &want.lse));
    wrong.map(|e| format!("group {group} kv heads {kv_heads} splits {} lens {lens:?}: {e}", spec.splits))
}

#[test]
fn pca_is_bit_identical() {
    let Some((device, _)) = gpu("pca_is_bit_identical") else { return };
    let named = std::env::var("KVF_CODECS").ok();
    let wanted = |name: &&&str| named.as_ref().is_none_or(|named| named.split(',').any(|n| n == **name));
    let items: Vec<(&str, usize)> = NAMES.iter().filter(wanted).flat_map(|name| [64, 128].map(|d| (*name, d))).collect();
    let each = cases(6);
    let total = crate::side_by_side(&device, &items, |stream, &(name, d)| {
        let (c, mut noise) = (pages(name), Noise((d + name.bytes().map(usize::from).sum::<usize>()) as u64));
        let bases = (c.lead() > 0).then(|| c.fit_bases(&smooth(&mut noise, BLOCK, d), &smooth(&mut noise, BLOCK, d), d).expect("bases"));
        let page = |k: &[f32], v: &[f32]| c.encode(bases.as_deref(), k, v, d).expect("a page");
        let mut pool = vec![page(&noise.rows(BLOCK, d), &noise.rows(BLOCK, d))];
        pool.extend([(); 2].map(|()| page(&smooth(&mut noise, BLOCK, d), &smooth(&mut noise, BLOCK, d))));
        pool.extend(bases);
        let wrong = (0..each).filter_map(|i| run(&device, stream, c, d, &pool, &mut noise, i)).inspect(|e| println!("{name} d {d} {e}"));
        wrong.count()
    });
    println!("pca: {} problems, {total} wrong", items.len() * each);
    assert_eq!(total, 0, "problems with wrong bits");
}

/// A block is coded when it is full; what comes after it lies raw in a cache of bf16. Attention over both, merged, is that over the
/// numbers that are stored.
#[test]
fn the_newest_tokens_lie_raw_beside_blocks() {
    let Some((device, stream)) = gpu("the_newest_tokens_lie_raw_beside_blocks") else { return };
    let (c, kv_heads, group, d, most) = (pages("pca_b4_post_r64"), 2, 4, 128, 1300);
    let (heads, width, scale) = (kv_heads * group, kv_heads * d, 1.0 / (d as f32).sqrt());
    let codecs = [&c.name[..], "bf16"].map(|name| Codec::open(name).expect("a codec"));
    let page_tokens = [BLOCK, 64];
    let decode = |i: usize| DecodePlan::prepare(&device, &DecodeSpec { codec: codecs[i], head_dim: d, group, page_tokens: page_tokens[i], elem: Elem::F32, splits: 0 }).expect("a plan");
    let plans = [decode(0), decode(1)];
    let store = StorePlan::prepare(&device, &StoreSpec { codec: codecs[1], head_dim: d, page_tokens: 64, elem: Elem::F32 }).expect("a plan");
    assert!(StorePlan::prepare(&device, &StoreSpec { codec: codecs[0], head_dim: d, page_tokens: BLOCK, elem: Elem::F32 }).is_err());
    let merge = MergePlan::prepare(&device, d, Elem::F32).expect("a plan");
    let mut noise = Noise(9);
    let [k, v] = [(); 2].map(|()| smooth(&mut noise, most * kv_heads, d));
    for tokens in [700, 512, 1300] {
        let blocks = tokens / BLOCK;
        let mut bytes = vec![];
        let mut heads_of: Vec<PcaHead> = (0..kv_heads).map(|_| PcaHead::new(c, d)).collect();
        for (block, head) in (0..blocks).flat_map(|b| (0..kv_heads).map(move |h| (b, h))) {
            let own = |x: &[f32]| (block * BLOCK..(block + 1) * BLOCK).flat_map(|t| x[t * width + head * d..][..d].to_vec()).collect::<Vec<f32>>();
            let page = codecs[0].encode_block(d, &own(&k), &own(&v)).expect("a page");
            heads_of[head].push(&page);
            bytes.extend(page);
        }
        let raw = tokens - blocks * BLOCK;
        let caches = [put(&device, &stream, &bytes, |b| [b]), Guarded::new(&device, &stream, codecs[1].cache_bytes(8, 64, kv_heads, d).expect("a size") as usize, 0)];
        let status = Guarded::new(&device, &stream, 16, 0);
        let paged = |i: usize| PagedCache { base: caches[i].span(), pages: [blocks, 8][i], page_tokens: page_tokens[i], kv_heads, head_dim: d };
        let tail = [&k, &v].map(|x| put(&device, &stream, &x[blocks * BLOCK * width..tokens * width], f32::to_le_bytes));
        let slots = put(&device, &stream, &(0..raw as i64).collect::<Vec<i64>>(), i64::to_le_bytes);
        if raw > 0 {
            let [k, v] = [&tail[0], &tail[1]].map(|g| Rows { base: g.span(), token_stride: width as i64, head_stride: d as i64 });
            store.launch(&stream, &Store { tokens: raw, k, v, slots: slots.span(), cache: paged(1), status: status.span() }).expect("launch");
        }
        let q: Vec<f32> = (0..heads * d).map(|_| reference::to_bf16(noise.gauss())).collect();
        let query = put(&device, &stream, &q, f32::to_le_bytes);
        let table = put(&device, &stream, &(0..8).collect::<Vec<i32>>(), i32::to_le_bytes);
        let states = [(); 2].map(|()| (Guarded::new(&device, &stream, heads * d * 4, 0xff), Guarded::new(&device, &stream, heads * 4, 0xff)));
        for i in 0..2 {
            let lens = put(&device, &stream, &[[blocks * BLOCK, raw][i] as i32], i32::to_le_bytes);
            let workspace = Guarded::new(&device, &stream, plans[i].workspace_bytes(1, heads, [blocks, 8][i]).expect("a size") as usize, 0xff);
            let call = Decode {
                batch: 1,
                q: query.span(),
                cache: paged(i),
                table: table.span(),
                table_stride: [blocks, 8][i],
                lens: lens.span(),
                out: states[i].0.span(),
                lse: Some(states[i].1.span()),
                scale,
                workspace: workspace.span(),
                status: status.span(),
            };
            plans[i].launch(&stream, &call).expect("launch");
            stream.synchronise().expect("done");
        }
        let state = |i: usize| State { out: states[i].0.span(), lse: states[i].1.span() };
        merge.launch(&stream, &Merge { rows: heads, a: state(0), b: state(1), into: state(0) }).expect("launch");
        let out: Vec<f32> = states[0].0.download(&stream, heads * d);
        let mut off = 0.0_f64;
        for head in 0..heads {
            let [keys, values] = heads_of[head / group].numbers();
            let row = |coded: &[f64], x: &[f32], t: usize| if t < blocks * BLOCK { coded[t * d..][..d].to_vec() } else { x[t * width + head / group * d..][..d].iter().map(|x| f64::from(reference::to_bf16(*x))).collect() };
            let dot = |t: usize| q[head * d..][..d].iter().zip(row(&keys, &k, t)).map(|(a, b)| f64::from(*a) * b).sum::<f64>() * f64::from(scale);
            let weights: Vec<f64> = (0..tokens).map(|t| dot(t).exp()).collect();
            let total: f64 = weights.iter().sum();
            let rows: Vec<Vec<f64>> = (0..tokens).map(|t| row(&values, &v, t)).collect();
            for i in 0..d {
                let wanted: f64 = (0..tokens).map(|t| weights[t] * rows[t][i]).sum::<f64>() / total;
                off = off.max((f64::from(out[head * d + i]) - wanted).abs());
            }
        }
        println!("pca: {tokens} tokens, {blocks} blocks, off by {off:.1e}");
        // Raw weights are rounded to bf16, 2^-9 of values up to 4.
        assert!(off < 4.0 / 512.0, "{tokens} tokens: off by {off}");
        let flags: Vec<i32> = status.download(&stream, 4);
        assert_eq!(flags, [0; 4]);
    }
}
