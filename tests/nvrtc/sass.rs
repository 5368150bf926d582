//! What nvdisasm prints, read back: the instructions of a kernel, and the loop that does its work.

/// One machine instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    pub at: u32,
    /// `IMAD.IADD`, without the predicate before it.
    pub op: String,
    /// Where a branch goes.
    pub target: Option<u32>,
}

/// The instructions of the first function of a listing (`nvdisasm -c`), without the padding after its end.
pub fn read(listing: &str) -> Vec<Instruction> {
    let mut labels = std::collections::BTreeMap::new();
    let (mut waiting, mut found): (Vec<&str>, Vec<(u32, &str)>) = (vec![], vec![]);
    for line in listing.lines() {
        let line = line.trim();
        if let Some(label) = line.strip_prefix('.').and_then(|l| l.strip_suffix(':')).filter(|l| l.starts_with("L_")) {
            waiting.push(label);
        } else if let Some((at, text)) = instruction(line) {
            // A second function starts at 0 again.
            if at == 0 && !found.is_empty() {
                break;
            }
            labels.extend(waiting.drain(..).map(|label| (label, at)));
            found.push((at, text));
        }
    }
    let of = |(at, text): &(u32, &str)| {
        let op = text.split_whitespace().find(|word| !word.starts_with('@'))?.to_string();
        let target = text.split_once("`(.").and_then(|(_, rest)| labels.get(rest.split(')').next()?).copied());
        Some(Instruction { at: *at, target: target.filter(|_| op.starts_with("BRA")), op })
    };
    let mut all: Vec<Instruction> = found.iter().filter_map(of).collect();
    let end = all.iter().rposition(|i| i.op != "NOP" && !(i.op == "BRA" && i.target == Some(i.at)));
    all.truncate(end.map_or(0, |end| end + 1));
    all
}

/// `/*01c0*/  @P0 BRA ...` as an address and the text.
fn instruction(line: &str) -> Option<(u32, &str)> {
    let (at, text) = line.strip_prefix("/*")?.split_once("*/")?;
    Some((u32::from_str_radix(at, 16).ok()?, text.trim().trim_end_matches(';').trim()))
}

/// A loop's instructions: those that every turn passes, those that a branch inside the loop may jump over, and, of a loop over the tiles of a copy,
/// what every copy passes around it.
pub struct Turns<'a> {
    pub always: Vec<&'a Instruction>,
    pub sometimes: Vec<&'a Instruction>,
    pub around: Vec<&'a Instruction>,
}

/// The least loop that holds a bulk copy and products of the tensor core, without copies the least that holds all products that loops
/// hold; the loop inside it that holds all of its products, if there is one. None without such a loop.
pub fn main_loop(all: &[Instruction]) -> Option<Turns<'_>> {
    let loops = all.iter().filter_map(|i| Some((i.target.filter(|to| *to < i.at)?, i.at)));
    let count = |from: u32, to: u32, op: &str| all.iter().filter(|i| (from..=to).contains(&i.at) && i.op.contains(op)).count();
    let best = loops.map(|(from, to)| (count(from, to, "UBLKCP") > 0, count(from, to, "MMA."), from, to)).filter(|l| l.1 > 0);
    let (_, _, from, to) = best.max_by_key(|&(copies, products, from, to)| (copies, if copies { 0 } else { products }, std::cmp::Reverse(to - from)))?;
    // What a turn passes from `from` to `to`, and what it may not.
    let parted = |from: u32, to: u32| -> (Vec<&Instruction>, Vec<&Instruction>) {
        let inside: Vec<&Instruction> = all.iter().filter(|i| (from..=to).contains(&i.at)).collect();
        let jumps: Vec<(u32, u32)> = inside.iter().filter_map(|i| Some((i.at, i.target.filter(|t| *t > i.at && *t <= to)?))).collect();
        inside.into_iter().partition(|i| !jumps.iter().any(|&(at, target)| at < i.at && i.at < target))
    };
    let (always, sometimes) = parted(from, to);
    let within = all.iter().filter_map(|i| Some((i.target.filter(|t| from < *t && *t < i.at && i.at < to)?, i.at)));
    let Some((first, last)) = within.filter(|l| count(l.0, l.1, "MMA.") == count(from, to, "MMA.")).min_by_key(|l| l.1 - l.0) else {
        return Some(Turns { always, sometimes, around: vec![] });
    };
    let (own, jumped) = parted(first, last);
    let outside = |i: &&Instruction| !(first..=last).contains(&i.at);
    Some(Turns { always: own, sometimes: jumped.into_iter().chain(sometimes.into_iter().filter(outside)).collect(), around: always.into_iter().filter(outside).collect() })
}

#[test]
fn a_listing_is_read() {
    let text = "
        .text.k:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_2:
.L_x_9:
        /*0010*/                   IMMA.16832.U8.S8 R4, R4.ROW, R2.COL, RZ ;
        /*0020*/              @!P0 BRA `(.L_x_1) ;
        /*0030*/                   FMUL R3, R3, R3 ;
.L_x_1:
.L_x_3:
        /*0040*/                   IADD3 R3, R3, R3, RZ ;
        /*0050*/               @P1 BRA P3, `(.L_x_3) ;
        /*0060*/               @P2 BRA `(.L_x_2) ;
        /*0070*/                   EXIT ;
.L_x_4:
        /*0080*/                   BRA `(.L_x_4);
        /*0090*/                   NOP;
        .text.other:
        /*0000*/                   NOP ;";
    let all = read(text);
    assert_eq!(all.len(), 8);
    assert_eq!((all[2].op.as_str(), all[2].target), ("BRA", Some(0x40)));
    let Turns { always, sometimes, around } = main_loop(&all).expect("it has a loop");
    assert!(around.is_empty());
    let ops = |part: &[&Instruction]| part.iter().map(|i| i.op.clone()).collect::<Vec<_>>();
    assert_eq!(ops(&always), ["IMMA.16832.U8.S8", "BRA", "IADD3", "BRA", "BRA"]);
    assert_eq!(ops(&sometimes), ["FMUL"]);
    assert!(main_loop(&all[2..]).is_none());
    // Products before the loop over copies, and in a loop around both, are not its own.
    let at = |at: u32, op: &str, target: Option<u32>| Instruction { at, op: op.into(), target };
    let all = [at(0, "IMMA.16832", None), at(16, "IMMA.16832", None), at(32, "BRA", Some(16)), at(48, "UBLKCP", None), at(64, "IMMA.16832", None), at(80, "BRA", Some(48)), at(96, "BRA", Some(0))];
    let places = |part: &[&Instruction]| part.iter().map(|i| i.at).collect::<Vec<_>>();
    assert_eq!(places(&main_loop(&all).expect("it has a loop").always), [48, 64, 80]);
    // A loop over the tiles of a copy: its turns are counted, what stands around them apart. A branch may jump over all of it.
    let all = [at(0, "UBLKCP", None), at(16, "BRA", Some(96)), at(32, "IMMA.16832", None), at(48, "BRA", Some(80)), at(64, "FMUL", None), at(80, "BRA", Some(32)), at(96, "BRA", Some(0))];
    let found = main_loop(&all).expect("it has a loop");
    assert_eq!((places(&found.always), places(&found.sometimes), places(&found.around)), (vec![32, 48, 80], vec![64], vec![0, 16, 96]));
}
