//! Checks of what a caller hands in; each failure is typed and says what would have been right.
//!
//! They run before anything is enqueued and touch host values only, so they cost nanoseconds.

/// A wrong argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// A pointer is null.
    #[error("{what} is null; pass the address of {want}")]
    Null {
        /// The argument.
        what: &'static str,
        /// What it should point to.
        want: &'static str,
    },
    /// An address is not aligned.
    #[error("{what} is at {address:#x}, which is not a multiple of {want}; align it to {want} bytes")]
    Misaligned {
        /// The argument.
        what: &'static str,
        /// The address given.
        address: u64,
        /// The alignment wanted.
        want: u64,
    },
    /// A buffer is too small.
    #[error("{what} has {have} bytes and needs {need}; give it at least that many")]
    Short {
        /// The argument.
        what: &'static str,
        /// Its size.
        have: u64,
        /// The size needed.
        need: u64,
    },
    /// A number is out of range.
    #[error("{what} is {value}; it must be {allowed}")]
    Range {
        /// The argument.
        what: &'static str,
        /// The value given.
        value: i64,
        /// The values allowed, in words.
        allowed: String,
    },
    /// Two arguments contradict each other.
    #[error("{what} is {got} here and {want} in the {other}; make them agree")]
    Mismatch {
        /// The argument.
        what: &'static str,
        /// Its value.
        got: i64,
        /// The other value.
        want: i64,
        /// Where the other value stands.
        other: &'static str,
    },
    /// A size does not fit.
    #[error("{what} does not fit {limit}; use a smaller shape")]
    Overflow {
        /// The quantity.
        what: &'static str,
        /// The type or limit.
        limit: &'static str,
    },
    /// Something that fits no other class, said in full.
    #[error("{0}")]
    Other(String),
}

/// Fails unless `low <= value <= high`.
pub(crate) fn within(what: &'static str, value: usize, low: usize, high: usize) -> Result<(), Misuse> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    Err(Misuse::Range { what, value, allowed: format!("from {low} to {high}") })
}

/// Fails unless both are equal.
pub(crate) fn agree(what: &'static str, got: usize, want: usize, other: &'static str) -> Result<(), Misuse> {
    if got == want {
        return Ok(());
    }
    let as_i64 = |v: usize| i64::try_from(v).unwrap_or(i64::MAX);
    Err(Misuse::Mismatch { what, got: as_i64(got), want: as_i64(want), other })
}

/// A product in u64, or the error that names it.
pub(crate) fn product(what: &'static str, factors: &[usize]) -> Result<u64, Misuse> {
    factors.iter().try_fold(1_u64, |acc, &f| acc.checked_mul(f as u64)).filter(|&p| p <= i64::MAX as u64).ok_or(Misuse::Overflow { what, limit: "63 bits" })
}

/// `value` as the i32 that kernels take.
pub(crate) fn int(what: &'static str, value: usize) -> Result<i32, Misuse> {
    i32::try_from(value).map_err(|_| Misuse::Overflow { what, limit: "31 bits" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive() {
        assert_eq!(within("batch", 1, 1, 4), Ok(()));
        assert_eq!(within("batch", 4, 1, 4), Ok(()));
        let text = within("batch", 5, 1, 4).map_err(|e| e.to_string());
        assert_eq!(text, Err("batch is 5; it must be from 1 to 4".into()));
        assert!(within("batch", usize::MAX, 0, 4).is_err());
    }

    #[test]
    fn products_overflow_into_an_error() {
        assert_eq!(product("cache", &[1 << 20, 1 << 20]), Ok(1 << 40));
        assert!(product("cache", &[usize::MAX, 2]).is_err());
        assert!(product("cache", &[1 << 32, 1 << 31]).is_err());
        assert_eq!(product("cache", &[0, usize::MAX]), Ok(0));
    }
}
