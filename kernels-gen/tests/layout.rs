//! The packed tile: a bijection onto its bits, whole bytes to every token, positions as the kernels read them.

use kernel_dsl::ir::Group;
use kernels_gen::layout::{Codes, Layout, Operand, Piece, TILE, planes};
use kernels_gen::registry::{HEAD_DIMS_STORE, codecs};

/// The shipped layouts and some widths that no shipped codec has.
fn layouts() -> Vec<Layout> {
    let shipped = codecs().iter().map(|c| c.layout(64)).map(|l| (l.k, l.v));
    let others = [(24, 1, false), (64, 2, true), (52, 2, false), (36, 0, false), (15, 1, false), (96, 0, true), (51, 2, true), (45, 1, true), (50, 0, true)];
    let others = others.map(|(bits, sides, bytewise)| Codes::of(bits, sides, bytewise));
    let banded = [([40, 32, 32, 16], 4, [40, 24, 0, 0], true), ([48, 16, 0, 0], 2, [51, 32, 0, 0], false)];
    let banded = banded.map(|(k, n, v, bytewise)| (Codes { bits: k, bands: n, sides: 1, bytewise, group: Default::default() }, Codes { bits: v, bands: 2, sides: 2, bytewise, group: Default::default() }));
    let mixed = others.iter().zip(others.iter().rev()).map(|(k, v)| (*k, *v));
    let grouped = |bits, dims, shared| Codes { group: Group { dims, bits: shared }, ..Codes::of(bits, 0, false) };
    let groups = [(grouped(32, 16, 8), grouped(64, 64, 32)), (grouped(64, 64, 8), grouped(32, 32, 8)), (grouped(51, 32, 16), grouped(32, 16, 8))];
    let kinds: Vec<_> = shipped.chain(others.map(|c| (c, c))).chain(mixed).chain(groups).collect();
    let banded = |d: usize| banded.into_iter().filter(move |_| d >= 128).map(move |(k, v)| Layout { k, v, d });
    let of = |d: usize| kinds.iter().map(move |&(k, v)| Layout { k, v, d });
    HEAD_DIMS_STORE.iter().flat_map(|&d| of(d).chain(banded(d)).collect::<Vec<_>>()).collect()
}

fn pieces(layout: &Layout, operand: Operand, token: usize, block: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    layout.each_piece(operand, token, block, |p| pieces.push(p));
    pieces
}

/// The pieces of a code, and those that its group shares.
fn own_and_shared(layout: &Layout, operand: Operand, token: usize, block: usize) -> (Vec<Piece>, Vec<Piece>) {
    let bits = layout.codes(operand).bits[block * layout.codes(operand).bands / layout.blocks()];
    pieces(layout, operand, token, block).into_iter().partition(|p| p.code_bit < bits)
}

#[test]
fn every_bit_of_a_tile_has_one_meaning_and_every_byte_one_token() {
    for layout in layouts() {
        let mut owner = vec![None; layout.tile_bytes()];
        let mut bits = vec![0_u8; layout.tile_bytes()];
        let mut claim = |tile_bit: usize, width: usize, token: usize| {
            let (byte, mask) = (tile_bit / 8, (((1_u16 << width) - 1) << (tile_bit % 8)) as u8);
            assert_eq!(bits[byte] & mask, 0, "{layout:?}: byte {byte} is claimed twice");
            bits[byte] |= mask;
            // In a transposed word the four tokens have a byte each, so this holds there too.
            assert_eq!(*owner[byte].get_or_insert(token), token, "{layout:?}: byte {byte} has two tokens");
        };
        for operand in [Operand::K, Operand::V] {
            for token in 0..TILE {
                for block in 0..layout.blocks() {
                    let (pieces, shared) = own_and_shared(&layout, operand, token, block);
                    if let Some(of_group) = shared.first().filter(|_| block * 8 % layout.codes(operand).group.dims == 0) {
                        assert_eq!((of_group.code_bit, shared.len()), (layout.codes(operand).bits[0].next_multiple_of(32), layout.codes(operand).group.bits / 8));
                        shared.iter().for_each(|p| claim(p.tile_bit, p.width, token));
                    }
                    let ends: Vec<usize> = pieces.iter().map(|p| p.code_bit + p.width).collect();
                    let codes = layout.codes(operand);
                    assert_eq!(ends.last(), Some(&codes.bits[block * codes.bands / layout.blocks()]));
                    assert!(pieces.iter().skip(1).zip(&ends).all(|(p, end)| p.code_bit == *end), "{layout:?}: a gap");
                    pieces.iter().for_each(|p| claim(p.tile_bit, p.width, token));
                }
                (0..layout.codes(operand).sides).for_each(|i| {
                    claim(8 * layout.side_byte(operand, token, i), 8, token);
                    claim(8 * layout.side_byte(operand, token, i) + 8, 8, token);
                });
            }
        }
        assert!(bits.iter().all(|b| *b == 255), "{layout:?}: some bits are unused");
    }
}

#[test]
fn planes_are_powers_of_two_largest_first() {
    assert_eq!(planes(51).collect::<Vec<_>>(), [(0, 32), (32, 16), (48, 3)]);
    assert_eq!(planes(24).collect::<Vec<_>>(), [(0, 16), (16, 8)]);
    assert_eq!(planes(128).collect::<Vec<_>>(), [(0, 128)]);
    assert_eq!(planes(0).count(), 0);
}

#[test]
fn positions_are_those_of_the_kernels() {
    let first_byte = |layout: &Layout, operand, token, block| pieces(layout, operand, token, block).first().map(|p| p.tile_bit / 8);
    // 16 words a row: a quad lane's four words of one token are 16 contiguous bytes.
    let plain = Codes::of(32, 1, false);
    let e8w4 = Layout { k: plain, v: plain, d: 128 };
    for (token, block, byte) in [(0, 0, 0), (0, 1, 4), (0, 4, 16), (1, 0, 8 * 64), (4, 0, 64), (31, 15, 2044)] {
        assert_eq!(first_byte(&e8w4, Operand::K, token, block), Some(byte), "key of token {token}, block {block}");
    }
    // Values: eight tokens of two blocks are 16 words of one lane, in four chunks.
    for (token, block, byte) in [(0, 0, 0), (0, 1, 4), (1, 0, 8), (2, 0, 512), (8, 0, 16), (0, 2, 64)] {
        assert_eq!(first_byte(&e8w4, Operand::V, token, block), Some(2048 + byte), "value of token {token}, block {block}");
    }
    // Transposed: byte j of a word belongs to token j of four.
    let int4 = Layout { v: Codes { bytewise: true, ..plain }, ..e8w4 };
    let bytes: Vec<usize> = pieces(&int4, Operand::V, 5, 3).iter().map(|p| p.tile_bit / 8 - 2048).collect();
    // u = 1, h = 1: words 12..16 of lane (g 1, t 0), byte 1 of each.
    assert_eq!(bytes, [3, 3, 3, 3].iter().enumerate().map(|(k, c)| ((c * 8 + 1) * 4) * 16 + 4 * k + 1).collect::<Vec<_>>());
    // The tail plane follows the token: 3 bits a block.
    let wide = Codes::of(51, 2, false);
    let e8q38 = Layout { k: wide, v: wide, d: 128 };
    let last: Vec<_> = pieces(&e8q38, Operand::K, 3, 5).iter().skip(6).map(|p| p.tile_bit).collect();
    assert_eq!(last, [0, 1, 2].map(|k| 32 * 16 * 48 + (3 * 16 + 5) * 3 + k));
    assert_eq!(e8q38.side_byte(Operand::V, 2, 1), 2 * 32 * 16 * 51 / 8 + 2 * 8 + 6);
}

/// `kept` and the bits of `code` that a group shares.
fn shared_too(layout: &Layout, kept: [u32; 4], code: [u32; 4]) -> [u32; 4] {
    let (group, word) = (layout.v.group, layout.v.bits[0].div_ceil(32));
    let mask = if group.bits == 32 { u32::MAX } else { (1 << group.bits) - 1 };
    std::array::from_fn(|w| if group.dims > 0 && w == word { code[w] & mask } else { kept[w] })
}

#[test]
fn codes_and_sides_read_back_and_leave_the_neighbours() {
    for layout in layouts() {
        let mut tile = vec![0xa5_u8; layout.tile_bytes()];
        let before = tile.clone();
        let code = [0x1234_5678_u32, 0x9abc_def0, 0x0fed_cba9, 0x8765_4321];
        let kept = std::array::from_fn(|w| match layout.v.bits[3 * layout.v.bands / layout.blocks()].saturating_sub(32 * w) {
            0 => 0,
            bits if bits < 32 => code[w] & ((1 << bits) - 1),
            _ => code[w],
        });
        let kept = shared_too(&layout, kept, code);
        layout.write_code(&mut tile, Operand::V, 17, 3, code);
        layout.write_sides(&mut tile, Operand::V, 17, [0x3c01, 0x7bff]);
        assert_eq!(layout.read_code(&tile, Operand::V, 17, 3), kept, "{layout:?}");
        assert_eq!(layout.read_sides(&tile, Operand::V, 17)[..layout.v.sides], [0x3c01, 0x7bff][..layout.v.sides]);
        for token in (0..TILE).filter(|t| *t != 17) {
            for operand in [Operand::K, Operand::V] {
                let same = |t: &[u8]| layout.read_code(t, operand, token, 3);
                assert_eq!(same(&tile), same(&before), "{layout:?}: token {token} changed");
            }
        }
    }
}
