//! Rotary embedding in the half-split form: coordinate i turns with coordinate i + d/2. The scalings are those of
//! transformers: linear, yarn and llama3 change the speeds, yarn also the length of the turned rows.

use std::f64::consts::TAU;

use serde_json::Value;

/// How the turning speeds were changed to reach a longer context.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scaling {
    None,
    Linear { factor: f64 },
    Llama3 { factor: f64, low: f64, high: f64, original: f64 },
    Yarn { factor: f64, original: f64, fast: f64, slow: f64, length: f64, whole: bool },
}

impl Scaling {
    /// From rope_scaling or rope_parameters; `positions` is the model's longest context.
    pub fn parse(value: &Value, positions: usize) -> Result<Scaling, String> {
        let kind = value["rope_type"].as_str().or(value["type"].as_str()).unwrap_or("default");
        let number = |name: &str| value[name].as_f64();
        let needed = |name: &str| number(name).filter(|v| *v > 0.0).ok_or_else(|| format!("RoPE of type {kind:?} needs a positive {name:?} in config.json"));
        let original = number("original_max_position_embeddings").unwrap_or(positions as f64);
        match kind {
            "default" => Ok(Scaling::None),
            "linear" => Ok(Scaling::Linear { factor: needed("factor")? }),
            "llama3" => Ok(Scaling::Llama3 { factor: needed("factor")?, low: needed("low_freq_factor")?, high: needed("high_freq_factor")?, original: needed("original_max_position_embeddings")? }),
            "yarn" => {
                let factor = needed("factor")?;
                let stretch = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
                let lengths = (number("mscale").filter(|m| *m != 0.0), number("mscale_all_dim").filter(|m| *m != 0.0));
                let length = number("attention_factor").unwrap_or(match lengths {
                    (Some(one), Some(all)) => stretch(one) / stretch(all),
                    _ => stretch(1.0),
                });
                let (fast, slow) = (number("beta_fast").unwrap_or(32.0), number("beta_slow").unwrap_or(1.0));
                let whole = value["truncate"].as_bool().unwrap_or(true);
                Ok(Scaling::Yarn { factor, original, fast, slow, length, whole })
            }
            other => Err(format!("RoPE of type {other:?} is not implemented; default, linear, yarn and llama3 run")),
        }
    }

    /// Turning speed of coordinate pair i of d/2, radians a token.
    fn speed(&self, theta: f64, d: usize, i: usize) -> f64 {
        let plain = theta.powf(-((2 * i) as f64) / d as f64);
        match *self {
            Scaling::None => plain,
            Scaling::Linear { factor } => plain / factor,
            Scaling::Llama3 { factor, low, high, original } => {
                let turns = original * plain / TAU;
                let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                plain * (smooth + (1.0 - smooth) / factor)
            }
            Scaling::Yarn { factor, original, fast, slow, whole, .. } => {
                let pair_of = |turns: f64| d as f64 * (original / (turns * TAU)).ln() / (2.0 * theta.ln());
                let (mut low, mut high) = (pair_of(fast), pair_of(slow));
                if whole {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(d as f64 - 1.0));
                let width = if high == low { 0.001 } else { high - low };
                let slowed = ((i as f64 - low) / width).clamp(0.0, 1.0);
                plain * ((1.0 - slowed) + slowed / factor)
            }
        }
    }

    /// Positions that the scaling was made for, where it says so.
    pub fn reach(&self) -> Option<usize> {
        match self {
            Scaling::Yarn { factor, original, .. } | Scaling::Llama3 { factor, original, .. } => Some((factor * original) as usize),
            _ => None,
        }
    }

    fn length(&self) -> f64 {
        if let Scaling::Yarn { length, .. } = self { *length } else { 1.0 }
    }
}

/// Radians a token by which coordinate i turns with coordinate i + d/2. [d / 2]
pub fn speeds(config: &super::Config) -> crate::error::Result<Vec<f32>> {
    let scaling = config.rope_scaling().map_err(crate::error::Error::Data)?;
    Ok(speeds_of(config.rope_theta(), scaling, config.head_dim()))
}

pub(super) fn speeds_of(theta: f32, scaling: Scaling, d: usize) -> Vec<f32> {
    let half = d / 2;
    match scaling {
        Scaling::None => (0..half).map(|i| 1.0 / theta.powf((2 * i) as f32 / d as f32)).collect(),
        _ => (0..half).map(|i| scaling.speed(f64::from(theta), d, i) as f32).collect(),
    }
}

pub struct Rope {
    half: usize,
    /// Radians a token. [d/2]
    speeds: Vec<f32>,
    /// [token, d/2] of (cos, sin)
    turns: Vec<(f32, f32)>,
    /// that turned rows have for one
    length: f32,
}

impl Rope {
    pub fn new(theta: f32, scaling: Scaling, d: usize, tokens: usize) -> Rope {
        let half = d / 2;
        let speeds = speeds_of(theta, scaling, d);
        let length = scaling.length() as f32;
        let turns = (0..tokens).flat_map(|p| speeds.iter().map(move |s| p as f32 * s)).map(|angle| (angle.cos() * length, angle.sin() * length)).collect();
        Rope { half, speeds, turns, length }
    }

    /// Radians a token by which coordinate i turns with coordinate i + d/2. [d/2]
    pub fn speeds(&self) -> impl Iterator<Item = f64> {
        self.speeds.iter().map(|s| f64::from(*s))
    }

    /// As `turn_back`, but for the length that turned rows have: who only turns them gets them all back.
    pub fn turn_plainly_back(&self, row: &mut [f32], position: usize) {
        self.turn_back(row, position);
        row.iter_mut().for_each(|x| *x *= self.length);
    }

    /// Undoes `turn`, up to rounding.
    pub fn turn_back(&self, row: &mut [f32], position: usize) {
        let (low, high) = row.split_at_mut(self.half);
        let turns = &self.turns[position * self.half..][..self.half];
        let square = self.length * self.length;
        for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(turns) {
            (*a, *b) = ((*a * cos + *b * sin) / square, (*b * cos - *a * sin) / square);
        }
    }

    /// The turns of a model, for positions below `tokens`.
    pub fn of(config: &super::Config, tokens: usize) -> crate::error::Result<Rope> {
        let scaling = config.rope_scaling().map_err(crate::error::Error::Data)?;
        Ok(Rope::new(config.rope_theta(), scaling, config.head_dim(), tokens))
    }

    /// [position, 2, d/2]: cosines, sines.
    pub fn table(&self) -> Vec<f32> {
        let rows = self.turns.chunks(self.half);
        rows.flat_map(|row| row.iter().map(|t| t.0).chain(row.iter().map(|t| t.1))).collect()
    }

    /// Turns one head vector of the token at `position`.
    pub fn turn(&self, row: &mut [f32], position: usize) {
        let (low, high) = row.split_at_mut(self.half);
        let turns = &self.turns[position * self.half..][..self.half];
        for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(turns) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalings_keep_the_fast_pairs_and_slow_the_slow_ones() {
        let llama = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768});
        for (value, factor) in [(llama, 8.0), (yarn, 4.0)] {
            let scaled = Scaling::parse(&value, 131_072).unwrap();
            let ratio = |i| scaled.speed(1e6, 128, i) / Scaling::None.speed(1e6, 128, i);
            assert_eq!(ratio(0), 1.0);
            assert!((ratio(63) * factor - 1.0).abs() < 1e-12, "{scaled:?}: {}", ratio(63));
        }
        let yarn = Scaling::parse(&json!({"rope_type": "yarn", "factor": 4.0}), 64).unwrap();
        assert_eq!(yarn.reach(), Some(256));
        assert!((yarn.length() - (0.1 * 4_f64.ln() + 1.0)).abs() < 1e-12);
        assert_eq!(Scaling::Linear { factor: 2.0 }.speed(1e4, 64, 0), 0.5);
    }

    #[test]
    fn turned_rows_turn_back() {
        let yarn = Scaling::parse(&json!({"rope_type": "yarn", "factor": 4.0}), 64).unwrap();
        for scaling in [Scaling::None, yarn] {
            let rope = Rope::new(1e4, scaling, 8, 40);
            let row: Vec<f32> = (0..8).map(|i| i as f32 - 3.0).collect();
            let mut turned = row.clone();
            rope.turn(&mut turned, 39);
            assert!(turned != row);
            rope.turn_back(&mut turned, 39);
            assert!(turned.iter().zip(&row).all(|(a, b)| (a - b).abs() < 1e-5), "{turned:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(Scaling::parse(&json!({"rope_type": "linear"}), 64).unwrap_err().contains("\"factor\""));
        assert!(Scaling::parse(&json!({"rope_type": "longrope"}), 64).unwrap_err().contains("longrope"));
    }
}
