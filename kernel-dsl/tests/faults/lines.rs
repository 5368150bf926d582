//! The lines of the IR itself, which the printed CUDA carries on.

use crate::*;

const HERE: Here = Here { file: file!(), text: include_str!("lines.rs") };

#[device]
fn negated(x: f32) -> f32 {
    -x // negation
}

#[kernel]
pub fn program(_m: M, out: &mut Global<f32>, x: f32, n: i32) {
    let y = negated(x)
        + x; // sum
    for i in 0_i32..n { // loop
        if i > 3_i32 { // branch
            out.put(i, y); // store
        }
    }
}

fn find(stmts: &[Stmt], hit: &dyn Fn(&Op) -> bool) -> Option<u32> {
    stmts.iter().find_map(|s| if hit(&s.op) { Some(s.span.line) } else { kernel_dsl::passes::simplify::inner(&s.op).into_iter().find_map(|b| find(b, hit)) })
}

#[test]
fn are_those_of_the_statement_itself() {
    let tile = program::build(&M { n: 4 }).unwrap();
    let thread = kernel_dsl::passes::run(&tile).unwrap();
    let check = |mark: &str, hit: &dyn Fn(&Op) -> bool| {
        for p in [&tile, &thread] {
            assert_eq!(find(&p.body, hit), Some(HERE.line_of(mark)), "{mark}");
        }
    };
    check("negation", &|op| matches!(op, Op::Un(UnOp::Neg, _)));
    check("sum", &|op| matches!(op, Op::Bin(BinOp::Add, ..)));
    check("loop", &|op| matches!(op, Op::For { .. }));
    check("branch", &|op| matches!(op, Op::If { .. }));
    check("store", &|op| matches!(op, Op::Store { .. }));
}
