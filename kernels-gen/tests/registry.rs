//! The registry: order, sizes and the message for an unknown name.

use kernel_dsl::codec as codec_of;
use kernel_dsl::math::{fmax, fmin};
use kernels_gen::codec::{Codec, Spec};
use kernels_gen::registry::{codec, codecs, register};

#[test]
fn the_shipped_codecs_are_listed_in_order() {
    let names: Vec<&str> = codecs().iter().map(|c| c.name).collect();
    assert_eq!(names, ["bf16", "int4", "e8w4", "e8q38"]);
    assert_eq!(codecs().iter().map(|c| c.exact()).collect::<Vec<_>>(), [false, true, true, true]);
}

#[test]
fn stored_bits_count_the_sides() {
    let bits = |name: &str| codec(name).map(|c| c.stored_bits_per_element(128));
    assert_eq!(bits("bf16"), Ok(16.0));
    assert_eq!(bits("int4"), Ok(4.125));
    assert_eq!(bits("e8w4"), Ok(4.125));
    assert_eq!(bits("e8q38"), Ok(6.625));
}

#[test]
fn an_unknown_name_lists_the_known_ones_nearest_first() {
    let Err(error) = codec("e8q256") else { panic!("found a codec named e8q256") };
    assert!(error.to_string().starts_with("unknown codec `e8q256`; known codecs, nearest first: e8qQ (Q 1 to 255), "), "{error}");
    let Err(error) = codec("e8w4/int9") else { panic!("found a codec named int9") };
    assert!(error.to_string().starts_with("unknown codec `int9`; known codecs, nearest first: intW (W 2 to 8), "), "{error}");
}

/// Four bits a coordinate, as a stranger would write them.
#[derive(Debug)]
struct Own(&'static str, Spec);

#[codec_of]
impl Codec for Own {
    fn name(&self) -> String {
        self.0.into()
    }

    fn spec(&self) -> Spec {
        self.1
    }

    fn side(&self, _norm: f32, top: f32) -> [f32; 2] {
        [top / 8.0_f32, 0.0_f32]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let mut word = 0_u32;
        for i in 0..8 {
            let z = if side[0] > 0.0_f32 { y[i] / side[0] } else { 0.0_f32 };
            word = word | ((fmin(fmax(z + 8.0_f32, 0.0_f32), 15.0_f32) as u32) << (4 * i));
        }
        [word, 0_u32, 0_u32, 0_u32]
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let mut lanes = [0_u32; 4];
        for i in 0..8 {
            lanes[i / 4] = lanes[i / 4] | (((code[0] >> (4 * i)) & 15_u32) << (8 * (i % 4)));
        }
        lanes
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        side[0]
    }
}

#[test]
fn a_codec_of_another_crate_has_a_name_like_any() {
    assert!(codec("own4").is_err());
    let info = register(Box::leak(Box::new(Own("own4", Spec::integers(32, 15))))).unwrap();
    assert_eq!((info.name, info.stored_bits_per_element(128)), ("own4", 4.125));
    assert_eq!(codec("own4").unwrap().name, "own4");
    assert_eq!(codec("own4/int2").unwrap().stored_bits_per_element(128), 3.125);
    assert_eq!(codec("own4+int4/own4").unwrap().k.bands.len(), 2);
}

#[test]
fn what_cannot_be_registered_says_why() {
    let plain = Spec::integers(32, 15);
    for (name, spec, why) in [
        ("int4", plain, "taken"),
        ("turboquant_k8v4", plain, "taken"),
        ("my codec", plain, "letters"),
        ("", plain, "letters"),
        ("wide", Spec { bits: 129, ..plain }, "1 to 128 bits"),
        ("odd", Spec { affine: true, ..plain }, "even zero2"),
        ("grouped", Spec { group: 16, shared: 8, ..plain }, "bf16 lanes"),
    ] {
        let Err(refused) = register(Box::leak(Box::new(Own(name, spec)))) else { panic!("{name:?} was registered") };
        assert!(refused.to_string().contains(why), "{refused}");
        assert!(name == "int4" || name == "turboquant_k8v4" || codec(name).is_err());
    }
}
