//! The packed tile: where each bit of 32 coded vectors lies, so that every lane of a warp loads 16 bytes
//! and holds a tensor-core operand.
//!
//! A code word of `bits` bits stands for 8 coordinates. Its bits are split into planes, powers of two from 8
//! up and a tail of fewer than 8 bits (51 = 32 + 16 + 3), so that no wide load straddles a word. Within a plane
//! the order is that of the lanes: quad row g = lane / 4 and quad lane t = lane % 4 of the operand's layout.
//! Every token owns whole bytes, so storing one token touches no other.
//!
//! Transposed tiles hold byte k of four codes side by side in a word; a tail there is cut into planes of 4, 2 and 1 bits, so
//! that one shift by the lane brings four of them to their bytes.

use crate::ir::{Feed, Packing};

/// Tokens of a packed tile.
pub const TOKENS: usize = 32;

/// Widths and first code bits of the planes of a code word: powers of two from 8 up, then what is left.
pub fn planes(bits: usize) -> Vec<(usize, usize)> {
    let mut at = 0;
    let wide = (3..8).rev().map(|p| 1 << p).filter(|w| bits & w != 0);
    wide.chain((bits % 8 != 0).then_some(bits % 8))
        .map(|w| {
            at += w;
            (w, at - w)
        })
        .collect()
}

/// Widths and first code bits of the planes of a transposed code's tail, `tail` bits from code bit `first` on.
pub fn tail_planes(bits: usize) -> Vec<(usize, usize)> {
    let mut at = bits / 8 * 8;
    let wide = [4, 2, 1].into_iter().filter(|w| bits & w != 0);
    wide.map(|w| {
        at += w;
        (w, at - w)
    })
    .collect()
}

/// Byte of element (row, k) of a left operand [m, d] of bytes that lies in the order of the lanes' registers: 16 bytes of a lane
/// are what one product takes, a warp's lie side by side. `m`: a multiple of 16, `d` one of 32.
pub fn left_byte(m: usize, d: usize, row: usize, k: usize) -> usize {
    let (g, i, t, j) = (row / (m / 8), row % (m / 8), k / (d / 4), k % (d / 4));
    let (product, word) = (i / 2 * (d / 32) + j / 8, j / 4 % 2 * 2 + i % 2);
    product * 512 + (4 * g + t) * 16 + word * 4 + j % 4
}

/// Byte of element (k, col) of a right operand [d, n] of bytes that lies in the order of the lanes' registers, likewise. `d`: a multiple of
/// 32, `n` one of 8, `d n` one of 512.
pub fn right_byte(d: usize, k: usize, col: usize) -> usize {
    let (t, j) = (k / (d / 4), k % (d / 4));
    let word = (col / 8 * (d / 32) + j / 8) * 2 + j / 4 % 2;
    word / 4 * 512 + (4 * (col % 8) + t) * 16 + word % 4 * 4 + j % 4
}

/// Byte of element (k, col) of a right operand of bytes in cores, for a left one of `d` columns: 16 bytes of eight columns are 128 bytes side by
/// side, those of the next 16 bytes along k follow, and `stride` bytes on come the next eight columns. So the tensor core of sm_90a reads
/// it where it lies. `d`: a multiple of 32.
pub fn core_byte(d: usize, stride: usize, k: usize, col: usize) -> usize {
    let (t, j) = (k / (d / 4), k % (d / 4));
    col / 8 * stride + j / 4 * 128 + col % 8 * 16 + 4 * t + j % 4
}

/// Byte of element (row, k) of 16 rows in cores as a left operand: even rows are the first eight, odd ones the eight `stride` bytes on.
pub fn core_row(stride: usize, row: usize, k: usize) -> usize {
    row % 2 * stride + k / 16 * 128 + row / 2 * 16 + k % 16
}

/// Lane, word and byte of element (row, k) of a left operand [16, d] of bytes in registers.
pub fn kept_left(d: usize, row: usize, k: usize) -> (usize, usize, usize) {
    let (t, j) = (k / (d / 4), k % (d / 4));
    (row / 2 * 4 + t, j / 8 * 4 + j / 4 % 2 * 2 + row % 2, j % 4)
}

/// Lane and number of element (row, col) of an accumulator [16, n] in registers.
pub fn kept_acc(row: usize, col: usize) -> (usize, usize) {
    (row / 2 * 4 + col % 8 / 2, col / 8 * 4 + row % 2 * 2 + col % 2)
}

/// The column of token `x` of 32 where a lane is to hold eight neighbours of a row of sums, or the token of column `x`.
pub fn spread(x: usize) -> usize {
    x % 8 / 2 * 8 + x / 8 * 2 + x % 2
}

/// Tile and column of element k of a left operand [m, 32] of bytes whose numbers are those of two accumulators [m, 16] side by side: a lane has
/// two columns of every eight, which are its own bytes there.
pub fn beside(k: usize) -> (usize, usize) {
    (k / 2 % 2, k / 4 % 2 * 8 + k / 8 * 2 + k % 2)
}

/// Byte of memory of byte `byte` of a row that is cut into lines of 128 bytes: the first lines of all rows lie side by side, the second ones `plane`
/// bytes on; chunks of 16 bytes within a line are swizzled by the row, as the tensor core of sm_90a knows it. Planes begin at multiples of 1024.
pub fn line_byte(plane: usize, row: usize, byte: usize) -> usize {
    byte / 128 * plane + row * 128 + (byte % 128 ^ (row & 7) << 4)
}

/// The row of lines that is place `k` along k of a left operand of `d` columns made of their columns: as `ldmatrix` hands them out.
pub fn line_place(d: usize, k: usize) -> usize {
    let (t, j) = (k / (d / 4), k % (d / 4));
    j / 4 * 16 + j % 4 / 2 * 8 + 2 * t + j % 2
}

impl Packing {
    /// Code words of a vector.
    pub fn blocks(&self) -> usize {
        self.d / 8
    }

    /// Bytes of the codes of 32 vectors; what groups share follows them.
    pub fn bytes(&self) -> usize {
        4 * self.blocks() * self.bits
    }

    /// Bytes of the codes and of what groups share.
    pub fn all_bytes(&self) -> usize {
        self.bytes() + if self.group.dims > 0 { TOKENS * (self.d / self.group.dims) * self.group.bits / 8 } else { 0 }
    }

    /// Byte position of what group `group` of `token` shares: what a lane needs stands side by side.
    pub fn shared_byte(&self, token: usize, group: usize) -> usize {
        let (n, size) = (self.d / self.group.dims, self.group.bits / 8);
        let element = if self.feed == Feed::Keys { (token / 4 * n + group) * 4 + token % 4 } else { group * TOKENS + token };
        self.bytes() + element * size
    }

    /// Where a vector's blocks are cut into `runs`, one a lane: the lanes that share a group, and the groups of a lane.
    pub fn groups_of(&self, runs: usize) -> (usize, usize) {
        let own = self.d / runs;
        ((self.group.dims / own).max(1), (own / self.group.dims).max(1))
    }

    /// First bit of what is shared in a code word: the next word's.
    pub fn shared_bit(&self) -> usize {
        self.bits.next_multiple_of(32)
    }

    /// Bits a lane reads from one plane in one go, at most 128.
    pub fn chunk(&self, width: usize) -> usize {
        let run = match self.feed {
            Feed::Keys | Feed::KeyQuads | Feed::KeyTwos => self.blocks() / 4 * width,
            Feed::Values | Feed::Quads => self.blocks() * width,
        };
        run.min(128)
    }

    /// Bit position of plane `(width, first)` of `block` of `token`, from the start of the codes.
    pub fn bit(&self, plane: (usize, usize), token: usize, block: usize) -> usize {
        let ((w, first), nb) = (plane, self.blocks());
        let base = TOKENS * nb * first;
        if w < 8 {
            return base + (token * nb + block) * w;
        }
        let chunk = self.chunk(w);
        base + match self.feed {
            Feed::Keys | Feed::KeyQuads | Feed::KeyTwos => {
                let (r, t, j) = (token % 4 * 8 + token / 4, block / (nb / 4), block % (nb / 4));
                ((j * w / chunk * 32 + r) * 4 + t) * chunk + j * w % chunk
            }
            Feed::Values | Feed::Quads => {
                let (t, e, g, h) = (token / 8, token % 8, block / (nb / 8), block % (nb / 8));
                let q = e * (nb / 8) + h;
                ((q * w / chunk * 8 + g) * 4 + t) * chunk + q * w % chunk
            }
        }
    }

    /// Words of a transposed tile that a lane reads in one go.
    pub fn quad_words(&self) -> usize {
        match self.blocks() / 4 * (self.bits / 8) {
            words if words % 4 == 0 => 4,
            words if words % 2 == 0 => 2,
            _ => 1,
        }
    }

    /// Byte position of code byte `k` of a transposed tile. Values: byte `token % 4` of a word. Keys: a lane has four
    /// tokens of its blocks; counted token by token, four of these make a word.
    pub fn quad_byte(&self, token: usize, block: usize, k: usize) -> usize {
        let (nb, c) = (self.blocks(), self.quad_words());
        let (lane, quad, j) = if self.feed.of_key_quads() {
            let n = token % 4 * (nb / 4) + block % (nb / 4);
            (token / 4 * 4 + block / (nb / 4), n / 4, n % 4)
        } else {
            (block / (nb / 8) * 4 + token / 8, token % 8 / 4 * (nb / 8) + block % (nb / 8), token % 4)
        };
        let q = quad * (self.bits / 8) + k;
        (q / c * 32 + lane) * 4 * c + q % c * 4 + j
    }

    /// Bit position of a plane of a transposed tile's tail, see [`tail_planes`]. Values: byte `token % 4` of a word has one
    /// token's neighbouring blocks. Keys: a byte has the blocks at one place of lanes that share tokens; single bits, of two places.
    pub fn tail_bit(&self, (w, first): (usize, usize), token: usize, block: usize) -> usize {
        let nb = self.blocks();
        let (byte, bit) = if self.feed.of_key_quads() {
            let own = nb / 4;
            let (g, t, n) = (token / 4, block / own, token % 4 * own + block % own);
            match w {
                1 => (g * nb / 2 + n / 2, n % 2 * 4 + t),
                _ => ((g * w / 2 + t * w / 8) * nb + n, t * w % 8),
            }
        } else {
            ((token / 4 * (nb * w / 8) + block * w / 8) * 4 + token % 4, block * w % 8)
        };
        8 * (TOKENS * nb / 8 * first + byte) + bit
    }

    /// Byte k of four transposed codes as word k, what is left of a code as the last one.
    pub fn quad_code(&self, bytes: &[u8], quad: &[(usize, usize); 4]) -> [u32; 8] {
        let codes = quad.map(|(token, block)| self.code(bytes, token, block));
        std::array::from_fn(|k| if 8 * k < self.bits { (0..4).fold(0, |word, j| word | (codes[j][k / 4] >> (k % 4 * 8) & 0xff) << (8 * j)) } else { 0 })
    }

    /// The (token, block) pairs of a transposed tile whose bytes stand side by side.
    pub fn quads(&self) -> Vec<[(usize, usize); 4]> {
        let nb = self.blocks();
        if self.feed.of_key_quads() {
            let own = nb / 4;
            let at = |lane: usize, n: usize| (lane / 4 * 4 + n / own, lane % 4 * own + n % own);
            return (0..32 * own).map(|i| std::array::from_fn(|j| at(i / own, i % own * 4 + j))).collect();
        }
        (0..TOKENS / 4 * nb).map(|i| std::array::from_fn(|j| (i / nb * 4 + j, i % nb))).collect()
    }

    /// The code word of one block, what its group shares behind it.
    pub fn code(&self, bytes: &[u8], token: usize, block: usize) -> [u32; 4] {
        let mut code = [0_u32; 4];
        if self.feed.transposed() {
            for k in 0..self.bits / 8 {
                code[k / 4] |= (bytes[self.quad_byte(token, block, k)] as u32) << (k % 4 * 8);
            }
            for (w, first) in tail_planes(self.bits) {
                let at = self.tail_bit((w, first), token, block);
                let bits = bytes[at / 8] as u32 >> (at % 8) & ((1 << w) - 1);
                code[first / 32] |= bits << (first % 32);
            }
            return code;
        }
        for plane in planes(self.bits) {
            let (w, first) = plane;
            let at = self.bit(plane, token, block);
            for n in 0..w {
                let bit = bytes[(at + n) / 8] as u32 >> ((at + n) % 8) & 1;
                code[(first + n) / 32] |= bit << ((first + n) % 32);
            }
        }
        if self.group.dims > 0 {
            let at = self.shared_byte(token, block * 8 / self.group.dims);
            for (n, byte) in bytes[at..at + self.group.bits / 8].iter().enumerate() {
                code[self.shared_bit() / 32] |= u32::from(*byte) << (8 * n);
            }
        }
        code
    }
}
