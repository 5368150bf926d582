//! What a stage may not hold, raised by hand.

use crate::*;

#[test]
fn hold_their_own_operations() {
    let mut p = Program { name: "by_hand".into(), warps: 1, ..Program::default() };
    let lane = p.fresh(Ty::Scalar(DType::I32));
    let span = kernel_dsl::ir::Span { file: "faults.rs", line: 7 };
    p.body.push(Stmt { op: Op::LaneId, outs: vec![lane], span });
    let report = verify::tile(&p).expect_err("a lane in tile IR");
    assert_eq!(report.to_string(), "`LaneId` may not stand in tile IR; this is a fault of a pass, please report it\n  --> faults.rs:7");
    p.body[0].op = Op::Any(lane);
    let report = verify::thread(&p).expect_err("a tile's operation in thread IR");
    assert_eq!(report.what.to_string(), "`Any` may not stand in thread IR; this is a fault of a pass, please report it");
}
