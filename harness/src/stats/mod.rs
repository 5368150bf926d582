//! The statistics of a report: means with Student-t intervals over passages, and percentiles.
//! Everything is f64. The unit of uncertainty is the passage, because tokens of one passage are not independent.

mod bootstrap;
mod normal;
mod random;
mod student;

pub use bootstrap::{DRAWS, bootstrap_interval};
pub use normal::normal_quantile;
pub use random::Random;
pub use student::{student_t_cdf, student_t_quantile};

/// Two-sided level of every interval in a report.
pub const LEVEL: f64 = 0.95;

/// Standard error of the mean; NaN for fewer than two values.
pub fn standard_error(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if values.len() < 2 {
        return f64::NAN;
    }
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0) / n).sqrt()
}

/// The smallest true difference that a paired test at 5 % finds four times in five.
pub fn detectable(values: &[f64]) -> f64 {
    let df = values.len() as f64 - 1.0;
    if df < 1.0 {
        return f64::NAN;
    }
    (student_t_quantile(0.975, df) + student_t_quantile(0.8, df)) * standard_error(values)
}

/// Mean and the half width of its two-sided confidence interval at `level`.
/// With one value there is no interval: the half width is NaN.
pub fn mean_with_interval(values: &[f64], level: f64) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, f64::NAN);
    }
    let quantile = student_t_quantile(0.5 + level / 2.0, n - 1.0);
    (mean, quantile * standard_error(values))
}

/// Percentile by linear interpolation between order statistics; `fraction` 0 is the minimum, 1 the maximum.
pub fn percentile(values: &[f64], fraction: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = fraction.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (at - below as f64)
}

pub fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut n) = (0.0, 0.0);
    for v in values {
        sum += v;
        n += 1.0;
    }
    sum / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_interpolate_linearly() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(percentile(&values, 0.0), 1.0);
        assert_eq!(percentile(&values, 1.0), 4.0);
        assert_eq!(percentile(&values, 0.5), 2.5);
        assert!((percentile(&values, 0.9) - 3.7).abs() < 1e-12);
        assert_eq!(percentile(&[7.0], 0.999), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn interval_of_a_known_sample() {
        let (mean, half) = mean_with_interval(&[1.0, 2.0, 3.0, 4.0], 0.95);
        assert_eq!(mean, 2.5);
        // sd = 1.2909944, se = 0.6454972, t(3) = 3.1824463
        assert!((half - 2.054_260_2).abs() < 1e-6, "{half}");
        let (mean, half) = mean_with_interval(&[5.0], 0.95);
        assert!(mean == 5.0 && half.is_nan());
        assert_eq!(mean_with_interval(&[0.0, 0.0, 0.0], 0.95), (0.0, 0.0));
        // (t(.975; 3) + t(.8; 3)) se = (3.1824463 + 0.9784723) 0.6454972
        assert!((detectable(&[1.0, 2.0, 3.0, 4.0]) - 2.685_861).abs() < 1e-5);
        assert!(detectable(&[1.0]).is_nan() && standard_error(&[]).is_nan());
    }
}
