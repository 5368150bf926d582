//! The registry: order, sizes and the message for an unknown name.

use kernels_gen::registry::{codec, codecs};

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
