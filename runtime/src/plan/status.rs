//! What kernels report: four i32 in the caller's device memory, zeroed once by the caller. Kernels set
//! words and never clear one, so a caller may look as seldom as it likes.

/// Word that is 1 after a slot beyond the cache: that token was not stored.
pub const BAD_SLOT: usize = 0;
/// Word that is 1 after a page index outside the cache: that sequence's output is 0, its lse -inf.
pub const BAD_PAGE: usize = 1;
/// Word that is 1 after a length below 0 or above what the page table holds: likewise.
pub const BAD_LENGTH: usize = 2;
/// Word with the index of one offender: a token, or a sequence.
pub const WHERE: usize = 3;
/// Bytes of the four.
pub const BYTES: u64 = 16;

/// The report in words, or `None` if all is well.
pub fn describe(words: &[i32]) -> Option<String> {
    let kinds = [(BAD_SLOT, "a slot lies beyond the cache (token not stored)"), (BAD_PAGE, "a page table names a page outside the cache (output 0)"), (BAD_LENGTH, "a length is below 0 or more than its page table holds (output 0)")];
    let raised: Vec<&str> = kinds.into_iter().filter(|(word, _)| words.get(*word).is_some_and(|w| *w != 0)).map(|(_, text)| text).collect();
    let place = words.get(WHERE).copied().unwrap_or(0);
    (!raised.is_empty()).then(|| format!("{}; one offender has index {place}", raised.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_told() {
        assert_eq!(describe(&[0, 0, 0, 7]), None);
        assert_eq!(describe(&[]), None);
        let all = describe(&[1, 1, 1, 7]).unwrap();
        assert!(all.contains("slot") && all.contains("page outside") && all.contains("length") && all.ends_with("index 7"));
    }
}
