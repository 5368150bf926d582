//! KIVI's tiles, attention over them, and merged states: the reference's bits, whatever the shape.

use crate::support::{Guarded, Noise, bits, cases, first_difference, gpu};
use kernels_gen::kernels::Elem;
use kernels_gen::kivi::{Kivi, KiviLayout, open};
use kernels_gen::reference::{self, CacheShape};
use runtime::{Codec, Decode, DecodePlan, DecodeSpec, Device, Merge, MergePlan, PagedCache, Rows, State, Store, StorePlan, StoreSpec, Stream};

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
