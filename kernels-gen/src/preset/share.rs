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
pub fn menu(uniform: &[usize]) -> Vec<Vec<usize>> {
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
