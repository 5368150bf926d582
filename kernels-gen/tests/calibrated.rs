//! Calibrated codecs: their bands code and decode at every width, maps undo each other, segments look alike, files
//! come back as they went and damaged ones are refused, and attention through the maps is attention.

mod support;

use kernels_gen::codec::Codec;
use kernels_gen::codecs::places::Places;
use kernels_gen::codecs::{E8C, IntC};
use kernels_gen::layout::{Operand, TILE};
use kernels_gen::preset::{BadCalibration, Bands, Calibration, Fit, OwnedMap, PRESETS, STEPS, Shape, preset};
use kernels_gen::reference::{CacheShape, Calibrated, Row, SEGMENT, Sequence};
use support::{Random, calibration, relative_error2};

#[test]
fn every_width_codes_lattice_points_to_themselves_and_four_tokens_at_once_alike() {
    let mut random = Random(3);
    for width in 1..=7 {
        let c = E8C::new(width);
        for _ in 0..2000 {
            let spread = (1 << width) as f32 * 0.3;
            let codes: [[u32; 4]; 4] = std::array::from_fn(|_| c.encode(std::array::from_fn(|_| random.gaussian() * spread), [1.0, 0.0]));
            for code in codes {
                let lanes = lanes(&c, code);
                assert!(lanes.iter().all(|l| *l < 2 << width && l & 1 == lanes[0] & 1), "{width}: {lanes:?}");
                assert_eq!(lanes.iter().map(|l| l >> 1).sum::<i32>() % 2, 0, "{width}: {lanes:?}");
                let again = lanes.map(|l| (2 * l - c.spec().zero2) as f32 / 4.0);
                assert_eq!(c.encode(again, [1.0, 0.0]), code, "{width}: {lanes:?} does not code to itself");
            }
            // Byte k of each token's code in word k; the result has dim i of each in word i.
            let byte = |token: usize, k: usize| codes[token][k / 4] >> (8 * (k % 4)) & 0xff;
            let turned = std::array::from_fn(|k| if k < width { (0..4).map(|t| byte(t, k) << (8 * t)).sum() } else { 0 });
            let dims = c.decode4(turned);
            for (t, code) in codes.iter().enumerate() {
                let four: [i32; 8] = dims.map(|w| (w >> (8 * t) & 0xff) as i32);
                assert_eq!(four, lanes(&c, *code), "{width} token {t}");
            }
        }
    }
}

#[test]
fn every_way_to_share_a_block_codes_its_levels_to_themselves_and_four_tokens_at_once_alike() {
    let mut random = Random(5);
    for widths in [[6, 4, 4, 2], [5, 3, 3, 1], [4, 2, 1, 1], [7, 7, 6, 4], [8, 8, 4, 4], [7, 6, 6, 5], [8, 5, 2, 1], [1, 1, 1, 1], [4, 3, 3, 2]] {
        let (c, places) = (IntC::of(&widths).unwrap(), Places::of(&widths).unwrap());
        let spec = c.spec();
        for _ in 0..500 {
            let levels: [[i32; 8]; 4] = std::array::from_fn(|_| std::array::from_fn(|i| (random.bits() % (1 << places.widths[i])) as i32));
            let codes = levels.map(|m| c.encode(std::array::from_fn(|i| (2 * m[i] - spec.zeros2()[i]) as f32 / 2.0 * 0.75), [0.75, 0.0]));
            assert!(levels.iter().zip(codes).all(|(m, code)| *m == lanes(&c, code)), "{widths:?}: {levels:?}");
            let byte = |token: usize, k: usize| codes[token][k / 4] >> (8 * (k % 4)) & 0xff;
            let turned = std::array::from_fn(|k| if 8 * k < spec.bits { (0..4).map(|t| byte(t, k) << (8 * t)).sum() } else { 0 });
            let (dims, high) = (c.decode4(turned), c.raised4(turned));
            for (t, m) in levels.iter().enumerate() {
                let four = |x: [u32; 8]| x.map(|w| (w >> (8 * t) & 0xff) as i32);
                assert_eq!(four(dims), *m, "{widths:?} token {t}");
                assert_eq!(four(high), std::array::from_fn(|i| m[i] << spec.raised[i]), "{widths:?} token {t}, raised");
            }
        }
        // What lies outside is brought to the outermost levels.
        let far = c.encode([1e9, -1e9, 1e9, -1e9, f32::MAX, -f32::MAX, 1e9, -1e9], [1.0, 0.0]);
        assert_eq!(lanes(&c, far), std::array::from_fn(|i| if i % 2 == 0 { (1 << places.widths[i]) - 1 } else { 0 }), "{widths:?}");
    }
}

fn lanes(c: &dyn Codec, code: [u32; 4]) -> [i32; 8] {
    let words = c.decode(code);
    std::array::from_fn(|i| (words[i / 4] >> (8 * (i % 4)) & 0xff) as i32)
}

#[test]
fn presets_take_their_name_in_bits() {
    for p in &PRESETS {
        let bits: f64 = p.name.trim_start_matches("kvfuse-").parse().unwrap();
        assert_eq!(p.codec().unwrap().stored_bits_per_element(128), bits + 0.125, "{}", p.name);
        assert!(p.codec().unwrap().k.searches == 3);
    }
}

#[test]
fn the_error_of_gaussian_rows_is_the_expected_one() {
    let mut random = Random(11);
    // Wider levels lose less than that alone in a row, whose scale then is their own.
    for width in [2, 3, 4] {
        let info = kernels_gen::registry::codec(&format!("intc{width}")).unwrap();
        let rows: Vec<f32> = random.gaussians(128 * 400).iter().map(|x| x / STEPS[width] as f32).collect();
        let back: Vec<f32> = rows.chunks(128).flat_map(|x| info.k.decode_row(&info.k.encode_row(x), 128)).collect();
        let error = relative_error2(&back, &rows) / kernels_gen::preset::ERRORS[width];
        println!("{width}: {error:.4}");
        assert!((0.85..1.05).contains(&error), "{width}: {error}");
    }
}

#[test]
fn the_searched_scale_loses_little_against_the_best_of_eight() {
    let mut random = Random(17);
    for p in &PRESETS {
        let info = p.codec().unwrap();
        for half in [info.k, info.v] {
            let (codec, spec) = (half.bands[0], half.bands[0].spec());
            let (mut searched, mut best, mut scales) = (0.0, 0.0, std::collections::BTreeSet::new());
            for _ in 0..400 {
                let size = (0.5 * random.gaussian()).exp2();
                let width = |i: usize| spec.halves[i % 8] + 1;
                let row: Vec<f32> = (0..128).map(|i| size * random.gaussian() / STEPS[width(i)] as f32).collect();
                let error = |coded: &Row| half.decode_row(coded, 128).iter().zip(&row).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
                let tried = |t: i32| {
                    let side = half::f16::from_f64(2_f64.powf(0.6 * (2.0 * f64::from(t) / 7.0 - 1.0)));
                    let codes = row.as_chunks::<8>().0.iter().map(|b| codec.encode(*b, [side.to_f32(), 0.0])).collect();
                    error(&Row { codes, side: [side.to_bits(), 0] })
                };
                let coded = half.encode_row(&row);
                scales.insert(coded.side[0]);
                searched += error(&coded);
                best += (0..8).map(tried).fold(f64::INFINITY, f64::min);
            }
            println!("{}: {:.4}", p.name, searched / best);
            assert!(scales.len() == 8 && searched <= 1.02 * best, "{}: {scales:?}, {} times the error", p.name, searched / best);
        }
    }
}

#[test]
fn storing_and_reading_maps_undo_each_other() {
    let c = calibration(128);
    for p in &PRESETS {
        let maps = c.maps(p, 1).unwrap();
        for (a, b, turned) in [(&maps.store_k, &maps.query, true), (&maps.store_v, &maps.output, false)] {
            for head in 0..2 {
                let of = |m: &OwnedMap, i: usize, j: usize| f64::from(m.matrix[(head * 128 + i) * 128 + j]) * f64::from(m.worth[head * 128 + j]) / 128.0;
                for (i, j) in (0..128 * 128).map(|at| (at / 128, at % 128)) {
                    // A B, where the query's map is B^T
                    let sum: f64 = (0..128).map(|k| of(a, i, k) * if turned { of(b, j, k) } else { of(b, k, j) }).sum();
                    assert!((sum - f64::from(u8::from(i == j))).abs() < 1e-4, "{} {head} {i} {j}: {sum}", p.name);
                }
            }
        }
    }
}

#[test]
fn every_layer_has_its_own_bands_and_layout() {
    let (mut c, p) = (calibration(128), preset("kvfuse-4").unwrap());
    assert_eq!((c.bands(p, 1), c.bands(p, 0).to_string()), (p.uniform(), "6+4+4+2/6+4+4+2".to_string()));
    let own: Vec<Bands> = ["7+5+3+1/6+5+3+2", "5+3+3+1/8+6+4+2"].map(|text| text.parse().unwrap()).into();
    c.bands.insert(p.name.into(), own.clone());
    let uniform = calibration(128);
    for (layer, bands) in own.iter().enumerate() {
        let codec = c.codec(p, layer).unwrap();
        assert_eq!(codec.name, bands.codec_name());
        assert_eq!(codec.stored_bits_per_element(128), bands.bits() + 0.125);
        assert_eq!(codec.token_bytes(128) * 32, codec.tile_bytes(128));
        // The same coordinates elsewhere, in steps of the layer's own widths.
        let (maps, other) = (c.maps(p, layer).unwrap(), uniform.maps(p, layer).unwrap());
        for (operand, map, other, own, all) in [(Operand::K, &maps.store_k, &other.store_k, &bands.keys, p.keys), (Operand::V, &maps.store_v, &other.store_v, &bands.values, p.values)] {
            let places = bands.order(operand, 128).into_iter().zip(p.uniform().order(operand, 128));
            for (rank, (at, before)) in places.enumerate() {
                // Integers hold a column's direction, its worth the step: but for the last rounding only the worth differs.
                let near = (0..2 * 128).all(|row| (map.matrix[row * 128 + at] - other.matrix[row * 128 + before]).abs() <= 1);
                assert!(near, "layer {layer} {rank}: other integers");
                for head in [0, 128] {
                    let (x, y) = (f64::from(map.worth[head + at]) * STEPS[own[rank / 32]], f64::from(other.worth[head + before]) * STEPS[all[rank / 32]]);
                    assert!((x - y).abs() <= 1e-6 * y, "layer {layer} {rank}: {x} {y}");
                }
            }
        }
    }
    c.bands.insert(p.name.into(), own[..1].to_vec());
    assert!(c.to_bytes().unwrap_err().to_string().contains("bands for 1 layers of 2"));
}

#[test]
fn whole_segments_further_on_the_codes_are_the_same() {
    let (c, p) = (calibration(128), preset("kvfuse-4").unwrap());
    let (maps, turns) = (c.maps(p, 0).unwrap(), c.turns(6 * SEGMENT));
    let layer = Calibrated { codec: p.codec().unwrap(), maps: &maps, turns: &turns };
    let before_rope = Random(5).gaussians(20 * 2 * 128);
    let codes = |shift: usize| {
        let positions: Vec<usize> = (0..20).map(|t| SEGMENT - 112 + 9 * t + shift).collect();
        let mut k = before_rope.clone();
        for (row, position) in k.chunks_exact_mut(2 * 128).zip(&positions) {
            row.chunks_exact_mut(128).for_each(|row| rope(row, &c.speeds, *position));
        }
        let y = layer.keys(&k, &positions);
        y.chunks_exact(128).map(|y| layer.codec.k.encode_row(y)).collect::<Vec<_>>()
    };
    let (here, there) = (codes(0), codes(4 * SEGMENT));
    let same = here.iter().zip(&there).map(|(a, b)| a.codes.iter().zip(&b.codes).filter(|(a, b)| a == b).count()).sum::<usize>();
    assert!(same * 1000 >= 998 * 40 * 16, "{same} of {} blocks have the same code", 40 * 16);
    // By another shift they are not: the test can fail.
    let other = codes(4 * SEGMENT + 100);
    let same = here.iter().zip(&other).filter(|(a, b)| a.codes == b.codes).count();
    assert_eq!(same, 0);
}

/// R(position) x, in f64.
fn rope(x: &mut [f32], speeds: &[f32], position: usize) {
    let (low, high) = x.split_at_mut(speeds.len());
    for ((a, b), speed) in low.iter_mut().zip(high).zip(speeds) {
        let (sin, cos) = (position as f64 * f64::from(*speed)).sin_cos();
        let (x, y) = (f64::from(*a), f64::from(*b));
        (*a, *b) = ((x * cos - y * sin) as f32, (y * cos + x * sin) as f32);
    }
}

#[test]
fn attention_through_the_maps_is_attention_over_the_stored_rows() {
    let (tokens, heads, d) = (SEGMENT + 77, 4, 128);
    let (c, p) = (calibration(d), preset("kvfuse-6").unwrap());
    let (maps, turns) = (c.maps(p, 1).unwrap(), c.turns(2 * SEGMENT));
    let layer = Calibrated { codec: p.codec().unwrap(), maps: &maps, turns: &turns };
    let s = CacheShape { pages: 2 * SEGMENT / 64, page_tokens: 64, kv_heads: 2, d };
    let mut random = Random(13);
    let (k, v) = (random.gaussians(tokens * 2 * d), random.gaussians(tokens * 2 * d));
    let positions: Vec<usize> = (0..tokens).collect();
    let slots: Vec<i64> = (0..tokens as i64).collect();
    let mut cache = vec![0; s.bytes(layer.codec)];
    assert!(layer.store(&s, &mut cache, &k, &v, &positions, &slots).is_ok());

    let q = random.gaussians(3 * heads * d);
    let (lens, scale) = ([tokens as i32, 0, 500], 1.0 / (d as f32).sqrt());
    let table: Vec<i32> = (0..s.pages as i32).collect();
    let sequence = Sequence::new(layer.codec, &s, &cache, &table, tokens).unwrap();
    let (out, lse) = layer.attend(&sequence, &q, heads, &lens, scale);
    let decoded = layer.decode(&s, &cache, &q, heads, &table.repeat(3), table.len(), &lens, scale);
    assert!(out == decoded.out && lse == decoded.lse, "the fast loop and the plain one differ");
    assert!(out[heads * d..2 * heads * d].iter().all(|o| *o == 0.0), "a row without tokens is not 0");

    // Rows as they come back, attended to in f64.
    let layout = layer.codec.layout(d);
    let read = |operand, t: usize, head: usize| {
        let tile = (t / 64 * 2 + head) * (64 / TILE) + t % 64 / TILE;
        let tile = &cache[tile * layout.tile_bytes()..][..layout.tile_bytes()];
        let codes = (0..layout.blocks()).map(|b| layout.read_code(tile, operand, t % TILE, b)).collect();
        let row = kernels_gen::reference::Row { codes, side: layout.read_sides(tile, operand, t % TILE) };
        layer.decode_row(operand, &row, head, t)
    };
    for (i, len) in [(0, tokens), (2, 500)] {
        for head in 0..heads {
            let q = &q[(i * heads + head) * d..][..d];
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let weights: Vec<f64> = (0..len).map(|t| (dot(q, &read(Operand::K, t, head / 2)) * f64::from(scale)).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mut exact = vec![0.0_f64; d];
            for (t, w) in weights.iter().enumerate() {
                exact.iter_mut().zip(read(Operand::V, t, head / 2)).for_each(|(o, v)| *o += w / sum * f64::from(v));
            }
            let exact: Vec<f32> = exact.iter().map(|o| *o as f32).collect();
            let error = relative_error2(&out[(i * heads + head) * d..][..d], &exact);
            assert!(error < 1e-5, "row {i} head {head}: {error}");
            assert!((f64::from(lse[i * heads + head]) - sum.ln()).abs() < 1e-3);
        }
    }
}

#[test]
fn files_come_back_as_they_went_and_bad_ones_say_what_to_run() {
    let mut c = calibration(64);
    let bands = |text: &str| text.parse::<Bands>().unwrap();
    c.bands.insert("kvfuse-4".into(), vec![bands("7+5+3+1/6+4+4+2"), bands("5+3+3+1/8+6+4+2")]);
    let bytes = c.to_bytes().unwrap();
    assert_eq!(bytes, c.to_bytes().unwrap());
    assert_eq!(Calibration::from_bytes(&bytes).unwrap(), c);

    let why = |bytes: &[u8]| Calibration::from_bytes(bytes).unwrap_err().to_string();
    let altered = |from: &str, to: &str| {
        let text = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let mut bytes = bytes.clone();
        bytes[text..text + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    let nan = Calibration { keys: Fit { mean: vec![f32::NAN; c.keys.mean.len()], ..c.keys.clone() }, ..c.clone() };
    for (message, part) in [
        (why(b"not a file"), "malformed"),
        (why(&bytes[..bytes.len() - 5]), "malformed"),
        (why(&altered("format=kvfuse", "format=other!")), "format is other!"),
        (why(&altered("version=3", "version=9")), "version 9"),
        (why(&altered("7+5+3+1", "8+6+4+2")), "kvfuse-4 takes 4.25 bits"),
        (why(&altered("7+5+3+1", "7+5+3+2")), "no pair of bands"),
        (why(&altered("7+5+3+1", "9+5+1+1")), "no pair of bands"),
        (why(&altered("4+2 5+3", "4+2/5+3")), "no pair of bands"),
        (why(&altered("segment=1024", "segment=2048")), "segments of 2048"),
        (why(&nan.to_bytes().unwrap()), "keys.mean holds a value that is not finite"),
        (c.check("another model", c.shape).unwrap_err().to_string(), "another mode"),
        (c.check(&c.model, Shape { d: 128, ..c.shape }).unwrap_err().to_string(), "head dim 64"),
    ] {
        assert!(message.contains(part) && message.contains("harness calibrate"), "{message}");
    }
    assert_eq!(c.check(&c.model, c.shape), Ok(()));
    // An older file is read; its layers share the preset's bands.
    for version in ["version=1", "version=2"] {
        let older = Calibration::from_bytes(&altered("version=3", version)).unwrap();
        assert_eq!(older, Calibration { bands: Default::default(), ..c.clone() });
    }
    let flat = Calibration { keys: Fit { basis: vec![1.0; c.keys.basis.len()], ..c.keys.clone() }, ..c.clone() };
    assert_eq!(flat.maps(&PRESETS[0], 1).unwrap_err(), BadCalibration::Singular { layer: 1, head: 0 });
}
