//! Norm, RoPE and store in one launch, through its plan: cache, keys and queries given back have the reference's bits, for
//! every codec, over random shapes of rope. q, k and v are parts of one row, as a projection leaves them.

use crate::calibrated::fitted;
use crate::support::{Guarded, Noise, cases, gpu};
use kernels_gen::preset::PRESETS;
use kernels_gen::reference::{self, CacheShape, Calibrated, RopeTable};
use runtime::{Calibration, Codec, Device, Elem, PagedCache, Rope, RopePlan, RopeSpec, Roped, Rows, Store, StoreSpec, Stream};

const KV_HEADS: usize = 4;
const PAGE: usize = 64;
const TURNS: usize = 700;
const EPSILON: f32 = 1e-6;

fn shape_of(noise: &mut Noise, d: usize) -> Rope {
    let dims = [d, d, 64, 32, 16, 48][noise.below(6)];
    let norm = noise.below(3) > 0;
    Rope { dims, pairs: noise.below(2) > 0, norm, weights: norm && noise.below(3) > 0, table_elem: [2, 4][noise.below(2)], group: [0, 1, 4, 7][noise.below(4)], keys: noise.below(2) > 0 }
}

fn bytes_of(x: &[f32], elem: Elem) -> Vec<u8> {
    match elem {
        Elem::F32 => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Elem::Bf16 => x.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
    }
}

fn differing(got: &[u8], want: &[u8]) -> usize {
    got.iter().zip(want).filter(|(a, b)| a != b).count()
}

/// Stores `tokens` rows of four heads; gives the number of differing bytes.
fn run(device: &Device, stream: &Stream, codec: Codec, d: usize, tokens: usize, elem: Elem, noise: &mut Noise) -> usize {
    let (rope, round) = (shape_of(noise, d), |x: Vec<f32>, elem| if elem == Elem::Bf16 { x.into_iter().map(|v| half::bf16::from_f32(v).to_f32()).collect() } else { x });
    let fit = codec.calibrated().ok().map(|preset| {
        let fit = fitted(noise, KV_HEADS, d);
        (preset.codec().expect("its bands"), fit.maps(preset, 0).expect("maps"), fit.turns(TURNS))
    });
    let info = fit.as_ref().map_or(codec.info(), |fit| fit.0);
    let shape = CacheShape { pages: tokens.div_ceil(PAGE) + 1, page_tokens: PAGE, kv_heads: KV_HEADS, d };
    let mut slots: Vec<i64> = noise.shuffled(shape.pages * PAGE).into_iter().take(tokens).map(|s| s as i64).collect();
    let mut positions: Vec<i32> = (0..tokens).map(|_| noise.below(TURNS) as i32).collect();
    let (padding, past, beyond) = (tokens / 2, tokens / 3, tokens / 5);
    slots[padding] = -1;
    slots[past] = (shape.pages * PAGE) as i64;
    (positions[padding], positions[beyond]) = (i32::MIN, [TURNS as i32, -1, i32::MAX][noise.below(3)]);

    // [tokens, heads + 2 kv heads, d]
    let heads = KV_HEADS * rope.group;
    let width = (heads + 2 * KV_HEADS) * d;
    let rows = round(noise.rows(tokens * (heads + 2 * KV_HEADS), d), elem);
    let part = |from: usize, n: usize| -> Vec<f32> { rows.chunks_exact(width).flat_map(|row| &row[from * d..][..n * d]).copied().collect() };
    let (q, k, v) = (part(0, heads), part(heads, KV_HEADS), part(heads + KV_HEADS, KV_HEADS));
    let of_table = if rope.table_elem == 2 { Elem::Bf16 } else { Elem::F32 };
    let angle = |i: usize| {
        let (p, i) = ((i / rope.dims) as f64, i % rope.dims);
        let angle = p * 1e4_f64.powf(-2.0 * (i % (rope.dims / 2)) as f64 / rope.dims as f64);
        (if i < rope.dims / 2 { angle.cos() } else { angle.sin() }) as f32
    };
    let table = round((0..TURNS * rope.dims).map(angle).collect(), of_table);
    let weights = [(); 2].map(|()| (0..d).map(|_| 1.0 + 0.2 * noise.gauss()).collect::<Vec<f32>>());

    let of = RopeTable { rope, table: &table, epsilon: EPSILON };
    let known: Vec<bool> = positions.iter().map(|p| of.knows(*p)).collect();
    let places: Vec<usize> = positions.iter().map(|p| if of.knows(*p) { *p as usize } else { 0 }).collect();
    let kept: Vec<i64> = slots.iter().zip(&known).map(|(slot, known)| if *known { *slot } else { -1 }).collect();
    let (turned, mut want) = (of.rows(&k, d, &weights[0], &places), vec![0x77; shape.bytes(info)]);
    match &fit {
        None => reference::store(info, &shape, &mut want, &turned, &v, &kept),
        Some((_, maps, turns)) => Calibrated { codec: info, maps, turns }.store(&shape, &mut want, &turned, &v, &places, &kept),
    };

    let put = |bytes: &[u8]| {
        let g = Guarded::new(device, stream, bytes.len(), 0);
        g.upload(stream, bytes);
        g
    };
    let ints = |x: &[i32]| put(&x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    let (grows, gtable, gpositions) = (put(&bytes_of(&rows, elem)), put(&bytes_of(&table, of_table)), ints(&positions));
    let gslots = put(&slots.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>());
    let gweights = weights.each_ref().map(|w| put(&bytes_of(w, Elem::F32)));
    let (wants_k, wants_q) = (bytes_of(&of.given(&k, d, &weights[0], &positions), elem), bytes_of(&if heads > 0 { of.given(&q, d, &weights[1], &positions) } else { vec![] }, elem));
    let out = |n: usize, fill: u8| Guarded::new(device, stream, n, fill);
    let (cache, status, k_out, q_out) = (out(want.len(), 0x77), out(16, 0), out(wants_k.len(), 0), out(wants_q.len().max(16), 0));
    let bytes = bytes_of(&[0.0], elem).len() as u64;
    let of_rows = |from: usize| {
        let skip = (from * d) as u64 * bytes;
        Rows { base: grows.span().part(skip, grows.span().bytes() - skip).expect("part"), token_stride: width as i64, head_stride: d as i64 }
    };
    let paged = PagedCache { base: cache.span(), pages: shape.pages, page_tokens: PAGE, kv_heads: KV_HEADS, head_dim: d };
    let call = Store { tokens, k: of_rows(heads), v: of_rows(heads + KV_HEADS), slots: gslots.span(), cache: paged, status: status.span() };
    let roped = Roped {
        positions: gpositions.span(),
        table: gtable.span(),
        turns: TURNS,
        epsilon: EPSILON,
        k_weight: Some(gweights[0].span()),
        q_weight: Some(gweights[1].span()),
        q: Some(of_rows(0)),
        q_out: Some(q_out.span()),
        k_out: Some(k_out.span()),
    };
    let calibration = fit.as_ref().map(|(info, maps, turns)| Calibration::upload(device, codec, &[(*info, maps.clone())], turns).expect("maps"));
    let plan = RopePlan::prepare(device, &RopeSpec { store: StoreSpec { codec, head_dim: d, page_tokens: PAGE, elem }, rope }).expect("a plan");
    plan.launch(stream, &call, &roped, calibration.as_ref().map(|c| c.layer(0).expect("a layer"))).expect("launch");

    let mut bad = differing(&cache.download::<u8>(stream, want.len()), &want);
    if rope.keys {
        bad += differing(&k_out.download::<u8>(stream, wants_k.len()), &wants_k);
    }
    if heads > 0 {
        bad += differing(&q_out.download::<u8>(stream, wants_q.len()), &wants_q);
    }
    for guarded in [&cache, &k_out, &q_out, &status] {
        guarded.check(stream, "rope");
    }
    assert_eq!(status.download::<i32>(stream, 3), [1, 0, 1], "a slot past the cache and a position beyond the table are reported");
    if bad > 0 {
        println!("{} d {d} {elem:?} {rope:?}: {bad} differing bytes", info.name);
    }
    bad
}

#[test]
fn rope_is_bit_identical() {
    let Some((device, _)) = gpu("rope_is_bit_identical") else { return };
    let vectors = cases(4000);
    let named = std::env::var("KVF_CODECS").ok();
    let wanted = |name: &str| named.as_ref().is_none_or(|names| names.split(',').any(|n| n == name));
    let presets = PRESETS.iter().filter(|preset| wanted(preset.name)).filter_map(|preset| Codec::open(preset.name).ok()).map(|codec| (codec, vectors));
    let all: Vec<(Codec, usize)> = crate::subjects(vectors).into_iter().map(|(c, n)| (Codec::open(c.name).expect("known"), n)).chain(presets).collect();
    let total = crate::side_by_side(&device, &all, |stream, &(codec, vectors)| {
        let mut noise = Noise(codec.info().k.bits as u64 * 77 + 5);
        let (mut bad, mut seen) = (0, 0);
        for d in [64, 128, 256].into_iter().filter(|d| codec.info().serves(*d)) {
            for elem in [Elem::Bf16, Elem::F32] {
                let tokens = (vectors / 6 / (2 * KV_HEADS)).max(40);
                bad += run(&device, stream, codec, d, tokens, elem, &mut noise);
                seen += tokens * 2 * KV_HEADS;
            }
        }
        println!("rope {}: {seen} vectors, {bad} differing bytes", codec.name());
        bad
    });
    assert_eq!(total, 0, "differing bytes");
}
