//! Where the digits of a block lie whose coordinates have widths of their own: each in one byte where that fits, the narrow
//! ones below the wide ones, so that a mask is all that unpacking takes.

/// Digits of up to 8 bits in the bytes of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Places {
    /// The place in the block of each eighth of the coordinates, largest energies first.
    pub order: [usize; 8],
    /// Of the digit at each place: its bits, and where the lowest `main` of them lie.
    pub widths: [usize; 8],
    pub main: [usize; 8],
    pub byte: [usize; 8],
    pub bit: [usize; 8],
    /// What is left of digits that fill gaps: of which place, how many bits, from which bit of the digit on, where.
    pub parts: usize,
    pub part_of: [usize; 8],
    pub part_bits: [usize; 8],
    pub part_from: [usize; 8],
    pub part_byte: [usize; 8],
    pub part_bit: [usize; 8],
    /// Bits by which a digit may stand higher while products are summed: they do not fall, and are the same for places 2i and 2i + 1.
    pub raised: [usize; 8],
}

/// What levels of a block, raised, may sum to, lest sums of doubled products with a query's integers pass 2^31: with 256 dims a place
/// has 32 coordinates.
const ROOM: usize = (1 << 31) / (16256 * 32);

impl Places {
    /// For widths of 1 to 8 bits, largest energies first: 1, 2, 4 or 8 of them, each of as many coordinates; None where their
    /// sum does not fill bytes.
    pub fn of(widths: &[usize]) -> Option<Places> {
        if !widths.len().is_power_of_two() || widths.len() > 8 || !widths.iter().all(|w| (1..=8).contains(w)) {
            return None;
        }
        let eighths: Vec<usize> = (0..8).map(|e| widths[e * widths.len() / 8]).collect();
        let bytes = eighths.iter().sum::<usize>() / 8;
        if eighths.iter().sum::<usize>() % 8 != 0 {
            return None;
        }
        let mut room = vec![8; bytes];
        let mut homes = [None; 8];
        let mut falling: Vec<usize> = (0..8).collect();
        falling.sort_by_key(|e| std::cmp::Reverse(eighths[*e]));
        if !fill(&falling, &eighths, &mut room, &mut homes) {
            // Some digit must be cut: the widest ones go first, the last ones fill what is left.
            (room, homes) = (vec![8; bytes], [None; 8]);
            for e in falling {
                if let Some(byte) = room.iter().position(|room| *room >= eighths[e]) {
                    room[byte] -= eighths[e];
                    homes[e] = Some(byte);
                }
            }
        }
        Some(Places::with(&eighths, &homes, &mut room))
    }

    fn with(eighths: &[usize], homes: &[Option<usize>; 8], room: &mut [usize]) -> Places {
        // The lowest bits of a byte are those that cut digits get; then narrow digits, then wide ones.
        let mut bits = [0; 8];
        for (byte, room) in room.iter().enumerate() {
            let mut own: Vec<usize> = (0..8).filter(|e| homes[*e] == Some(byte)).collect();
            own.sort_by_key(|e| eighths[*e]);
            let mut at = *room;
            for e in own {
                bits[e] = at;
                at += eighths[e];
            }
        }
        // (eighth, bits, first bit of the digit, byte, bit)
        let mut pieces = Vec::new();
        for e in (0..8).filter(|e| homes[*e].is_none()) {
            let mut from = 0;
            while from < eighths[e] {
                let Some(byte) = (0..room.len()).max_by_key(|byte| (room[*byte], usize::MAX - byte)) else { break };
                let n = room[byte].min(eighths[e] - from);
                room[byte] -= n;
                pieces.push((e, n, from, byte, room[byte]));
                from += n;
            }
        }
        let main: [usize; 8] = std::array::from_fn(|e| pieces.iter().find(|p| p.0 == e).map_or(eighths[e], |p| p.1));
        let place = |e: usize| pieces.iter().find(|p| p.0 == e).map_or((homes[e].unwrap_or(0), bits[e]), |p| (p.3, p.4));
        // Cut digits are put together at height 0.
        let height = |e: usize| if homes[e].is_some() { bits[e] } else { 0 };
        let pairs = paired(eighths, &std::array::from_fn(height));
        let places: Vec<usize> = pairs.iter().flat_map(|(_, pair)| *pair).collect();
        let rest: Vec<_> = pieces.iter().filter(|p| p.2 > 0).collect();
        let part = |of: fn(&(usize, usize, usize, usize, usize)) -> usize| std::array::from_fn(|i| rest.get(i).map_or(0, |p| of(p)));
        let at = |e: usize| places.iter().position(|p| *p == e).unwrap_or(0);
        Places {
            order: std::array::from_fn(at),
            widths: std::array::from_fn(|i| eighths[places[i]]),
            main: std::array::from_fn(|i| main[places[i]]),
            byte: std::array::from_fn(|i| place(places[i]).0),
            bit: std::array::from_fn(|i| place(places[i]).1),
            parts: rest.len(),
            part_of: std::array::from_fn(|i| rest.get(i).map_or(0, |p| at(p.0))),
            part_bits: part(|p| p.1),
            part_from: part(|p| p.2),
            part_byte: part(|p| p.3),
            part_bit: part(|p| p.4),
            raised: std::array::from_fn(|i| pairs[i / 2].0),
        }
    }

    /// Bits of a block.
    pub fn bits(&self) -> usize {
        self.widths.iter().sum()
    }

    /// Where coordinate number `rank`, largest energies first, of `d` stands in a row.
    pub fn coordinate(&self, rank: usize, d: usize) -> usize {
        rank % (d / 8) * 8 + self.order[rank / (d / 8)]
    }
}

/// Gives each digit a byte that it does not cross, widest first; false where there is no such way.
fn fill(left: &[usize], widths: &[usize], room: &mut Vec<usize>, homes: &mut [Option<usize>; 8]) -> bool {
    let Some((&e, rest)) = left.split_first() else { return true };
    // The emptiest first, so that bytes become alike and digits stand at few heights.
    let mut bytes: Vec<usize> = (0..room.len()).filter(|byte| room[*byte] >= widths[e] && !room[..*byte].contains(&room[*byte])).collect();
    bytes.sort_by_key(|byte| std::cmp::Reverse(room[*byte]));
    for byte in bytes {
        room[byte] -= widths[e];
        homes[e] = Some(byte);
        if fill(rest, widths, room, homes) {
            return true;
        }
        room[byte] += widths[e];
        homes[e] = None;
    }
    false
}

/// Pairs of digits that stand at one height, lowest first: as few digits as can be are shifted down to it.
fn paired(widths: &[usize], heights: &[usize; 8]) -> Vec<(usize, [usize; 2])> {
    let most = (0..8).rev().find(|up| (widths.iter().map(|w| (1 << w) - 1).sum::<usize>() << up) < ROOM).unwrap_or(0);
    let mut best: Option<(usize, Vec<(usize, [usize; 2])>)> = None;
    pair_up(&(0..8).collect::<Vec<_>>(), &mut Vec::new(), &mut |pairs| {
        let mut placed: Vec<(usize, [usize; 2])> = pairs.iter().map(|p| (heights[p[0]].min(heights[p[1]]), *p)).map(|(h, p)| (if h > most { 0 } else { h }, p)).collect();
        placed.sort();
        let shifts = placed.iter().flat_map(|(h, p)| p.map(|e| usize::from(heights[e] != *h))).sum::<usize>();
        if best.as_ref().is_none_or(|b| shifts < b.0) {
            best = Some((shifts, placed));
        }
    });
    best.map_or_else(Vec::new, |b| b.1)
}

/// All ways to make pairs of what is left.
fn pair_up(left: &[usize], pairs: &mut Vec<[usize; 2]>, visit: &mut impl FnMut(&[[usize; 2]])) {
    let Some((&first, rest)) = left.split_first() else { return visit(pairs) };
    for (i, &second) in rest.iter().enumerate() {
        let others: Vec<usize> = rest.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, e)| *e).collect();
        pairs.push([first, second]);
        pair_up(&others, pairs, visit);
        pairs.pop();
    }
}
