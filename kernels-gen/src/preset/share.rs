//! How the bits of a preset are shared out over a model's layers: of all ways to give every layer its bands within the
//! preset's total, the one of least loss. The loss of a band is measured once, at some width; at another it is assumed
//! to go as the squared error does, and bands, layers, keys and values are assumed to add up.

use super::{Bands, ERRORS, Preset};
use crate::codecs::places::Places;

/// What the errors of the bands of one layer's keys or values cost.
#[derive(Clone, PartialEq, Debug)]
pub struct Costs {
    /// The widths that were measured.
    pub widths: Vec<usize>,
    /// Loss of the model when this band alone is coded so.
    pub losses: Vec<f64>,
}

impl Costs {
    /// The loss expected of these bands.
    pub fn of(&self, widths: &[usize]) -> f64 {
        let band = |((loss, found), wanted): ((&f64, &usize), &usize)| loss * ERRORS[*wanted] / ERRORS[*found];
        self.losses.iter().zip(&self.widths).zip(widths).map(band).sum()
    }
}

/// The bands of every layer: least loss, `layers` (keys, values) counted, in no more bits than the preset's uniform
/// bands and in at most `most` schedules for keys and as many for values.
pub fn share(layers: &[[Costs; 2]], preset: &Preset, most: usize) -> Vec<Bands> {
    let uniform = [preset.keys, preset.values];
    let budget = layers.len() * (quarters(preset.keys) + quarters(preset.values));
    let mut menus = uniform.map(menu);
    let mut found = cheapest(layers, &menus, budget);
    loop {
        menus = [0, 1].map(|side| used(&found.1, side));
        let large = (0..2).filter(|side| menus[*side].len() > most);
        let fewer = large.flat_map(|side| (0..menus[side].len()).map(move |at| (side, at)));
        let without = |(side, at): (usize, usize)| {
            let mut menus = menus.clone();
            menus[side].remove(at);
            cheapest(layers, &menus, budget)
        };
        match fewer.map(without).min_by(|a, b| a.0.total_cmp(&b.0)) {
            Some(best) => found = best,
            None => return found.1.into_iter().map(|[keys, values]| Bands { keys, values }).collect(),
        }
    }
}

/// Quarters of a bit a coordinate; bands are 1, 2 or 4.
fn quarters(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() * 4 / widths.len()
}

/// All schedules of as many bands whose digits fill bytes, of 2 bits a coordinate and more and at most one less than `uniform` has:
/// far below, losses are no longer what was measured. Where they take up to 4 bits, no digit may be cut: there unpacking is what costs.
fn menu(uniform: &[usize]) -> Vec<Vec<usize>> {
    let least = (quarters(uniform) - 4).max(8);
    let fits = |widths: &Vec<usize>| quarters(widths) >= least && Places::of(widths).is_some_and(|p| p.parts == 0 || p.bits() > 32);
    falling(uniform.len()).into_iter().filter(fits).collect()
}

/// In which no band is wider than the one before, of 1 to 8 bits.
fn falling(bands: usize) -> Vec<Vec<usize>> {
    let longer = |menu: Vec<Vec<usize>>| {
        let next = |widths: Vec<usize>| {
            let last = widths.last().copied().unwrap_or(ERRORS.len() - 1);
            (1..=last).map(move |w| widths.iter().copied().chain([w]).collect())
        };
        menu.into_iter().flat_map(next).collect()
    };
    (0..bands).fold(vec![Vec::new()], |menu, _| longer(menu))
}

/// The schedules of one side that are in use, each once.
fn used(layers: &[[Vec<usize>; 2]], side: usize) -> Vec<Vec<usize>> {
    let mut menu: Vec<Vec<usize>> = layers.iter().map(|layer| layer[side].clone()).collect();
    menu.sort();
    menu.dedup();
    menu
}

/// Least loss and the schedules that have it; infinite where the menus do not fit the budget.
fn cheapest(layers: &[[Costs; 2]], menus: &[Vec<Vec<usize>>; 2], budget: usize) -> (f64, Vec<[Vec<usize>; 2]>) {
    let bits = menus.clone().map(|menu| menu.iter().map(|widths| quarters(widths)).collect::<Vec<usize>>());
    // [spent] of the loss so far; for each unit, [spent] of the choice that led there
    let mut losses = vec![f64::INFINITY; budget + 1];
    losses[0] = 0.0;
    let mut choices = Vec::new();
    for (unit, costs) in layers.iter().flatten().enumerate() {
        let side = unit % 2;
        let own: Vec<f64> = menus[side].iter().map(|widths| costs.of(widths)).collect();
        let mut next = vec![f64::INFINITY; budget + 1];
        let mut choice = vec![0; budget + 1];
        for (spent, loss) in losses.iter().enumerate().filter(|(_, loss)| loss.is_finite()) {
            for (at, (own, bits)) in own.iter().zip(&bits[side]).enumerate().filter(|(_, (_, b))| spent + *b <= budget) {
                if loss + own < next[spent + bits] {
                    (next[spent + bits], choice[spent + bits]) = (loss + own, at);
                }
            }
        }
        losses = next;
        choices.push(choice);
    }
    let Some((mut spent, loss)) = losses.into_iter().enumerate().min_by(|a, b| a.1.total_cmp(&b.1)) else {
        return (f64::INFINITY, Vec::new());
    };
    let mut found = vec![[Vec::new(), Vec::new()]; layers.len()];
    for (unit, choice) in choices.iter().enumerate().rev().filter(|_| loss.is_finite()) {
        let at = choice[spent];
        found[unit / 2][unit % 2] = menus[unit % 2][at].clone();
        spent -= bits[unit % 2][at];
    }
    (loss, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESET: Preset = Preset { name: "test", keys: &[3, 3, 3, 3], values: &[3, 3] };

    fn costs(losses: &[f64]) -> Costs {
        Costs { widths: vec![3; losses.len()], losses: losses.to_vec() }
    }

    #[test]
    fn layers_that_matter_more_get_more_and_the_total_holds() {
        let layer = |x: f64| [costs(&[8.0 * x, x, x, 0.1 * x]), costs(&[2.0 * x, x])];
        let bands = share(&[layer(1.0), layer(8.0), layer(0.01)], &PRESET, 6);
        let bits: Vec<f64> = bands.iter().map(Bands::bits).collect();
        assert!(bits[1] > bits[0] && bits[0] > bits[2], "{bands:?}");
        assert!((bits.iter().sum::<f64>() - 9.0).abs() < 0.2, "{bands:?}");
        assert!(bits.iter().sum::<f64>() <= 9.0);
        assert!(bands.iter().all(|b| b.keys.is_sorted_by(|a, b| a >= b)), "{bands:?}");
        assert!(bands[..2].iter().all(|b| b.keys[0] > b.keys[3]), "{bands:?}");
    }

    #[test]
    fn it_is_the_best_of_all() {
        let layers = [[costs(&[1.0, 0.3]), costs(&[5.0])], [costs(&[0.2, 0.2]), costs(&[0.7])]];
        let preset = Preset { name: "test", keys: &[2, 2], values: &[2] };
        let loss = |bands: &[Bands]| bands.iter().zip(&layers).map(|(b, c)| c[0].of(&b.keys) + c[1].of(&b.values)).sum::<f64>();
        let found = share(&layers, &preset, 9);
        let (keys, values) = (menu(preset.keys), menu(preset.values));
        let each: Vec<Bands> = keys.iter().flat_map(|k| values.iter().map(move |v| (k, v))).map(|(k, v)| Bands { keys: k.clone(), values: v.clone() }).collect();
        for (a, b) in each.iter().flat_map(|a| each.iter().map(move |b| (a, b))) {
            let fits = a.bits() + b.bits() <= 4.0;
            assert!(!fits || loss(&[a.clone(), b.clone()]) >= loss(&found) - 1e-12, "{a} {b} beats {found:?}");
        }
        // one schedule for all layers is the uniform best, not better than many
        let one = share(&layers, &preset, 1);
        assert!(one[0] == one[1] && loss(&one) >= loss(&found));
    }
}
