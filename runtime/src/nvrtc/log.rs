//! What ptxas says of each kernel, read from the compile log: the gate on registers, stack and spills.

/// One kernel's use of a thread's and a block's resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// The kernel.
    pub kernel: String,
    /// Registers a thread.
    pub registers: u32,
    /// Bytes of stack a thread.
    pub stack_bytes: u32,
    /// Bytes of registers stored to local memory.
    pub spill_stores: u32,
    /// Bytes of them loaded back.
    pub spill_loads: u32,
    /// Static shared memory a block in bytes.
    pub shared_bytes: u32,
}

impl Resources {
    /// Whether registers overflowed into memory.
    pub fn spills(&self) -> bool {
        self.spill_stores + self.spill_loads > 0
    }
}

/// One entry a kernel that the log of a verbose ptxas names, in its order.
pub fn parse(log: &str) -> Vec<Resources> {
    let mut found: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some(kernel) = between(line, "Compiling entry function '", "'") {
            found.push(Resources { kernel: kernel.to_string(), ..Resources::default() });
        }
        let Some(current) = found.last_mut() else { continue };
        if line.contains("stack frame") {
            current.stack_bytes = number_before(line, " bytes stack frame");
            current.spill_stores = number_before(line, " bytes spill stores");
            current.spill_loads = number_before(line, " bytes spill loads");
        }
        if line.contains("Used ") && line.contains(" registers") {
            current.registers = number_before(line, " registers");
            current.shared_bytes = number_before(line, " bytes smem");
        }
    }
    found
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(before)?;
    rest.split_once(after).map(|(inside, _)| inside)
}

/// The digits that end where `unit` begins; 0 if there are none.
fn number_before(line: &str, unit: &str) -> u32 {
    let Some(end) = line.find(unit) else { return 0 };
    let head = &line[..end];
    let start = head.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |i| i + 1);
    head[start..].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'store' for 'sm_90a'
ptxas info    : Function properties for store
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 4096 bytes smem
ptxas info    : Compiling entry function 'join' for 'sm_90a'
ptxas info    : Function properties for join
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers, 400 bytes cmem[0]";

    #[test]
    fn each_kernel_is_read() {
        let found = parse(LOG);
        let store = Resources { kernel: "store".into(), registers: 40, stack_bytes: 16, spill_stores: 8, spill_loads: 12, shared_bytes: 4096 };
        assert_eq!(found[0], store);
        assert!(found[0].spills());
        assert_eq!(found[1], Resources { kernel: "join".into(), registers: 255, ..Resources::default() });
        assert!(!found[1].spills());
    }

    #[test]
    fn other_text_is_no_kernel() {
        assert_eq!(parse(""), []);
        assert_eq!(parse("Used 3 registers\nptxas warning: é bytes stack frame"), []);
        assert_eq!(parse("Compiling entry function 'a' for\n bytes stack frame Used x registers")[0].registers, 0);
    }
}
