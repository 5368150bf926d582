//! Every fault of the builder, the verifier and the passes: its words, and the Rust line it blames.
//!
//! That line is the one that ends in the mark `// <name>`.
#![allow(dead_code, unused_variables, unused_assignments)]

// Lines are what these are about: they stay as they stand.
#[rustfmt::skip]
mod arrays;
#[rustfmt::skip]
mod choices;
#[rustfmt::skip]
mod copies;
#[rustfmt::skip]
mod lines;
#[rustfmt::skip]
mod numbers;
#[rustfmt::skip]
mod stages;
#[rustfmt::skip]
mod tiles;

use kernel_dsl::Source;
use kernel_dsl::build::{B, V};
use kernel_dsl::ir::{BinOp, Op, Program, Stmt, Ty, UnOp, verify};
use kernel_dsl::prelude::*;
use kernel_dsl::report::Report;

#[derive(Clone, Copy)]
pub struct M {
    pub n: usize,
}

impl Meta for M {
    fn launch(&self) -> Launch {
        Launch { warps: 2, min_blocks: 1 }
    }
}

/// A file of this test.
struct Here {
    file: &'static str,
    text: &'static str,
}

impl Here {
    /// Number of the line that ends in the mark.
    fn line_of(&self, mark: &str) -> u32 {
        let mark = format!("// {mark}");
        let at = self.text.lines().position(|l| l.ends_with(&mark));
        at.unwrap_or_else(|| panic!("no line is marked `{mark}`")) as u32 + 1
    }

    #[track_caller]
    fn blames(&self, built: Result<Program, Report>, mark: &str, words: &str) {
        let report = built.and_then(|p| Source::of(&p)).expect_err("the kernel is wrong and was built");
        assert_eq!(report.what.to_string(), words);
        let span = report.span.expect("a fault names its line");
        assert_eq!((span.file, span.line), (self.file, self.line_of(mark)), "{mark}");
    }
}

/// The message of a fault that rustc's types leave no way to, raised by hand.
#[track_caller]
fn by_hand(f: impl FnOnce(&B), words: &str) {
    let b = B::new("by_hand", 1, 1);
    f(&b);
    assert_eq!(b.finish().expect_err("a fault").what.to_string(), words);
}
