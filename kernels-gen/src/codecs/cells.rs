//! Which of the levels of a Lloyd-Max quantiser a coordinate falls to, by halvings.

use kernel_dsl::device;

/// Which level above zero a coordinate falls to, and 1 if it is below zero. A midpoint belongs to the cell above it.
#[device]
pub fn cell(y: f32, midpoints: [i32; 7], width: usize) -> (u32, u32) {
    // No zero has a sign.
    let bits = (y + 0.0_f32).to_bits();
    let sign = bits >> 31;
    let size = (bits & 0x7fff_ffff_u32) as i32 - sign as i32;
    let (level, next) = if width == 4 { half_of_eight(size, midpoints) } else { half_of_four(size, midpoints) };
    (level + (if size >= next { 1_u32 } else { 0_u32 }), sign)
}

/// The level below by two halvings, and the midpoint that is left to ask.
#[device]
fn half_of_eight(size: i32, midpoints: [i32; 7]) -> (u32, i32) {
    let high = size >= midpoints[3];
    let upper = size >= (if high { midpoints[5] } else { midpoints[1] });
    let next = if high { if upper { midpoints[6] } else { midpoints[4] } } else { if upper { midpoints[2] } else { midpoints[0] } };
    ((if high { 4_u32 } else { 0_u32 }) + (if upper { 2_u32 } else { 0_u32 }), next)
}

/// By one halving.
#[device]
fn half_of_four(size: i32, midpoints: [i32; 7]) -> (u32, i32) {
    let high = size >= midpoints[1];
    (if high { 2_u32 } else { 0_u32 }, if high { midpoints[2] } else { midpoints[0] })
}
