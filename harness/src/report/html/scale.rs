//! From numbers to places in a drawing, and where to put the marks of an axis.

use std::fmt::Write;

#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub from: f64,
    pub to: f64,
    /// drawing units at `from` and at `to`
    pub place: [f64; 2],
    pub log: bool,
}

impl Scale {
    pub fn linear(from: f64, to: f64, place: [f64; 2]) -> Scale {
        let to = if to > from { to } else { from + 1.0 };
        Scale { from, to, place, log: false }
    }

    /// Whole decades around values; what is not positive and finite is left out.
    pub fn decades(values: impl Iterator<Item = f64>, place: [f64; 2]) -> Scale {
        let logs: Vec<f64> = values.filter(|v| *v > 0.0 && v.is_finite()).map(f64::log10).collect();
        let low = logs.iter().copied().fold(f64::INFINITY, f64::min).floor();
        let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
        let (low, high) = if low.is_finite() { (low, high.max(low + 1.0)) } else { (-4.0, 0.0) };
        Scale { from: 10_f64.powf(low), to: 10_f64.powf(high), place, log: true }
    }

    /// Values beyond the ends lie at the ends.
    pub fn at(&self, value: f64) -> f64 {
        let share = match self.log {
            true => (value.max(self.from) / self.from).ln() / (self.to / self.from).ln(),
            false => (value - self.from) / (self.to - self.from),
        };
        self.place[0] + share.clamp(0.0, 1.0) * (self.place[1] - self.place[0])
    }

    /// About `count` round values, or the decades.
    pub fn ticks(&self, count: usize) -> Vec<f64> {
        if self.log {
            let (low, high) = (self.from.log10().round() as i32, self.to.log10().round() as i32);
            let step = ((high - low) as usize).div_ceil(count.max(1)).max(1);
            return (low..=high).step_by(step).map(|e| 10_f64.powi(e)).collect();
        }
        let rough = (self.to - self.from) / count.max(1) as f64;
        let unit = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * unit).find(|s| *s >= rough).unwrap_or(rough);
        let first = (self.from / step - 1e-9).ceil() as i64;
        (first..).map(|i| i as f64 * step).take_while(|v| *v <= self.to + 1e-9 * step).collect()
    }
}

/// 10 with a raised exponent, as svg text.
pub fn power(value: f64) -> String {
    let exponent = value.log10().round() as i32;
    format!("10<tspan dy=\"-5\" font-size=\"9.5\">{}</tspan>", exponent.to_string().replace('-', "\u{2212}"))
}

/// Text that may hold anything, for html and svg.
pub fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        let _ = match c {
            '&' => write!(out, "&amp;"),
            '<' => write!(out, "&lt;"),
            '>' => write!(out, "&gt;"),
            '"' => write!(out, "&quot;"),
            c => write!(out, "{c}"),
        };
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(Scale::linear(0.0, 17.0, [0.0, 1.0]).ticks(4), [0.0, 5.0, 10.0, 15.0]);
        let decades = Scale::decades([3e-5, 0.0, f64::NAN, 0.2].into_iter(), [0.0, 1.0]);
        assert_eq!(decades.ticks(5).len(), 6);
        assert!((decades.at(1e-5), decades.at(1.0)) == (0.0, 1.0) && (decades.at(1e-3) - 0.4).abs() < 1e-12);
        assert_eq!(decades.at(0.0), 0.0);
        assert_eq!(Scale::decades(std::iter::empty(), [0.0, 1.0]).ticks(9).len(), 5);
        assert_eq!(escaped("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }
}
