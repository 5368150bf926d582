//! Which keys and values a query reads as codes. A measurement that leaves this open says nothing: read with a raw
//! own chunk, a codec loses nothing in prefill.

use std::ops::Range;

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum ReadPath {
    /// every query reads codes for all tokens, its own included; what gates are for
    All,
    /// as all, but the scored tokens come one by one, as a decoding engine sees them
    Decode,
    /// exact prefill, its cache coded once, then the scored tokens with their own keys and values raw
    Snapshot,
    /// keys and values make a round trip inside the forward pass, then exact attention; no packed cache
    InForward,
    /// chunked prefill: the own chunk raw, the past coded; reported, never gating
    Serving,
}

impl ReadPath {
    pub fn name(self) -> &'static str {
        match self {
            ReadPath::All => "all",
            ReadPath::Decode => "decode",
            ReadPath::Snapshot => "snapshot",
            ReadPath::InForward => "in-forward",
            ReadPath::Serving => "serving",
        }
    }

    pub fn meaning(self) -> &'static str {
        match self {
            ReadPath::All => "every query reads coded keys and values of all tokens, its own included",
            ReadPath::Decode => "as `all`, with the scored tokens one by one",
            ReadPath::Snapshot => "exact prefill, coded once; the scored tokens see their own rows raw",
            ReadPath::InForward => "a round trip inside the forward pass, then exact attention",
            ReadPath::Serving => "the own chunk raw, the past coded; not for gates",
        }
    }

    /// Only paths on which every read goes through the codec can pass or fail a codec.
    pub fn gates(self) -> bool {
        matches!(self, ReadPath::All | ReadPath::Decode)
    }

    /// The packed cache and its decode arithmetic are in use.
    pub fn packed(self) -> bool {
        matches!(self, ReadPath::All | ReadPath::Decode)
    }

    /// A query reads the rows of its own call as they are.
    pub fn raw_own(self) -> bool {
        matches!(self, ReadPath::Snapshot | ReadPath::Serving)
    }

    /// How the tokens of a passage come.
    pub fn chunks(self, ctx: usize, score: &Range<usize>, chunk: usize) -> Vec<Range<usize>> {
        let mut cuts = vec![0];
        match self {
            ReadPath::All | ReadPath::InForward => {}
            ReadPath::Decode => cuts.extend(score.clone().chain([score.end])),
            ReadPath::Snapshot => cuts.push(score.start),
            ReadPath::Serving => cuts.extend((chunk..ctx).step_by(chunk)),
        }
        cuts.push(ctx);
        cuts.dedup();
        cuts.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }

    /// Scored positions when none are asked for: the second half, or the tokens after the snapshot.
    pub fn default_score(self, ctx: usize) -> Range<usize> {
        match self {
            ReadPath::Snapshot => ctx - (ctx / 2).min(64)..ctx,
            _ => ctx / 2..ctx,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_passage_once() {
        let all = [ReadPath::All, ReadPath::Decode, ReadPath::Snapshot, ReadPath::InForward, ReadPath::Serving];
        for path in all {
            for score in [0..10, 4..10, 4..7] {
                let chunks = path.chunks(10, &score, 3);
                let tokens: Vec<usize> = chunks.into_iter().flatten().collect();
                assert_eq!(tokens, (0..10).collect::<Vec<_>>(), "{path:?} {score:?}");
            }
        }
        assert_eq!(ReadPath::Decode.chunks(10, &(7..10), 3), [0..7, 7..8, 8..9, 9..10]);
        assert_eq!(ReadPath::Snapshot.chunks(10, &(7..9), 3), [0..7, 7..10]);
        assert_eq!(ReadPath::Serving.chunks(7, &(0..7), 3), [0..3, 3..6, 6..7]);
    }
}
