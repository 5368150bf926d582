//! What lies between the projections and attention, in one pass: a token's row [q | k | v] gets its bias, the heads of
//! q and k are normalised where the model does so, and turned by RoPE; k and v go where attention reads them.
//!
//! A warp takes a head. Coordinate i turns with coordinate i + d/2, so a head is loaded as two rows of d/2.
//! Cost: reads and writes each number once, and the table of turns from the cache; bound by memory.

use kernel_dsl::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadsMeta {
    /// Half of a head's coordinates, a multiple of 32.
    pub half: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// q and k are normalised.
    pub norm: bool,
    pub bias: bool,
}

impl Meta for HeadsMeta {
    fn launch(&self) -> Launch {
        Launch { warps: 8, min_blocks: 1 }
    }
}

/// One over the root of the mean square of a vector in two halves.
#[device]
fn inverse_rms(a: &Tile<f32>, b: &Tile<f32>, half: usize, epsilon: f32) -> f32 {
    let squares = (a * a).sum() + (b * b).sum();
    1.0_f32 / (squares / (2 * half) as f32 + epsilon).sqrt()
}

#[kernel]
pub fn split_heads(
    m: HeadsMeta,
    x: &Global<f32>,     // [tokens, heads + 2 kv_heads, 2 half]
    bias: &Global<f32>,  // [heads + 2 kv_heads, 2 half]
    norms: &Global<f32>, // [2, 2 half]: of q, of k
    turns: &Global<f32>, // [positions, 2, half]: cosines, sines
    q: &mut Global<f32>, // [tokens, heads, 2 half]
    k: &mut Global<f32>, // [positions, kv_heads, 2 half]
    v: &mut Global<f32>, // likewise
    start: i32,          // position of the first token
    epsilon: f32,
) {
    let token = block_id(0);
    for w in warps(8) {
        for head in strided(w, (m.heads + 2 * m.kv_heads) as i32, 8) {
            let from = (token as i64 * (m.heads + 2 * m.kv_heads) as i64 + head as i64) * (2 * m.half) as i64;
            let mut a = x.row(from, m.half);
            let mut b = x.row(from + m.half as i64, m.half);
            if m.bias {
                a = a + &bias.row(head * (2 * m.half) as i32, m.half);
                b = b + &bias.row(head * (2 * m.half) as i32 + m.half as i32, m.half);
            }
            if head < (m.heads + m.kv_heads) as i32 {
                if m.norm {
                    let which = if head < m.heads as i32 { 0_i32 } else { (2 * m.half) as i32 };
                    let scale = inverse_rms(&a, &b, m.half, epsilon);
                    a = a * &(norms.row(which, m.half) * scale);
                    b = b * &(norms.row(which + m.half as i32, m.half) * scale);
                }
                let angle = (start + token) * (2 * m.half) as i32;
                let (cos, sin) = (turns.row(angle, m.half), turns.row(angle + m.half as i32, m.half));
                let (low, high) = (&a * &cos - &(&b * &sin), &b * &cos + &(&a * &sin));
                a = low;
                b = high;
            }
            if head < m.heads as i32 {
                let to = (token * m.heads as i32 + head) as i64 * (2 * m.half) as i64;
                q.put_row(to, &a);
                q.put_row(to + m.half as i64, &b);
            } else if head < (m.heads + m.kv_heads) as i32 {
                let to = ((start + token) * m.kv_heads as i32 + (head - m.heads as i32)) as i64 * (2 * m.half) as i64;
                k.put_row(to, &a);
                k.put_row(to + m.half as i64, &b);
            } else {
                let own = head - (m.heads + m.kv_heads) as i32;
                let to = ((start + token) * m.kv_heads as i32 + own) as i64 * (2 * m.half) as i64;
                v.put_row(to, &a);
                v.put_row(to + m.half as i64, &b);
            }
        }
    }
}
