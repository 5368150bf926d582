//! Calibrated codecs through their plans: rows mapped and stored, queries mapped once a segment, outputs mapped back; several query
//! tokens a sequence, and the last of them by decode attention.
//! Over ragged lengths, several segments, every preset and group; `KVF_CODECS` may name presets.

use crate::support::{Guarded, Noise, bits, cases, first_difference, gpu, one_of};
use kernels_gen::kernels::{SEGMENT, chunk};
use kernels_gen::layout::Operand;
use kernels_gen::preset::{Calibration as Fitted, Fit, LayerMaps, PRESETS, Preset, Shape, Turns, preset};
use kernels_gen::reference::{CacheShape, Calibrated, Sequence, load};
use runtime::{Back, Backs, Calibration, Codec, Decode, DecodePlan, DecodeSpec, Device, Elem, Load, LoadPlan, Mapped, PagedCache, QueriesPlan, Rows, Store, StorePlan, StoreSpec, Stream};

/// Tokens of the longest sequence.
const MOST: usize = 2 * SEGMENT + 64;

struct Problem {
    preset: &'static Preset,
    elem: Elem,
    group: usize,
    queries: usize,
    shape: CacheShape,
    stride: usize,
    lens: Vec<i32>,
    table: Vec<i32>,
    splits: usize,
    k: Vec<f32>,
    v: Vec<f32>,
    q: Vec<f32>,
    slots: Vec<i64>,
    positions: Vec<i32>,
    maps: LayerMaps,
    turns: Turns,
}

/// What a model's fit looks like: a basis not far from the identity, energies that fall.
pub fn fitted(noise: &mut Noise, kv_heads: usize, d: usize) -> Fitted {
    let mut fit = || {
        let mut basis: Vec<f32> = (0..kv_heads * d * d).map(|_| noise.gauss() * 0.2 / (d as f32).sqrt()).collect();
        (0..kv_heads * d).for_each(|row| basis[row * d + row % d] += 1.0);
        let energy = (0..kv_heads * d).map(|i| 2.0 * 0.98_f32.powi((i % d) as i32)).collect();
        Fit { basis, mean: (0..kv_heads * d).map(|_| noise.gauss()).collect(), energy }
    };
    let (keys, values) = (fit(), fit());
    let speeds = (0..d / 2).map(|i| 1e4_f32.powf(-((2 * i) as f32) / d as f32)).collect();
    Fitted { shape: Shape { layers: 1, kv_heads, d }, model: String::new(), text: String::new(), tokens: 0, speeds, keys, values, bands: Default::default() }
}

fn problem(noise: &mut Noise, preset: &'static Preset) -> Problem {
    let (d, elem) = (one_of("KVF_DIMS", &[128, 128, 256], noise), [Elem::F32, Elem::Bf16][noise.below(2)]);
    let group = one_of("KVF_GROUPS", &[1, 2, 3, 4, 4, 5, 6, 7, 8, 16], noise);
    let long = d == 128 && group <= 8 && noise.below(4) == 0;
    // Enough for the kernel of long chunks.
    let queries = if long { 256usize.div_ceil(group) + noise.below(60) } else { [1, 2, 3, 4, 5 + noise.below(20)][noise.below(5)] };
    let (page, kv_heads, batch) = ([32, 64, 128][noise.below(3)], 1 + noise.below(2), 1 + noise.below(3));
    let most = [100, 600, SEGMENT + 128, MOST][noise.below(4)];
    let stride = (most / page).max(1);
    let lens: Vec<i32> = (0..batch).map(|_| [0, 1, 512, SEGMENT - 1, SEGMENT, SEGMENT + 1, noise.below(most + 1), most][noise.below(8)].min(stride * page) as i32).collect();
    let pages = batch * stride + 3;
    let table: Vec<i32> = noise.shuffled(pages)[..batch * stride].iter().map(|page| *page as i32).collect();
    let (mut slots, mut positions) = (vec![-1], vec![0]);
    for (b, len) in lens.iter().enumerate() {
        slots.extend((0..*len as usize).map(|t| table[b * stride + t / page] as i64 * page as i64 + (t % page) as i64));
        positions.extend(0..*len);
    }
    let round = |x: Vec<f32>| if elem == Elem::Bf16 { x.into_iter().map(|v| half::bf16::from_f32(v).to_f32()).collect() } else { x };
    let n = slots.len() * kv_heads;
    let (k, v, q) = (round(noise.rows(n, d)), round(noise.rows(n, d)), round(noise.rows(batch * queries * kv_heads * group, d)));
    let fit = fitted(noise, kv_heads, d);
    let (maps, turns) = (fit.maps(preset, 0).expect("maps"), fit.turns(MOST));
    let shape = CacheShape { pages, page_tokens: page, kv_heads, d };
    Problem { preset, elem, group, queries, shape, stride, lens, table, splits: noise.below(4), k, v, q, slots, positions, maps, turns }
}

/// The reference's cache, output and log-sum-exp.
fn wanted(p: &Problem) -> (Vec<u8>, Vec<f32>, Vec<f32>) {
    let c = p.preset.codec().expect("its bands");
    let layer = Calibrated { codec: c, maps: &p.maps, turns: &p.turns };
    let positions: Vec<usize> = p.positions.iter().map(|position| *position as usize).collect();
    let mut cache = vec![0xff; p.shape.bytes(c)];
    assert!(layer.store(&p.shape, &mut cache, &p.k, &p.v, &positions, &p.slots).is_ok());
    let heads = p.shape.kv_heads * p.group;
    let (mut out, mut lse) = (vec![], vec![]);
    for (b, len) in p.lens.iter().enumerate() {
        let row = &p.table[b * p.stride..][..p.stride];
        let sequence = Sequence::new(c, &p.shape, &cache, row, *len as usize).expect("a good table");
        let row = p.queries * heads * p.shape.d;
        let own: Vec<i32> = (1..=p.queries as i32).map(|i| (len - p.queries as i32 + i).max(0)).collect();
        let found = layer.attend(&sequence, &p.q[b * row..][..row], heads, &own, 1.0 / (p.shape.d as f32).sqrt());
        out.extend(found.0);
        lse.extend(found.1);
    }
    (cache, out, lse)
}

/// The keys and values that a loader sees of the reference's cache; zeros for the token that nobody stored.
fn wanted_rows(p: &Problem, cache: &[u8]) -> [Vec<f32>; 2] {
    let c = p.preset.codec().expect("its bands");
    let layer = Calibrated { codec: c, maps: &p.maps, turns: &p.turns };
    let mut y = [vec![0.0; p.k.len()], vec![0.0; p.k.len()]];
    let [k, v] = &mut y;
    load(c, &p.shape, cache, &p.slots, k, v);
    let (d, heads) = (p.shape.d, p.shape.kv_heads);
    for (operand, rows) in [Operand::K, Operand::V].into_iter().zip(&mut y) {
        let stored = rows.chunks_exact_mut(d).enumerate().filter(|(i, _)| p.slots[i / heads] >= 0);
        stored.for_each(|(i, row)| row.copy_from_slice(&layer.row_of(operand, row, i % heads, p.positions[i / heads] as usize)));
    }
    y
}

fn most(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |top: f32, x| if x.is_nan() { f32::NAN } else { top.max(x.abs()) })
}

/// What came in memory less what was wanted. The way back is plain f32 where attention's maps are not: near is enough.
fn apart(bytes: &[u8], want: &[f32], elem: Elem) -> Vec<f32> {
    let value = |i: usize| match elem {
        Elem::F32 => f32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]),
        Elem::Bf16 => half::bf16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32(),
    };
    want.iter().enumerate().map(|(i, want)| value(i) - want).collect()
}

fn bytes_of(x: &[f32], elem: Elem) -> Vec<u8> {
    match elem {
        Elem::F32 => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Elem::Bf16 => x.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
    }
}

/// Of rows `[batch, queries, n]` those of the last query tokens.
fn last(x: &[f32], queries: usize, n: usize) -> Vec<f32> {
    x.chunks_exact(queries * n).flat_map(|of| of[(queries - 1) * n..].to_vec()).collect()
}

/// What differs, if anything does.
fn run(device: &Device, stream: &Stream, p: &Problem, want: &(Vec<u8>, Vec<f32>, Vec<f32>)) -> Result<Option<String>, runtime::Error> {
    let CacheShape { pages, page_tokens, kv_heads, d } = p.shape;
    let (codec, elem, heads, batch) = (Codec::open(p.preset.name)?, p.elem, kv_heads * p.group, p.lens.len());
    let calibration = Calibration::upload(device, codec, &[(p.preset.codec()?, p.maps.clone())], &p.turns)?;
    let (rows, attention) = (StoreSpec { codec, head_dim: d, page_tokens, elem }, DecodeSpec { codec, head_dim: d, group: p.group, page_tokens, elem, splits: p.splits });
    // Compiling takes most of the test's time.
    let (store, decode, many, load) = std::thread::scope(|s| {
        let store = s.spawn(|| StorePlan::prepare(device, &rows));
        let decode = s.spawn(|| DecodePlan::prepare(device, &attention));
        let load = s.spawn(|| LoadPlan::prepare(device, &rows));
        let many = QueriesPlan::prepare(device, &attention, p.queries);
        (store.join().expect("a plan"), decode.join().expect("a plan"), many, load.join().expect("a plan"))
    });
    let (store, decode, many, load) = (store?, decode?, many?, load?);
    let alone = [last(&p.q, p.queries, heads * d), last(&want.1, p.queries, heads * d), last(&want.2, p.queries, heads)];
    let put = |bytes: Vec<u8>| {
        let guarded = Guarded::new(device, stream, bytes.len(), 0);
        guarded.upload(stream, &bytes);
        guarded
    };
    let [k, v, q, q_all] = [&p.k, &p.v, &alone[0], &p.q].map(|x| put(bytes_of(x, elem)));
    let ints = |x: &[i32]| put(x.iter().flat_map(|v| v.to_le_bytes()).collect());
    let (positions, table, lens, slots) = (ints(&p.positions), ints(&p.table), ints(&p.lens), put(p.slots.iter().flat_map(|s| s.to_le_bytes()).collect()));
    let (cache, status) = (put(vec![0xff; want.0.len()]), ints(&[0; 4]));
    let room = |bytes: u64| Guarded::new(device, stream, bytes as usize, 0xff);
    let space = room(decode.workspace_bytes(batch, heads, p.stride)?);
    let (out, lse) = (room(bytes_of(&alone[1], elem).len() as u64), room(4 * (batch * heads) as u64));
    let many_space = room(many.workspace_bytes(batch, heads, p.queries, p.stride)?);
    let (out_all, lse_all) = (room(bytes_of(&want.1, elem).len() as u64), room(4 * want.2.len() as u64));

    let rows = |guarded| Rows { base: Guarded::span(guarded), token_stride: (kv_heads * d) as i64, head_stride: d as i64 };
    let paged = PagedCache { base: cache.span(), pages, page_tokens, kv_heads, head_dim: d };
    let layer = calibration.layer(0)?;
    let call = Store { tokens: p.slots.len(), k: rows(&k), v: rows(&v), slots: slots.span(), cache: paged, status: status.span() };
    store.launch_calibrated(stream, &call, &Mapped { layer, positions: positions.span() })?;
    let call =
        Decode { batch, q: q.span(), cache: paged, table: table.span(), table_stride: p.stride, lens: lens.span(), out: out.span(), lse: Some(lse.span()), scale: 1.0 / (d as f32).sqrt(), workspace: space.span(), status: status.span() };
    decode.launch_calibrated(stream, &call, &layer)?;
    let call = Decode { q: q_all.span(), out: out_all.span(), lse: Some(lse_all.span()), workspace: many_space.span(), ..call };
    many.launch_calibrated(stream, &call, p.queries, &layer)?;
    let back = [(); 2].map(|()| Guarded::new(device, stream, bytes_of(&p.k, elem).len(), 0));
    let load_space = room(load.workspace_bytes(p.slots.len(), kv_heads)?);
    let call = Load { tokens: p.slots.len(), slots: slots.span(), cache: paged, k: back[0].span(), v: back[1].span(), status: status.span() };
    let backs = Backs::upload(device, std::iter::once(&p.maps), &p.turns)?;
    load.launch_calibrated(stream, &call, &Back { backs: &backs, layer: 0, positions: positions.span(), workspace: load_space.span() })?;
    let words = |x: &[u8]| x.iter().map(|b| u32::from(*b)).collect::<Vec<u32>>();
    let found: Vec<u8> = cache.download(stream, want.0.len());
    let mut wrong = first_difference(&words(&found), &words(&want.0)).map(|e| format!("cache: {e}"));
    for (what, out, lse, want, want_lse) in [("decode", &out, &lse, &alone[1], &alone[2]), ("several queries", &out_all, &lse_all, &want.1, &want.2)] {
        let found: Vec<u8> = out.download(stream, bytes_of(want, elem).len());
        wrong = wrong.or(first_difference(&words(&found), &words(&bytes_of(want, elem))).map(|e| format!("{what}, out: {e}")));
        let found: Vec<f32> = lse.download(stream, want_lse.len());
        wrong = wrong.or(first_difference(&bits(&found), &bits(want_lse)).map(|e| format!("{what}, lse: {e}")));
    }
    for (half, (got, want)) in ["keys", "values"].iter().zip(back.iter().zip(wanted_rows(p, &want.0))) {
        let bytes: Vec<u8> = got.download(stream, bytes_of(&want, elem).len());
        let (top, off) = (most(&want), most(&apart(&bytes, &want, elem)));
        wrong = wrong.or((off.is_nan() || off > top / 100.0).then(|| format!("loaded {half} are off by {off} of {top}")));
    }
    assert_eq!(status.download::<i32>(stream, 4), [0; 4], "no status word is set");
    for guarded in [&k, &v, &q, &positions, &table, &lens, &slots, &cache, &status, &space, &out, &lse, &q_all, &many_space, &out_all, &lse_all, &back[0], &back[1], &load_space] {
        guarded.check(stream, "calibrated");
    }
    Ok(wrong)
}

#[test]
fn calibrated_is_bit_identical() {
    let Some((device, _)) = gpu("calibrated_is_bit_identical") else { return };
    let named = std::env::var("KVF_CODECS").ok();
    let chosen: Vec<&'static Preset> = named.map_or(PRESETS.iter().collect(), |names| names.split(',').filter_map(preset).collect());
    let total = crate::side_by_side(&device, &chosen, |stream, &preset| {
        let mut noise = Noise(preset.name.len() as u64 + preset.keys[0] as u64);
        let problems: Vec<Problem> = (0..cases(24).min(60)).map(|_| problem(&mut noise, preset)).collect();
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let wants: Vec<_> = std::thread::scope(|s| {
            let jobs: Vec<_> = problems.chunks(problems.len().div_ceil(threads)).map(|ps| s.spawn(move || ps.iter().map(wanted).collect::<Vec<_>>())).collect();
            jobs.into_iter().flat_map(|job| job.join().expect("reference")).collect()
        });
        let long = problems.iter().filter(|p| chunk::chosen(preset.codec().expect("its bands"), p.shape.d, p.group, p.queries, 227 * 1024)).count();
        let mut bad = 0;
        for (i, (p, want)) in problems.iter().zip(&wants).enumerate() {
            if let Some(e) = run(&device, stream, p, want).expect("it runs") {
                bad += 1;
                println!("{} problem {i}: {:?} d {} group {} queries {} page {} splits {} lens {:?}: {e}", preset.name, p.elem, p.shape.d, p.group, p.queries, p.shape.page_tokens, p.splits, p.lens);
            }
        }
        println!("calibrated {}: {} problems, {long} long chunks, {bad} wrong", preset.name, problems.len());
        bad
    });
    assert_eq!(total, 0, "problems with wrong bits");
}
