//! Which page holds which tokens. The order is scattered on purpose, so that an error in the page table shows.

use kernels_gen::layout::{Operand, TILE};
use kernels_gen::reference::Row;
use kernels_gen::registry::CodecInfo;

#[derive(Clone)]
pub struct Pages {
    pub page_tokens: usize,
    /// page of the tokens i * page_tokens..
    pub table: Vec<i32>,
}

impl Pages {
    /// Pages for `tokens` tokens, in an order that visits every page once.
    pub fn new(tokens: usize, page_tokens: usize) -> Pages {
        let pages = tokens.div_ceil(page_tokens).max(1);
        let step = (1..).map(|i| pages * 5 / 8 + i).find(|step| common_divisor(*step, pages) == 1).unwrap_or(1);
        let table = (0..pages).map(|i| ((i * step + pages / 2) % pages) as i32).collect();
        Pages { page_tokens, table }
    }

    pub fn count(&self) -> usize {
        self.table.len()
    }

    pub fn slot(&self, token: usize) -> usize {
        self.table[token / self.page_tokens] as usize * self.page_tokens + token % self.page_tokens
    }

    pub fn slots(&self, tokens: std::ops::Range<usize>) -> Vec<i64> {
        tokens.map(|t| self.slot(t) as i64).collect()
    }
}

impl Pages {
    /// The coded row of (token, kv head) as it lies in the bytes of a cache of `[page, kv head]` blocks.
    pub fn row(&self, codec: &CodecInfo, bytes: &[u8], (kv_heads, d): (usize, usize), (token, head): (usize, usize), operand: Operand) -> Row {
        let layout = codec.layout(d);
        let slot = self.slot(token);
        let (page, offset) = (slot / self.page_tokens, slot % self.page_tokens);
        let tile = (page * kv_heads + head) * (self.page_tokens / TILE) + offset / TILE;
        let tile = &bytes[tile * layout.tile_bytes()..][..layout.tile_bytes()];
        let codes = (0..layout.blocks()).map(|b| layout.read_code(tile, operand, offset % TILE, b)).collect();
        Row { codes, side: layout.read_sides(tile, operand, offset % TILE) }
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_used_once() {
        for tokens in [1, 32, 33, 500, 2112] {
            let pages = Pages::new(tokens, 32);
            let mut seen = pages.table.clone();
            seen.sort_unstable();
            assert!(seen.iter().enumerate().all(|(i, p)| i as i32 == *p), "{tokens}: {:?}", pages.table);
        }
        assert_ne!(Pages::new(256, 64).table, [0, 1, 2, 3]);
        assert_eq!(Pages::new(64, 64).slots(0..3), [0, 1, 2]);
    }
}
