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
    let Err(error) = codec("e8q48") else { panic!("found a codec named e8q48") };
    assert_eq!(error.to_string(), "unknown codec `e8q48`; known codecs, nearest first: e8q38, e8w4, int4, bf16");
    let Err(error) = codec("int8") else { panic!("found a codec named int8") };
    assert_eq!(error.to_string(), "unknown codec `int8`; known codecs, nearest first: int4, bf16, e8w4, e8q38");
}
