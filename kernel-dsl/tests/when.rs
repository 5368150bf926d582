//! Buffers that only some kernels have: `#[when(..)]`.
#![allow(dead_code)]

use kernel_dsl::ir::Param;
use kernel_dsl::ir::interp::{Arg, run};
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;

#[derive(Clone, Copy)]
struct Shape {
    scaled: bool,
}

impl Meta for Shape {
    fn launch(&self) -> Launch {
        Launch { warps: 1, min_blocks: 1 }
    }
}

#[kernel]
fn scale(m: Shape, x: &Global<f32>, #[when(m.scaled)] by: &Global<f32>, out: &mut Global<f32>) {
    for i in threads(32) {
        if m.scaled {
            out.put(i, x.at(i) * by.at(i));
        } else {
            out.put(i, x.at(i));
        }
    }
}

#[kernel]
#[allow(dead_code)]
fn touches(_m: Shape, #[when(_m.scaled)] by: &Global<f32>, out: &mut Global<f32>) {
    for i in threads(32) {
        out.put(i, by.at(i));
    }
}

fn names(p: &kernel_dsl::ir::Program) -> Vec<&str> {
    p.params
        .iter()
        .map(|p| match p {
            Param::Buffer { name, .. } | Param::Scalar { name, .. } => name.as_str(),
        })
        .collect()
}

#[test]
fn a_kernel_has_the_buffers_of_its_meta_value() {
    let x: Vec<f32> = (0..32).map(|i| i as f32 - 7.5).collect();
    let (x, by, none) = (Global::new(&x), Global::new(&[2.0_f32; 32]), Global::zeroed(0));
    for scaled in [false, true] {
        let m = Shape { scaled };
        let program = scale::build(&m).unwrap();
        assert_eq!(names(&program), if scaled { vec!["x", "by", "out"] } else { vec!["x", "out"] });
        let mut want = Global::<f32>::zeroed(32);
        launch([1, 1, 1], || scale(m, &x, if scaled { &by } else { &none }, &mut want));
        let buffers = if scaled { vec![&x, &by] } else { vec![&x] };
        let mut args: Vec<Arg> = buffers.into_iter().map(|b| Arg::Buffer(b.bytes.clone())).collect();
        args.push(Arg::Buffer(vec![0xee; 128]));
        run(&program, [1, 1, 1], &mut args).unwrap();
        let Some(Arg::Buffer(out)) = args.pop() else { panic!("a buffer") };
        assert_eq!(out, want.bytes);
    }
}

#[test]
fn one_that_it_does_not_have_may_not_be_read() {
    assert!(touches::build(&Shape { scaled: true }).is_ok());
    let fault = touches::build(&Shape { scaled: false }).unwrap_err().to_string();
    assert!(fault.contains("at"), "{fault}");
}
