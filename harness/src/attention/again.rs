//! Round trips of one layer that were made already. Many cells of an experiment share a half, or differ in their raw layers
//! alone; where their rows are the same too, as in a cache that was filled exactly, the work is done once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kernels_gen::pca::Coding;

use super::{Sizes, Stream};

/// Shared by the codecs that were equipped together: they have the same model, so the same whitenings.
#[derive(Default, Debug)]
pub struct Again(Mutex<Layer>);

/// Rows of another layer put these out of mind.
#[derive(Default, Debug)]
struct Layer {
    layer: usize,
    made: Vec<Made>,
}

#[derive(Debug)]
struct Made {
    half: Stream,
    start: usize,
    coding: Coding,
    x: Vec<f32>,
    rows: Vec<f32>,
    sizes: Sizes,
}

impl Again {
    fn layer(&self, layer: usize) -> MutexGuard<'_, Layer> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.layer != layer {
            *known = Layer { layer, made: Vec::new() };
        }
        known
    }

    /// What these very rows became under this coding.
    pub fn find(&self, (half, layer, start): (Stream, usize, usize), coding: &Coding, x: &[f32]) -> Option<(Vec<f32>, Sizes)> {
        let known = self.layer(layer);
        let coding = everywhere(coding);
        let same = |made: &&Made| made.half == half && made.start == start && made.coding == coding && made.x == x;
        known.made.iter().find(same).map(|made| (made.rows.clone(), made.sizes))
    }

    pub fn keep(&self, (half, layer, start): (Stream, usize, usize), coding: &Coding, x: &[f32], (rows, sizes): (&[f32], Sizes)) {
        let made = Made { half, start, coding: everywhere(coding), x: x.to_vec(), rows: rows.to_vec(), sizes };
        self.layer(layer).made.push(made);
    }
}

/// The coding of a layer that is coded, whichever others are not.
fn everywhere(coding: &Coding) -> Coding {
    let mut coding = coding.clone();
    coding.settings.raw_layers.clear();
    coding
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels_gen::pca::Settings;

    #[test]
    fn only_the_same_rows_under_the_same_coding_are_known() {
        let of = |bits, raw_layers| Coding::new(&Settings { bits, raw_layers, ..Settings::default() }, 64, None).unwrap();
        let (again, x, y) = (Again::default(), vec![1.0; 64], vec![0.5; 64]);
        let sizes = Sizes { coded: 64, bytes: 9, raw: 0 };
        again.keep((Stream::K, 1, 0), &of(3, vec![]), &x, (&y, sizes));
        assert_eq!(again.find((Stream::K, 1, 0), &of(3, vec![0]), &x), Some((y.clone(), sizes)));
        assert_eq!(again.find((Stream::V, 1, 0), &of(3, vec![]), &x), None);
        assert_eq!(again.find((Stream::K, 1, 32), &of(3, vec![]), &x), None);
        assert_eq!(again.find((Stream::K, 1, 0), &of(2, vec![]), &x), None);
        assert_eq!(again.find((Stream::K, 1, 0), &of(3, vec![]), &y), None);
        assert_eq!(again.find((Stream::K, 2, 0), &of(3, vec![]), &x), None);
        assert_eq!(again.find((Stream::K, 1, 0), &of(3, vec![]), &x), None);
    }
}
