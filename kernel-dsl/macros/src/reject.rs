//! Every rejection of the macros: what is wrong, then what to write. Lower case, no full stop.
//!
//! Only what the text shows is rejected here. What needs a type (`max` on floats, a divisor, a shift
//! count, an index) is the builder's: see `kernel_dsl::report`.

use std::fmt;

pub enum Reject {
    Abstract(&'static str),
    Async,
    Closure,
    Expression,
    Item,
    KernelMeta,
    KernelParam(String),
    KernelReturns,
    Leave,
    LetElse,
    Lifetime(String),
    Macro(String),
    MapTarget(String),
    Match,
    Method(String),
    MutParam,
    Out(String),
    Pattern,
    Pointer,
    Range,
    Receiver,
    Recursion(String),
    Return,
    StructFields,
    Type(String),
    Uninitialised,
    Unsafe,
    UntypedLet,
    While,
}

const TYPES: &str = "f32, f16, bf16, i8, u8, u16, i32, u32, i64, bool, fixed arrays and tuples of them; `usize` for sizes known when the kernel is built";

impl Reject {
    /// Methods that no device value has, by name.
    pub fn method(name: &str) -> Option<String> {
        Some(match name {
            "exp" | "exp2" | "exp_m1" | "ln" | "log2" | "log10" | "sin" | "cos" | "tan" | "sin_cos" | "tanh" | "powf" | "powi" | "cbrt" | "hypot" => {
                format!("`.{name}()` gives other bits on the GPU than on the CPU; use a function of `kernel_dsl::math` such as `exp2`, whose polynomial is the same on both")
            }
            "round" => "`.round()` rounds halves away from zero, which the GPU has no instruction for; use `.round_ties_even()`".into(),
            "unwrap" | "expect" => format!("`.{name}()` may panic, and a device function cannot; compute a value for every input"),
            "iter" | "into_iter" | "iter_mut" | "collect" | "enumerate" | "zip" => format!("`.{name}()` belongs to iterators, which have no device form; write `for i in 0..n` and index"),
            "step_by" => "`.step_by()` has no device form; write `for i in strided(first, last, step)`".into(),
            _ => return None,
        })
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Reject::*;
        match self {
            Abstract(what) => write!(f, "`{what}` has no device form here; write a type parameter with the trait as its bound, or a parameter `c: &dyn Trait` whose functions are device functions"),
            Async => write!(f, "`async` has no device form; write a plain `fn`, whose copies run ahead in a `stream` loop"),
            Closure => write!(f, "closures have no device form; write a `#[device] fn`"),
            Expression => write!(f, "this expression has no device form; write it with numbers, names, operators, calls, arrays, tuples, `if` and `for`"),
            Item => write!(f, "an item inside device code has no device form; move it outside the function"),
            KernelMeta => write!(f, "the first parameter of a kernel is its meta value; write it first, as in `m: DecodeMeta`"),
            KernelParam(t) => write!(f, "a kernel cannot take `{t}`; pass `&Global<T>`, `&mut Global<T>`, a scalar, or a reference to a `#[device]` struct of them"),
            KernelReturns => write!(f, "a kernel cannot return; write to its `&mut` arguments"),
            Leave => write!(f, "leaving a device loop early is not supported; make the body conditional"),
            LetElse => write!(f, "`let ... else` has no device form; write `if` and `else`"),
            Lifetime(l) => write!(f, "the lifetime `{l}` has no device form; leave it out"),
            Macro(name) => match name.as_str() {
                "println" | "print" | "dbg" | "eprintln" | "eprint" => write!(f, "`{name}!` has no device form; write the value to a buffer"),
                "panic" | "assert" | "assert_eq" | "assert_ne" | "debug_assert" | "debug_assert_eq" | "debug_assert_ne" | "unreachable" | "todo" | "unimplemented" => {
                    write!(f, "`{name}!` may panic, and a device function cannot; compute a value for every input")
                }
                _ => write!(f, "`{name}!` has no device form; write out what it stands for"),
            },
            MapTarget(name) => write!(f, "`.{name}()` takes a function of its tiles' elements last; write the name of a `#[device] fn`, or a closure such as `|x| x + 1.0_f32`"),
            Match => write!(f, "patterns that choose (`match`, `if let`) have no device form; write `if` and `else`"),
            Method(name) => write!(f, "{}", Reject::method(name).unwrap_or_default()),
            MutParam => write!(f, "device functions return their results; return a tuple or an array instead of taking `&mut`"),
            Out(t) => write!(f, "`#[out]` marks a buffer that a kernel writes, and `{t}` is none; write `Global<T>`"),
            Pattern => write!(f, "this pattern has no device form; bind a name or a tuple of names"),
            Pointer => write!(f, "raw pointers have no device form; take `&Global<T>` or `&Shared<T>`"),
            Range => write!(f, "a device loop cannot run over this; write `a..b`, `strided`, `stream`, `warps`, `threads` or `lanes`"),
            Receiver => write!(f, "a device function has no `self`, and a codec's takes `&self`; pass the values it needs"),
            Recursion(name) => write!(f, "device functions may not call themselves (`{name}` → `{name}`); write a `for` loop"),
            Return => write!(f, "`return` may stand only as the last expression; guard the rest with `if`"),
            StructFields => write!(f, "values that travel together need names; write a struct with named fields"),
            Type(t) => write!(f, "`{t}` is no device type (device types: {TYPES})"),
            Uninitialised => write!(f, "a `let` without a value has no device form; give it one, as in `let mut x = 0_i32`"),
            Unsafe => write!(f, "`unsafe` has no device form; write it with views such as `&Global<T>`"),
            UntypedLet => write!(f, "give this literal a type, as in `1_i32`: the device half cannot infer it"),
            While => write!(f, "a device loop must be a `for` over a range; write `for i in 0..n` and make its body conditional"),
        }
    }
}
