//! Signatures that only rustc can make sense of.
use kernel_dsl::device;

trait Scale {}

#[device]
async fn waiting(x: f32) -> f32 {
    x
}

#[device]
fn borrowed<'a>(x: &'a f32) -> f32 {
    *x
}

#[device]
fn boxed(_s: (&dyn Scale, f32), x: f32) -> f32 {
    x
}

#[device]
fn anything(_s: impl Scale, x: f32) -> f32 {
    x
}

struct Codec;

#[kernel_dsl::codec]
impl Codec {
    fn side(&mut self, x: f32) -> f32 {
        x
    }
}

fn main() {}
