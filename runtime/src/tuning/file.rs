//! A tuning as text: a version, a device, an entry a line. Written by programs, fit to be read by people.

use std::fmt;

use super::{Choice, Entry, Point, Tuning};

/// Files of another version are refused.
const HEAD: &str = "kvfuse tuning 1";

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}\ndevice {}", self.device)?;
        writeln!(f, "# kernel | hash of its text | rows (sequences x kv heads), tokens | warps, stages, min_blocks, most tokens of a warp (0: the plan's rule) | us, us by the plan's rules")?;
        self.entries.iter().try_for_each(|e| {
            let Choice { warps, stages, min_blocks, tokens } = e.choice;
            writeln!(f, "{} | {} | {} {} | {warps} {stages} {min_blocks} {tokens} | {:.1} {:.1}", e.kernel, e.hash, e.at.rows, e.at.tokens, e.us, e.own_us)
        })
    }
}

impl Tuning {
    /// The inverse of `Display`; the error names the line.
    pub fn parse(text: &str) -> Result<Tuning, String> {
        let mut lines = text.lines().enumerate().filter(|(_, l)| !l.starts_with('#') && !l.trim().is_empty());
        match lines.next() {
            Some((_, HEAD)) => {}
            Some((_, other)) if other.starts_with("kvfuse tuning") => return Err(format!("its version is `{other}`, this library reads `{HEAD}`; tune again")),
            _ => return Err(format!("its first line is not `{HEAD}`")),
        }
        let device = lines.next().and_then(|(_, l)| l.strip_prefix("device ")).ok_or("its second line is not `device NAME`")?;
        let entries = lines.map(|(i, l)| entry(l).ok_or_else(|| format!("line {} cannot be read: `{l}`", i + 1)));
        Ok(Tuning { device: device.trim().to_string(), entries: entries.collect::<Result<_, String>>()? })
    }
}

fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split('|').map(str::trim);
    let mut text = || fields.next().filter(|f| !f.is_empty());
    let (kernel, hash) = (text()?.to_string(), text()?.to_string());
    let [rows, tokens] = numbers(text()?)?;
    let [warps, stages, min_blocks, share] = numbers(text()?)?;
    let [us, own_us] = numbers(text()?)?;
    // What no kernel can be built with is no entry.
    let sound = [1, 2, 4, 8].contains(&warps) && (2..=8).contains(&stages) && (1..=32).contains(&min_blocks) && rows > 0 && tokens > 0;
    let choice = Choice { warps, stages, min_blocks, tokens: share };
    (sound && fields.next().is_none()).then_some(Entry { kernel, hash, at: Point { rows, tokens }, choice, us, own_us })
}

fn numbers<T: std::str::FromStr, const N: usize>(text: &str) -> Option<[T; N]> {
    let all = text.split_whitespace().map(|w| w.parse().ok()).collect::<Option<Vec<T>>>()?;
    all.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Tuning {
        let choice = Choice { warps: 8, stages: 2, min_blocks: 2, tokens: 1024 };
        let entry = Entry { kernel: "decode int4 d128 group4 page64 bf16".into(), hash: "0123456789abcdef".into(), at: Point { rows: 256, tokens: 8192 }, choice, us: 77.5, own_us: 79.1 };
        Tuning { device: "NVIDIA H200".into(), entries: vec![entry] }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Tuning::parse(&one().to_string()), Ok(one()));
        let mut two = one();
        two.merge(Tuning { entries: vec![Entry { us: 70.0, ..one().entries[0].clone() }], ..one() });
        assert_eq!((two.entries.len(), two.entries[0].us), (1, 70.0));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let says = |text: &str, words: &str| {
            let why = Tuning::parse(text).unwrap_err();
            assert!(why.contains(words), "{why}");
        };
        says("", "first line");
        says("kvfuse tuning 2\ndevice X\n", "version is `kvfuse tuning 2`");
        says("kvfuse tuning 1\nX\n", "second line");
        let good = one().to_string();
        for (from, to) in [("| 8 2 2 1024", "| 8 2 2"), ("| 8 2 2 1024", "| 0 2 2 1024"), ("| 8 2 2 1024", "| 8 9999 2 1024"), ("256 8192", "-1 8192"), ("77.5", "x"), ("77.5 79.1", "77.5 79.1 | 1")] {
            says(&good.replace(from, to), "line 4 cannot be read");
        }
    }
}
