//! The first passage's snapshot against an independent implementation, for every kind of codec that both have. All passages
//! of both read paths are in `forward.rs`: they take a GPU.

mod independent;

use harness::backend::Choice;
use harness::ppl::ReadPath;
use independent::{Table, codec_rows, run};

#[test]
fn a_snapshot_reproduces_the_independent_numbers() {
    let codecs = "bf16,fp8,scaled_e4m3_64,scaled_e4m3_64:k,turboquant_4bit_nc,d4q10:v,e8q38,symmetric_int4:k,kakeya_e8q4,kakeya_e8q10:v";
    let table = Table::read();
    for row in codec_rows(&run(codecs, ReadPath::Snapshot, 1, Choice::Cpu)) {
        let theirs = table.of(&row.codec, ReadPath::Snapshot);
        let (ours, wanted) = ((row.dlnppl[0], row.kl[0]), (theirs.dlnppl[0], theirs.kl[0]));
        println!("{}: {ours:.6?} against {wanted:.6?}", row.codec);
        // a search of its own, with tables, takes another of two points that are equally near; levels as bytes are 3e-5 off
        let (gap, share) = match row.codec.split(['q', ':']).next() {
            Some("e8") => (3e-3, 0.12),
            // a scale of 8 bits gives one number in a hundred another code, and 64 positions are few: 4e-4 and 10 % were found,
            // where all passages differ by 4 %; `scaled_e4m3_64` has the very codes
            Some("fp8_e4m3_64") => (1e-3, 0.2),
            // 64 positions: 4e-4 was found, with KL within 0.4 %
            Some("turbo") | Some("d4") => (1e-3, 0.02),
            _ => (1e-4, 0.01),
        };
        assert!((ours.0 - wanted.0).abs() < gap, "{}: {ours:?} against {wanted:?}", row.codec);
        assert!((ours.1 / wanted.1 - 1.0).abs() < share, "{}: {ours:?} against {wanted:?}", row.codec);
        let error = theirs.rel_mse_k.filter(|_| row.rel_mse_k > 0.0);
        assert!(error.is_none_or(|k| (row.rel_mse_k / k - 1.0).abs() < 0.03), "{}: {} against {error:?}", row.codec, row.rel_mse_k);
    }
}
