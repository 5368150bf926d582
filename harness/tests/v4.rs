//! The forward pass of DeepSeek-V4's architecture: its pieces against what transformers computed of a trained model, and
//! the whole of that model where KVF_V4_MODEL names its folder, printed as SKIPPED otherwise.

use std::path::{Path, PathBuf};

use harness::model::v4::{Attention, Call, Exact, Lane, Model, Picks, Place, RowCache, RowKind, Written};
use harness::npy::Array;
use harness::ppl::LogProbs;
use safetensors::SafeTensors;

/// Largest difference allowed, relative to the largest golden value.
const TOLERANCE: f32 = 2e-5;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v4").join(name)
}

struct Golden(Vec<u8>);

impl Golden {
    fn read(name: &str) -> Golden {
        Golden(std::fs::read(golden(name)).unwrap())
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn u32s(&self, name: &str) -> Vec<u32> {
        self.bytes(name).as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }
}

fn assert_close(what: &str, ours: &[f32], wanted: &[f32]) {
    assert_eq!(ours.len(), wanted.len(), "{what}: lengths differ");
    let largest = wanted.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    let apart = ours.iter().zip(wanted).map(|(a, b)| (a - b).abs()).enumerate();
    let (at, worst) = apart.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    println!("{what}: {worst:.1e}, {:.1e} of the largest value", worst / largest);
    assert!(
        worst <= TOLERANCE * largest,
        "{what}: element {at} is {} against {}, off by {:.1e} of the largest value",
        ours[at],
        wanted[at],
        worst / largest
    );
}

/// The model of KVF_V4_MODEL, or None after the reason is printed.
fn whole() -> Option<Model> {
    let Some(folder) = std::env::var_os("KVF_V4_MODEL") else {
        println!("SKIPPED: KVF_V4_MODEL names no model; the golden tensors are of a trained one that is not in the repository");
        return None;
    };
    Some(Model::load(Path::new(&folder)).unwrap())
}

/// Rows as they are, and what was seen of the last position.
#[derive(Default)]
struct Noted {
    rows: Vec<(Place, Vec<f32>)>,
    /// of each layer: query and output of the last position
    last: Vec<(usize, [Vec<f32>; 2])>,
}

impl RowCache for Noted {
    fn write(&mut self, place: Place, rows: &[f32]) -> harness::error::Result<Written> {
        self.rows.push((place, rows[rows.len() - 512..].to_vec()));
        Ok(Written { now: rows.to_vec(), later: None })
    }

    fn watch(&mut self, call: &Call) {
        let width = call.q.len() / call.tokens;
        let last = |x: &[f32]| x[(call.tokens - 1) * width..].to_vec();
        self.last.push((call.layer, [last(call.q), last(&call.reading.out)]));
    }
}

#[test]
fn the_whole_model_matches_the_golden_logits() {
    let Some(model) = whole() else { return };
    let file = Golden::read("logits.safetensors");
    let (ids, wanted, positions) = (file.u32s("ids"), file.f32s("logits"), file.u32s("positions"));
    let (tokens, first) = (ids.len() / 2, positions[0] as usize);
    let head = model.head().unwrap();
    for passage in 0..2 {
        let mut cache = Exact;
        let mut lanes = [Lane::new(vec![0..tokens], &mut cache)];
        let rows = model.hidden(&ids[passage * tokens..][..tokens], first..tokens, &mut lanes, |_| ()).unwrap();
        let logits = model.predict(&head, &rows[0]).unwrap();
        for (at, position) in positions.iter().enumerate() {
            let ours = &logits.values[(*position as usize - first) * logits.vocab..][..logits.vocab];
            let wanted = &wanted[(passage * positions.len() + at) * logits.vocab..][..logits.vocab];
            assert_close(&format!("logits of passage {passage}, position {position}"), ours, wanted);
        }
    }
}
