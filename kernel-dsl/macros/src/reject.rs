//! Every rejection of the macros: what is wrong, then what to write. Lower case, no full stop.

use std::fmt;

pub enum Reject {
    Method(String),
    Macro(String),
    While,
    UntypedLet,
    Type(String),
    Closure,
    Shift,
    Return,
    Leave,
    MutParam,
    Match,
    Unsafe,
    Pattern,
    Operator,
    Statement,
    Expression,
    NarrowCast(String),
    LetElse,
    Async(&'static str),
    KernelReturns,
    KernelMeta,
    KernelParam(String),
    KernelIr,
    MapTarget(String),
    Range,
}

const TYPES: &str = "f32, f16, bf16, i8, u8, u16, i32, u32, i64, bool, fixed arrays and tuples of them; `usize` for sizes known when the kernel is built";

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Reject::*;
        match self {
            Method(name) => match name.as_str() {
                "exp" | "ln" | "sin" | "cos" | "tanh" | "powf" | "powi" | "exp2" | "log2" => {
                    write!(f, "`.{name}()` gives other bits on the GPU than on the CPU; use a function of `kernel_dsl::math` such as `exp2`, whose polynomial is the same on both")
                }
                "round" => write!(f, "`.round()` rounds halves away from zero, which the GPU has no instruction for; use `.round_ties_even()`"),
                "unwrap" | "expect" => write!(f, "a device function cannot panic; compute a value for every input"),
                "iter" | "into_iter" | "iter_mut" => write!(f, "iterators have no device form; write `for i in 0..n` and index"),
                "step_by" => write!(f, "`.step_by()` has no device form; write `for i in strided(first, last, step)`"),
                _ => write!(f, "`.{name}()` is not a device operation"),
            },
            Macro(name) => match name.as_str() {
                "println" | "print" | "dbg" | "eprintln" => write!(f, "`{name}!` has no device form; write the value to a buffer"),
                _ => write!(f, "a device function cannot panic or expand `{name}!`; compute a value for every input"),
            },
            While => write!(f, "a device loop must be a `for` over a range"),
            UntypedLet => write!(f, "give this literal a type, as in `1_i32`: the device half cannot infer it"),
            Type(t) => write!(f, "`{t}` is no device type (device types: {TYPES})"),
            Closure => write!(f, "closures have no device form; write a `#[device] fn`"),
            Shift => write!(f, "a shift count must be a constant or masked: `a << (n & 31)`"),
            Return => write!(f, "`return` may stand only as the last expression; guard the rest with `if`"),
            Leave => write!(f, "leaving a device loop early is not supported; make the body conditional"),
            MutParam => write!(f, "device functions return their results; return a tuple or an array instead of taking `&mut`"),
            Match => write!(f, "`match` has no device form; write `if` and `else`"),
            Unsafe => write!(f, "`unsafe` has no device form; device code works on views"),
            Pattern => write!(f, "only names and tuples of names can be bound in device code"),
            Operator => write!(f, "this operator has no device form"),
            Statement => write!(f, "only `let`, expressions and loops may stand in device code"),
            Expression => write!(f, "this expression has no device form"),
            NarrowCast(t) => write!(f, "say what happens outside the range of {t}: clamp first, then cast with `as i32 as {t}`"),
            LetElse => write!(f, "`let ... else` has no device form; write `if` and `else`"),
            Async(what) => write!(f, "`{what}` has no device form"),
            KernelReturns => write!(f, "a kernel writes to its `&mut` arguments; it cannot return"),
            KernelMeta => write!(f, "the first parameter of a kernel is its meta value, as in `m: DecodeMeta`"),
            KernelParam(t) => write!(f, "a kernel takes `&Global<T>`, `&mut Global<T>` or a scalar, not `{t}`"),
            KernelIr => write!(f, "a kernel is not called; launch it"),
            MapTarget(name) => write!(f, "`.{name}()` takes the name of a `#[device]` function as its last argument"),
            Range => write!(f, "a device loop runs over `a..b`, `strided`, `stream`, `warps`, `threads` or `lanes`"),
        }
    }
}
