//! KIVI's tiles, attention over them, and merged states: the reference's bits, whatever the shape.

use crate::support::{Guarded, Noise, bits, cases, first_difference, gpu};
use kernels_gen::kernels::Elem;
use kernels_gen::kivi::{Kivi, KiviLayout, open};
use kernels_gen::reference::{self, CacheShape};
use runtime::{Codec, Decode, DecodePlan, DecodeSpec, Device, Load, LoadPlan, Merge, MergePlan, PagedCache, Rows, State, Store, StorePlan, StoreSpec, Stream};

const NAMES: [&str; 5] = ["kivi_k2v2", "kivi_k4v4", "kivi_k2v4", "kivi_k3v3", "kivi_k8v1"];

struct Problem {
    d: usize,
    group: usize,
    page: usize,
    stride: usize,
    lens: Vec<i32>,
    table: Vec<i32>,
    splits: usize,
    shape: CacheShape,
    slots: Vec<i64>,
}

fn problem(noise: &mut Noise, long: bool) -> Problem {
    let (d, group, page) = ([64, 128][noise.below(2)], 1 + noise.below(8), [32, 64, 128][noise.below(3)]);
    let (kv_heads, most) = (1 + noise.below(2), if long { 16384 } else { 32 + noise.below(3000) });
    let (stride, batch) = (most / page + 1, if long { 1 } else { 1 + noise.below(3) });
    // Whole tiles, and a last one of which fewer tokens are seen.
    let lens: Vec<i32> = (0..batch).map(|_| if long { most } else { noise.below(4).min(1) * (1 + noise.below(most)) } as i32).collect();
    let pages = batch * stride + 3;
    let table: Vec<i32> = noise.shuffled(pages)[..batch * stride].iter().map(|p| *p as i32).collect();
    let mut slots = vec![];
    for (b, len) in lens.iter().enumerate() {
        let tokens = (*len as usize).next_multiple_of(32);
        slots.extend((0..tokens).map(|t| i64::from(table[b * stride + t / page]) * page as i64 + (t % page) as i64));
    }
    slots.extend([-1; 32]);
    Problem { d, group, page, stride, lens, table, splits: noise.below(6), shape: CacheShape { pages, page_tokens: page, kv_heads, d }, slots }
}

fn put<T: Copy, const N: usize>(device: &Device, stream: &Stream, x: &[T], bytes: fn(T) -> [u8; N]) -> Guarded {
    let bytes: Vec<u8> = x.iter().flat_map(|v| bytes(*v)).collect();
    let g = Guarded::new(device, stream, bytes.len(), 0);
    g.upload(stream, &bytes);
    g
}

/// What differs of a problem's store and decode.
fn run(device: &Device, stream: &Stream, c: &Kivi, p: &Problem, noise: &mut Noise) -> Option<String> {
    let (codec, heads, batch) = (Codec::open(&c.name).expect("a codec"), p.shape.kv_heads * p.group, p.lens.len());
    let n = p.slots.len() * p.shape.kv_heads;
    let (k, v, q) = (noise.rows(n, p.d), noise.rows(n, p.d), noise.rows(batch * heads, p.d));
    let mut stored = vec![0x77; p.shape.pages * p.shape.kv_heads * p.page / 32 * KiviLayout::of(c, p.d).tile_bytes()];
    let cache = Guarded::new(device, stream, stored.len(), 0x77);
    assert!(reference::store_groups(c, &p.shape, &mut stored, &k, &v, &p.slots).is_ok());
    let [keys, values] = [&k, &v].map(|x| put(device, stream, x, f32::to_le_bytes));
    let (slots, status) = (put(device, stream, &p.slots, i64::to_le_bytes), Guarded::new(device, stream, 16, 0));
    let paged = PagedCache { base: cache.span(), pages: p.shape.pages, page_tokens: p.page, kv_heads: p.shape.kv_heads, head_dim: p.d };
    let [k, v] = [&keys, &values].map(|g| Rows { base: g.span(), token_stride: (p.shape.kv_heads * p.d) as i64, head_stride: p.d as i64 });
    let store = StorePlan::prepare(device, &StoreSpec { codec, head_dim: p.d, page_tokens: p.page, elem: Elem::F32 }).expect("a plan");
    store.launch(stream, &Store { tokens: p.slots.len(), k, v, slots: slots.span(), cache: paged, status: status.span() }).expect("launch");
    let found: Vec<u8> = cache.download(stream, stored.len());
    let wide = |x: &[u8]| x.iter().map(|b| u32::from(*b)).collect::<Vec<u32>>();
    if let Some(e) = first_difference(&wide(&found), &wide(&stored)) {
        return Some(format!("store: {e}"));
    }
    let spec = DecodeSpec { codec, head_dim: p.d, group: p.group, page_tokens: p.page, elem: Elem::F32, splits: p.splits };
    let plan = DecodePlan::prepare(device, &spec).expect("a plan");
    let scale = 1.0 / (p.d as f32).sqrt();
    let want = reference::decode_kivi(c, &p.shape, &stored, &q, heads, &p.table, p.stride, &p.lens, scale);
    let rows = put(device, stream, &q, f32::to_le_bytes);
    let (table, lens) = (put(device, stream, &p.table, i32::to_le_bytes), put(device, stream, &p.lens, i32::to_le_bytes));
    let (out, lse) = (Guarded::new(device, stream, batch * heads * p.d * 4, 0xff), Guarded::new(device, stream, batch * heads * 4, 0xff));
    let workspace = Guarded::new(device, stream, plan.workspace_bytes(batch, heads, p.stride).expect("a size") as usize, 0xff);
    let call = Decode { batch, q: rows.span(), cache: paged, table: table.span(), table_stride: p.stride, lens: lens.span(), out: out.span(), lse: Some(lse.span()), scale, workspace: workspace.span(), status: status.span() };
    plan.launch(stream, &call).expect("launch");
    let (found, total): (Vec<f32>, Vec<f32>) = (out.download(stream, batch * heads * p.d), lse.download(stream, batch * heads));
    for g in [&cache, &keys, &values, &slots, &rows, &table, &lens, &out, &lse, &workspace, &status] {
        g.check(stream, "kivi");
    }
    let flags: Vec<i32> = status.download(stream, 4);
    let of = |what: &str, got: &[f32], want: &[f32]| first_difference(&bits(got), &bits(want)).map(|e| format!("{what}: {e}"));
    (flags != [0; 4]).then(|| format!("status {flags:?}")).or(of("out", &found, &want.out)).or(of("lse", &total, &want.lse))
}

#[test]
fn kivi_is_bit_identical() {
    let Some((device, _)) = gpu("kivi_is_bit_identical") else { return };
    let items: Vec<(&str, usize)> = (0..cases(8)).flat_map(|i| NAMES.map(|name| (name, i))).collect();
    let total = crate::side_by_side(&device, &items, |stream, &(name, i)| {
        let (c, mut noise) = (open(name).expect("a codec"), Noise((1000 * i + name.bytes().map(usize::from).sum::<usize>()) as u64));
        let p = problem(&mut noise, i == 5);
        let wrong = run(&device, stream, c, &p, &mut noise);
        if let Some(e) = &wrong {
            println!("{name} problem {i}: d {} group {} page {} splits {} lens {:?}: {e}", p.d, p.group, p.page, p.splits, p.lens);
        }
        usize::from(wrong.is_some())
    });
    println!("kivi: {} problems, {total} wrong", items.len());
    assert_eq!(total, 0, "problems with wrong bits");
}

#[test]
fn merge_is_bit_identical() {
    let Some((device, stream)) = gpu("merge_is_bit_identical") else { return };
    let (mut noise, rows) = (Noise(77), 1000);
    for d in [64, 128, 256, 512] {
        let mut state = |empty: usize| {
            let mut lse: Vec<f32> = (0..rows).map(|_| noise.gauss() * 20.0).collect();
            (0..rows).filter(|i| i % 7 < empty).for_each(|i| lse[i] = f32::NEG_INFINITY);
            ((0..rows * d).map(|_| noise.gauss()).collect::<Vec<f32>>(), lse)
        };
        let (a, b) = (state(2), state(1));
        let want = reference::merge((&a.0, &a.1), (&b.0, &b.1), d);
        let put = |x: &[f32]| put(&device, &stream, x, f32::to_le_bytes);
        let guarded = [put(&a.0), put(&a.1), put(&b.0), put(&b.1)];
        let state = |i: usize| State { out: guarded[i].span(), lse: guarded[i + 1].span() };
        let plan = MergePlan::prepare(&device, d, Elem::F32).expect("a plan");
        // Over the first state.
        plan.launch(&stream, &Merge { rows, a: state(0), b: state(2), into: state(0) }).expect("launch");
        let (out, lse): (Vec<f32>, Vec<f32>) = (guarded[0].download(&stream, rows * d), guarded[1].download(&stream, rows));
        guarded.iter().for_each(|g| g.check(&stream, "merge"));
        let wrong = first_difference(&bits(&out), &bits(&want.0)).or_else(|| first_difference(&bits(&lse), &bits(&want.1)));
        println!("merge d {d}: {rows} rows, {}", wrong.as_deref().unwrap_or("0 differing"));
        assert!(wrong.is_none(), "merge d {d}: {wrong:?}");
    }
}

/// Tokens come one by one, as an engine has it: all go raw into a cache of bf16 whose pages are a tile; a tile whose window has
/// passed is loaded from there, coded, and its raw page given back. After every few tokens attention over both, merged, is that
/// over the numbers that are stored.
#[test]
fn a_window_is_kept_beside_the_tiles() {
    let Some((device, stream)) = gpu("a_window_is_kept_beside_the_tiles") else { return };
    let (c, kv_heads, group, d, most) = (open("kivi_k4v4_r32").expect("a codec"), 2, 4, 128, 330);
    let (heads, width, scale) = (kv_heads * group, kv_heads * d, 1.0 / (d as f32).sqrt());
    let [coded, raw] = [&c.name[..], "bf16"].map(|name| Codec::open(name).expect("a codec"));
    let store = |codec| StorePlan::prepare(&device, &StoreSpec { codec, head_dim: d, page_tokens: 32, elem: Elem::F32 }).expect("a plan");
    let decode = |codec| DecodePlan::prepare(&device, &DecodeSpec { codec, head_dim: d, group, page_tokens: 32, elem: Elem::F32, splits: 0 }).expect("a plan");
    let (stores, decodes) = ([store(coded), store(raw)], [decode(coded), decode(raw)]);
    let load = LoadPlan::prepare(&device, &StoreSpec { codec: raw, head_dim: d, page_tokens: 32, elem: Elem::F32 }).expect("a plan");
    let merge = MergePlan::prepare(&device, d, Elem::F32).expect("a plan");
    // The raw cache has three pages, one more than the window fills.
    let pages = [most / 32 + 1, 3];
    let caches: Vec<Guarded> = [coded, raw].iter().zip(pages).map(|(codec, n)| Guarded::new(&device, &stream, codec.cache_bytes(n, 32, kv_heads, d).expect("a size") as usize, 0)).collect();
    let paged = |i: usize| PagedCache { base: caches[i].span(), pages: pages[i], page_tokens: 32, kv_heads, head_dim: d };
    let status = Guarded::new(&device, &stream, 16, 0);
    let (tile, next) = ([(); 2].map(|()| Guarded::new(&device, &stream, 32 * width * 4, 0)), [(); 2].map(|()| Guarded::new(&device, &stream, width * 4, 0)));
    let slots = Guarded::new(&device, &stream, 32 * 8, 0);
    let states = [(); 2].map(|()| (Guarded::new(&device, &stream, heads * d * 4, 0xff), Guarded::new(&device, &stream, heads * 4, 0xff)));
    let workspace = Guarded::new(&device, &stream, decodes.iter().map(|p| p.workspace_bytes(1, heads, pages[0]).expect("a size") as usize).max().unwrap_or(0), 0xff);
    let (table, lens, query) = (Guarded::new(&device, &stream, pages[0] * 4, 0), Guarded::new(&device, &stream, 4, 0), Guarded::new(&device, &stream, heads * d * 4, 0));
    let words = |x: &[f32]| x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let at = |x: &Guarded, slot: i64, count: i64| x.upload(&stream, &(0..count).flat_map(|i| (slot + i).to_le_bytes()).collect::<Vec<u8>>());
    let put = |i: usize, k: &Guarded, v: &Guarded, tokens: usize| {
        let [k, v] = [k, v].map(|g| Rows { base: g.span(), token_stride: width as i64, head_stride: d as i64 });
        let call = Store { tokens, k, v, slots: slots.span(), cache: paged(i), status: status.span() };
        stores[i].launch(&stream, &call).expect("launch");
    };
    let mut noise = Noise(5);
    let (mut keys, mut values, mut done) = (Vec::<f32>::new(), Vec::<f32>::new(), 0);
    for token in 0..most {
        let (k, v): (Vec<f32>, Vec<f32>) = ((0..width).map(|_| noise.gauss()).collect(), (0..width).map(|_| noise.gauss()).collect());
        next[0].upload(&stream, &words(&k));
        next[1].upload(&stream, &words(&v));
        // Page t of the sequence lies in page t % 3.
        at(&slots, (token / 32 % 3 * 32 + token % 32) as i64, 1);
        put(1, &next[0], &next[1], 1);
        keys.extend(k.iter().map(|x| reference::to_bf16(*x)));
        values.extend(v.iter().map(|x| reference::to_bf16(*x)));
        if c.coded_tiles(token + 1) > done {
            at(&slots, (done / 32 % 3 * 32) as i64, 32);
            load.launch(&stream, &Load { tokens: 32, slots: slots.span(), cache: paged(1), k: tile[0].span(), v: tile[1].span(), status: status.span() }).expect("launch");
            at(&slots, done as i64, 32);
            put(0, &tile[0], &tile[1], 32);
            let own = done * width..(done + 32) * width;
            keys.splice(own.clone(), c.keys(&keys[own.clone()]));
            values.splice(own.clone(), c.values(&values[own]));
            done += 32;
        }
        if token % 29 != 28 {
            continue;
        }
        let q: Vec<f32> = (0..heads * d).map(|_| reference::to_bf16(noise.gauss())).collect();
        query.upload(&stream, &words(&q));
        for (i, first) in [0, done / 32].into_iter().enumerate() {
            let entries: Vec<i32> = (0..pages[0] as i32).map(|p| if i == 0 { p } else { (first as i32 + p) % 3 }).collect();
            table.upload(&stream, &entries.iter().flat_map(|p| p.to_le_bytes()).collect::<Vec<u8>>());
            lens.upload(&stream, &((if i == 0 { done } else { token + 1 - done }) as i32).to_le_bytes());
            let call = Decode {
                batch: 1,
                q: query.span(),
                cache: paged(i),
                table: table.span(),
                table_stride: pages[0],
                lens: lens.span(),
                out: states[i].0.span(),
                lse: Some(states[i].1.span()),
                scale,
                workspace: workspace.span(),
                status: status.span(),
            };
            decodes[i].launch(&stream, &call).expect("launch");
        }
        let state = |i: usize| State { out: states[i].0.span(), lse: states[i].1.span() };
        merge.launch(&stream, &Merge { rows: heads, a: state(0), b: state(1), into: state(0) }).expect("launch");
        let out: Vec<f32> = states[0].0.download(&stream, heads * d);
        let mut off = 0.0_f64;
        for head in 0..heads {
            let row = |x: &[f32], t: usize| x[t * width + head / group * d..][..d].to_vec();
            let dot = |t: usize| q[head * d..][..d].iter().zip(row(&keys, t)).map(|(a, b)| f64::from(*a) * f64::from(b)).sum::<f64>() * f64::from(scale);
            let weights: Vec<f64> = (0..=token).map(|t| dot(t).exp()).collect();
            let total: f64 = weights.iter().sum();
            for i in 0..d {
                let wanted: f64 = (0..=token).map(|t| weights[t] * f64::from(row(&values, t)[i])).sum::<f64>() / total;
                off = off.max((f64::from(out[head * d + i]) - wanted).abs());
            }
        }
        println!("window: {} tokens, {done} coded, off by {off:.1e}", token + 1);
        // Raw weights are rounded to bf16, 2^-9 of values up to 4.
        assert!(off < 4.0 / 512.0, "{} tokens, {done} coded: off by {off}", token + 1);
    }
    let flags: Vec<i32> = status.download(&stream, 4);
    assert_eq!(flags, [0; 4]);
    caches.iter().for_each(|g| g.check(&stream, "window"));
}
