//! The names NVRTC knows devices by.

use std::fmt;

/// A compile target, from a device's compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arch {
    major: i32,
    minor: i32,
}

impl Arch {
    /// Hopper: H100, H200.
    pub const SM_90A: Arch = Arch { major: 9, minor: 0 };
    /// Ampere: A100, the oldest the kernels are written for (they use cp.async and bf16 mma).
    pub const SM_80: Arch = Arch { major: 8, minor: 0 };

    /// From a compute capability.
    pub const fn new(major: i32, minor: i32) -> Self {
        Arch { major, minor }
    }

    /// The target as NVRTC spells it. From 9.0 on the `a` is what unlocks a generation's own instructions.
    pub fn name(self) -> String {
        format!("sm_{}{}{}", self.major, self.minor, if self.major >= 9 { "a" } else { "" })
    }

    /// Parses `sm_90a`, `sm_86`, ...
    pub fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_prefix("sm_")?.trim_end_matches('a');
        let number: i32 = digits.parse().ok().filter(|n| (10..1000).contains(n))?;
        let arch = Arch { major: number / 10, minor: number % 10 };
        (arch.name() == name).then_some(arch)
    }

    /// Bytes of shared memory that one block may have on a device of it; what a device says of itself counts more.
    pub fn shared_bytes(self) -> usize {
        let kib = match (self.major, self.minor) {
            (8, 0 | 7) => 163,
            (8, _) | (12, _) => 99,
            _ => 227,
        };
        kib * 1024
    }

    /// Whether our kernels are written for it.
    pub fn served(self) -> bool {
        self >= Arch::SM_80
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_compute_capability() {
        let known = [(8, 0, "sm_80"), (8, 6, "sm_86"), (8, 9, "sm_89"), (9, 0, "sm_90a"), (10, 0, "sm_100a"), (12, 0, "sm_120a")];
        for (major, minor, name) in known {
            assert_eq!(Arch::new(major, minor).name(), name);
            assert_eq!(Arch::parse(name), Some(Arch::new(major, minor)));
        }
        for bad in ["", "sm_", "sm_9", "sm_90", "sm_80a", "compute_90", "sm_-80", "sm_99999999999"] {
            assert_eq!(Arch::parse(bad), None, "{bad}");
        }
        assert!(!Arch::new(7, 5).served() && Arch::SM_90A.served());
    }
}
