//! The percentile bootstrap over passages: an interval that does not assume normal differences.

use super::{Random, percentile};

pub const DRAWS: usize = 10_000;

/// Two-sided interval of the mean at `level`; the same seed gives the same interval. NaN for fewer than two values.
pub fn bootstrap_interval(values: &[f64], level: f64, seed: u64) -> [f64; 2] {
    if values.len() < 2 {
        return [f64::NAN; 2];
    }
    let mut random = Random::new(seed);
    let mut draw = || values.iter().map(|_| values[random.below(values.len())]).sum::<f64>() / values.len() as f64;
    let means: Vec<f64> = (0..DRAWS).map(|_| draw()).collect();
    [percentile(&means, 0.5 - level / 2.0), percentile(&means, 0.5 + level / 2.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_numpy_on_real_passages() {
        // eight paired differences and numpy's percentile bootstrap of them with 10,000 draws
        let values = [0.002320182818564446, -0.0013632809492308106, 0.006310483137740665, 0.009862682641676158, 0.011607634299831584, 0.01617666763213689, 0.004501076448397224, 0.006038026494104015];
        let wanted = [1.003414065339671_f64, 1.0106495254936145_f64].map(f64::ln);
        let found = bootstrap_interval(&values, 0.95, 1);
        let width = wanted[1] - wanted[0];
        assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 0.05 * width), "{found:?} against {wanted:?}");
        assert_eq!(found, bootstrap_interval(&values, 0.95, 1));
        assert!(bootstrap_interval(&[1.0], 0.95, 1)[0].is_nan());
        assert_eq!(bootstrap_interval(&[2.0, 2.0], 0.95, 1), [2.0, 2.0]);
    }
}
