//! Packed codes become operand registers: load the planes of a lane's code words, call the decoder, place its bytes.

use super::lower::Lower;
use crate::dtype::DType;
use crate::ir::*;
use crate::pack::{planes, tail_planes};

impl Lower {
    /// Registers of the left operand that a packed tile holds.
    pub fn unpack(&mut self, buf: Buf, at: Id, k: Packing, func: usize) -> Vec<Id> {
        match k.feed {
            Feed::Keys => self.keys(buf, at, k, func),
            Feed::Values => self.values(buf, at, k, func),
            Feed::Quads => self.quads(buf, at, k, func),
            Feed::KeyQuads => self.key_quads(buf, at, k, func),
            Feed::KeyTwos => self.key_twos(buf, at, k, func),
        }
    }

    pub(super) fn call(&mut self, func: usize, args: Vec<Id>, results: usize) -> Vec<Id> {
        let outs: Vec<Id> = (0..results).map(|_| self.p.fresh(Ty::Scalar(DType::U32))).collect();
        self.push(Op::Call { func, args }, outs.clone());
        outs
    }

    /// `bits` bits at byte offset `at`, as 32-bit words; `bits` is a power of two from 8 up.
    pub(super) fn bits(&mut self, buf: Buf, at: Id, bits: usize) -> Vec<Id> {
        if bits >= 32 {
            let words = bits / 32;
            let outs: Vec<Id> = (0..words).map(|_| self.p.fresh(Ty::Scalar(DType::U32))).collect();
            self.push(Op::LoadVec { buf, at, words }, outs.clone());
            return outs;
        }
        let loaded = self.emit(Op::Load { buf, at }, if bits == 16 { DType::U16 } else { DType::U8 });
        vec![self.emit(Op::Cast(loaded), DType::U32)]
    }

    /// Byte address and first bit of a lane's run in a tail plane that starts at `base`: rows are whole
    /// bytes, so that both are the same for every row of the lane.
    fn tail_base(&mut self, base: Id, bit: Id) -> (Id, Id) {
        let byte = self.shift(BinOp::Shr, bit, 3);
        let at = self.plus(base, byte);
        let seven = self.int(7);
        let skip = self.bin(BinOp::And, bit, seven);
        (at, self.emit(Op::Cast(skip), DType::U32))
    }

    /// `run` bits of a tail plane in one word: whole bytes are loaded and shifted down. The run of any lane
    /// starts at a multiple of `run`; bytes past a plane's end are read and masked away.
    fn tail(&mut self, buf: Buf, at: Id, skip: Id, run: usize) -> Id {
        let worst = (0..8).map(|i| i * run % 8).max().unwrap_or(0);
        let mut word = self.bits(buf, at, 8)[0];
        for n in 1..(worst + run).div_ceil(8) {
            let next = self.offset(at, n);
            let next = self.bits(buf, next, 8)[0];
            let high = self.shift(BinOp::Shl, next, 8 * n);
            word = self.bin(BinOp::Or, word, high);
        }
        if worst == 0 { word } else { self.bin(BinOp::Shr, word, skip) }
    }

    /// Adds element `q` of width `w` of the loaded words to the code word at bit `first`.
    fn gather(&mut self, code: &mut [Option<Id>; 4], loaded: &[Id], (w, first): (usize, usize), q: usize) {
        if w >= 32 {
            for i in 0..w / 32 {
                code[first / 32 + i] = Some(loaded[q * w / 32 + i]);
            }
            return;
        }
        // One shift brings the element to its place in the code word, one mask cuts it out.
        let mut x = loaded[q * w / 32];
        let (from, to) = (q * w % 32, first % 32);
        if from != to {
            x = if from > to { self.shift(BinOp::Shr, x, from - to) } else { self.shift(BinOp::Shl, x, to - from) };
        }
        let mask = self.konst(DType::U32, ((1_u64 << w) - 1) << to);
        x = self.bin(BinOp::And, x, mask);
        let slot = &mut code[first / 32];
        *slot = Some(match *slot {
            Some(have) => self.bin(BinOp::Or, have, x),
            None => x,
        });
    }

    fn words(&mut self, code: [Option<Id>; 4]) -> Vec<Id> {
        let zero = self.konst(DType::U32, 0);
        code.iter().map(|w| w.unwrap_or(zero)).collect()
    }

    /// Lane (g, t): tokens 4g..4g+3, blocks t*(nb/4)..
    fn keys(&mut self, buf: Buf, at: Id, k: Packing, func: usize) -> Vec<Id> {
        let (nb, results) = (k.blocks(), if k.lane == DType::U8 { 2 } else { 4 });
        let own = nb / 4;
        let steps = own * results / 2;
        let mut regs = vec![0; 2 * steps * 4];
        let shared = self.shared_of_keys(buf, at, k);
        for i in 0..4 {
            let mut codes = vec![[None; 4]; own];
            for plane in planes(k.bits) {
                let (w, first) = plane;
                let base = self.offset(at, 4 * nb * first);
                let loaded = if w >= 8 {
                    let chunk = k.chunk(w);
                    let lane = self.scaled(self.lane, chunk / 8);
                    let mine = self.plus(base, lane);
                    let mut all = vec![];
                    for c in 0..own * w / chunk {
                        let a = self.offset(mine, (c * 32 + i * 8) * 4 * chunk / 8);
                        all.extend(self.bits(buf, a, chunk));
                    }
                    all
                } else {
                    let row = self.scaled(self.g, 4 * nb * w);
                    let part = self.scaled(self.t, own * w);
                    let bit = self.bin(BinOp::Add, row, part);
                    if own * w > 28 {
                        // Too many bits for one word: block by block.
                        for (j, code) in codes.iter_mut().enumerate() {
                            let skip = self.int((j * w) as i64);
                            let bit = self.bin(BinOp::Add, bit, skip);
                            let (first_row, skip) = self.tail_base(base, bit);
                            let a = self.offset(first_row, i * nb * w / 8);
                            let loaded = [self.tail(buf, a, skip, w)];
                            self.gather(code, &loaded, plane, 0);
                        }
                        continue;
                    }
                    let (first_row, skip) = self.tail_base(base, bit);
                    let a = self.offset(first_row, i * nb * w / 8);
                    vec![self.tail(buf, a, skip, own * w)]
                };
                for (j, code) in codes.iter_mut().enumerate() {
                    self.gather(code, &loaded, plane, j);
                }
            }
            for (j, code) in codes.iter_mut().enumerate().filter(|_| k.group.dims > 0) {
                self.gather(code, &shared, (k.group.bits, k.shared_bit()), j * 8 / k.group.dims * 4 + i);
            }
            for (j, code) in codes.into_iter().enumerate() {
                let args = self.words(code);
                for (n, word) in self.call(func, args, results).into_iter().enumerate() {
                    // Two words a step of k; word n % 2 is register pair a0/a1 or a2/a3, row half i % 2.
                    regs[((i / 2) * steps + j * results / 2 + n / 2) * 4 + n % 2 * 2 + i % 2] = word;
                }
            }
        }
        regs
    }

    /// Lane (g, t): tokens 8t..8t+7, blocks g*(nb/8)..
    fn values(&mut self, buf: Buf, at: Id, k: Packing, func: usize) -> Vec<Id> {
        let (nb, results) = (k.blocks(), if k.lane == DType::U8 { 2 } else { 4 });
        let own = nb / 8;
        let mut codes = vec![[None; 4]; 8 * own];
        for plane in planes(k.bits) {
            let (w, first) = plane;
            let base = self.offset(at, 4 * nb * first);
            if w >= 8 {
                let chunk = k.chunk(w);
                let lane = self.scaled(self.lane, chunk / 8);
                let mine = self.plus(base, lane);
                let mut all = vec![];
                for c in 0..nb * w / chunk {
                    let a = self.offset(mine, c * 32 * chunk / 8);
                    all.extend(self.bits(buf, a, chunk));
                }
                for (q, code) in codes.iter_mut().enumerate() {
                    self.gather(code, &all, plane, q);
                }
                continue;
            }
            let row = self.scaled(self.t, 8 * nb * w);
            let part = self.scaled(self.g, own * w);
            let bit = self.bin(BinOp::Add, row, part);
            let (first_row, skip) = self.tail_base(base, bit);
            for e in 0..8 {
                let a = self.offset(first_row, e * nb * w / 8);
                let loaded = [self.tail(buf, a, skip, own * w)];
                for h in 0..own {
                    self.gather(&mut codes[e * own + h], &loaded, plane, h);
                }
            }
        }
        let shared = self.shared_of_values(buf, at, k);
        for (q, code) in codes.iter_mut().enumerate().filter(|_| k.group.dims > 0) {
            self.gather(code, &shared, (k.group.bits, k.shared_bit()), q % own * 8 / k.group.dims * 8 + q / own);
        }
        let words: Vec<Vec<Id>> = codes
            .into_iter()
            .map(|c| {
                let args = self.words(c);
                self.call(func, args, results)
            })
            .collect();
        let mut regs = vec![0; k.d / 16 * results / 2 * 4];
        for h in 0..own {
            if k.lane == DType::U8 {
                for (u, w) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    let four = [0, 1, 2, 3].map(|e| words[(4 * u + e) * own + h][w]);
                    let by_dim = self.transpose_bytes(four);
                    for (x, r) in by_dim.into_iter().enumerate() {
                        let dim = 8 * h + 4 * w + x;
                        regs[dim / 2 * 4 + dim % 2 + 2 * u] = r;
                    }
                }
                continue;
            }
            // 16-bit lanes: pairs of tokens, two dims a word, two steps of k.
            for pair in 0..4 {
                for w in 0..4 {
                    let (a, b) = (words[2 * pair * own + h][w], words[(2 * pair + 1) * own + h][w]);
                    for (x, sel) in [(0, 0x5410), (1, 0x7632)] {
                        let dim = 8 * h + 2 * w + x;
                        let (ks, half) = (pair / 2, pair % 2);
                        regs[(dim / 2 * 2 + ks) * 4 + dim % 2 + 2 * half] = self.prmt(a, b, sel);
                    }
                }
            }
        }
        regs
    }

    /// Lane (g, t): tokens 8t..8t+7 in two fours, blocks g*(nb/8).., bytes already transposed.
    fn quads(&mut self, buf: Buf, at: Id, k: Packing, func: usize) -> Vec<Id> {
        let own = k.blocks() / 8;
        let mut codes = self.quad_codes(buf, at, k).into_iter();
        let mut regs = vec![0; k.d / 16 * 4];
        for u in 0..2 {
            for h in 0..own {
                let code = codes.next().unwrap_or_default();
                for (dim, r) in self.call(func, code, 8).into_iter().enumerate() {
                    let dim = 8 * h + dim;
                    regs[dim / 2 * 4 + dim % 2 + 2 * u] = r;
                }
            }
        }
        regs
    }

    /// A lane's codes of a transposed tile, eight words each.
    pub(super) fn quad_codes(&mut self, buf: Buf, at: Id, k: Packing) -> Vec<Vec<Id>> {
        let bytes = k.bits / 8;
        let words = self.quad_words(buf, at, k);
        let tails = if k.bits % 8 > 0 { self.quad_tails(buf, at, k) } else { vec![] };
        let zero = self.konst(DType::U32, 0);
        (0..k.blocks() / 4)
            .map(|quad| {
                let mut code = words[quad * bytes..][..bytes].to_vec();
                code.extend(tails.get(quad));
                code.resize(8, zero);
                code
            })
            .collect()
    }

    /// The bits that fill no byte, a word for each four codes: see [`Packing::tail_bit`].
    fn quad_tails(&mut self, buf: Buf, at: Id, k: Packing) -> Vec<Id> {
        let mut tails: Vec<Option<Id>> = vec![None; k.blocks() / 4];
        for (w, first) in tail_planes(k.bits) {
            let base = self.offset(at, 4 * k.blocks() * first);
            let fields = if k.feed.of_keys() { self.key_tails(buf, base, k, w) } else { self.value_tails(buf, base, k, w) };
            let mask = self.konst(DType::U32, 0x0101_0101 * ((1 << w) - 1));
            for (tail, x) in tails.iter_mut().zip(fields) {
                let x = self.bin(BinOp::And, x, mask);
                *tail = Some(match *tail {
                    Some(have) => {
                        let x = self.shift(BinOp::Shl, x, first % 8);
                        self.bin(BinOp::Or, have, x)
                    }
                    None => x,
                });
            }
        }
        tails.into_iter().flatten().collect()
    }

    /// Four keys' `w` bits in the lowest bits of each byte, other bits above them.
    fn key_tails(&mut self, buf: Buf, base: Id, k: Packing, w: usize) -> Vec<Id> {
        let nb = k.blocks();
        let group = self.scaled(self.g, nb * w / 2);
        let mut mine = self.plus(base, group);
        if w == 4 {
            let pair = self.shift(BinOp::Shr, self.t, 1);
            let pair = self.scaled(pair, nb);
            mine = self.plus(mine, pair);
        }
        let words = self.run(buf, mine, if w == 1 { nb / 2 } else { nb });
        let lane = if w == 4 {
            let one = self.int(1);
            self.bin(BinOp::And, self.t, one)
        } else {
            self.t
        };
        let skip = self.scaled(lane, w);
        let skip = self.emit(Op::Cast(skip), DType::U32);
        let words: Vec<Id> = words.into_iter().map(|x| self.bin(BinOp::Shr, x, skip)).collect();
        if w > 1 {
            return words;
        }
        let halves = |x: Id, this: &mut Lower| {
            let high = this.shift(BinOp::Shr, x, 4);
            [this.prmt(x, high, 0x5140), this.prmt(x, high, 0x7362)]
        };
        words.into_iter().flat_map(|x| halves(x, self)).collect()
    }

    /// Of four values.
    fn value_tails(&mut self, buf: Buf, base: Id, k: Packing, w: usize) -> Vec<Id> {
        let (nb, own) = (k.blocks(), k.blocks() / 8);
        let whole = own * w / 8;
        let group = self.scaled(self.t, nb * w);
        let mut mine = self.plus(base, group);
        let (byte, skip) = {
            let bit = self.scaled(self.g, own * w);
            let byte = self.shift(BinOp::Shr, bit, 3);
            let seven = self.int(7);
            let skip = self.bin(BinOp::And, bit, seven);
            (self.scaled(byte, 4), self.emit(Op::Cast(skip), DType::U32))
        };
        mine = self.plus(mine, byte);
        let mut fields = vec![];
        for u in 0..2 {
            let a = self.offset(mine, u * nb * w / 2);
            let mut words = self.run(buf, a, 4 * whole.max(1));
            if whole == 0 {
                words[0] = self.bin(BinOp::Shr, words[0], skip);
            }
            for h in 0..own {
                let (word, bit) = (h * w / 8, h * w % 8);
                fields.push(if bit > 0 { self.shift(BinOp::Shr, words[word], bit) } else { words[word] });
            }
        }
        fields
    }

    /// A lane's words of a transposed tile.
    fn quad_words(&mut self, buf: Buf, at: Id, k: Packing) -> Vec<Id> {
        let run = k.quad_words();
        let lane = self.scaled(self.lane, 4 * run);
        let mine = self.plus(at, lane);
        let mut words = vec![];
        for chunk in 0..k.blocks() / 4 * (k.bits / 8) / run {
            let a = self.offset(mine, chunk * 128 * run);
            words.extend(self.bits(buf, a, 32 * run));
        }
        words
    }

    /// Lane (g, t): tokens 4g..4g+3, blocks t*(nb/4).., the same dim of neighbouring blocks side by side along k.
    fn key_quads(&mut self, buf: Buf, at: Id, k: Packing, func: usize) -> Vec<Id> {
        let own = k.blocks() / 4;
        let dims: Vec<Vec<Id>> = self.quad_codes(buf, at, k).into_iter().map(|code| self.call(func, code, 8)).collect();
        let turned: Vec<[Id; 4]> = if own == 1 { [0, 4].map(|x| self.transpose_bytes([0, 1, 2, 3].map(|n| dims[0][x + n]))).to_vec() } else { vec![] };
        let mut regs = vec![0; 8 * own];
        for i in 0..4 {
            let row: Vec<Id> = match own {
                1 => turned.iter().map(|four| four[i]).collect(),
                2 => [0, 2, 4, 6].into_iter().map(|x| self.prmt(dims[i / 2][x], dims[i / 2][x + 1], if i % 2 == 0 { 0x5410 } else { 0x7632 })).collect(),
                _ => (0..2 * own).map(|n| dims[i * own / 4 + n % (own / 4)][n / (own / 4)]).collect(),
            };
            for (n, word) in row.into_iter().enumerate() {
                regs[(i / 2 * own + n / 2) * 4 + n % 2 * 2 + i % 2] = word;
            }
        }
        regs
    }

    /// A lane's run of k, [blocks][8 dims], as [8 dims][blocks].
    pub fn quad_order(&mut self, src: Id) -> Vec<Id> {
        let Ty::Tile { rows, cols, layout, .. } = self.p.ty(src) else { return vec![] };
        let regs = self.tile(src);
        if layout == Layout::MmaB {
            return regs.chunks(rows / 16).flat_map(|run| self.quad_run(run)).collect();
        }
        let steps = cols / 32;
        let mut out = regs.clone();
        for row in 0..rows / 8 {
            let at = |n: usize| (row / 2 * steps + n / 2) * 4 + n % 2 * 2 + row % 2;
            let run: Vec<Id> = (0..2 * steps).map(|n| regs[at(n)]).collect();
            for (n, word) in self.quad_run(&run).into_iter().enumerate() {
                out[at(n)] = word;
            }
        }
        out
    }

    fn quad_run(&mut self, run: &[Id]) -> Vec<Id> {
        let own = run.len() / 2;
        match own {
            1 => run.to_vec(),
            2 => [(0, 0x5140), (0, 0x7362), (1, 0x5140), (1, 0x7362)].map(|(h, sel)| self.prmt(run[h], run[2 + h], sel)).to_vec(),
            _ => {
                let fours: Vec<[Id; 4]> = (0..own / 2).map(|n| self.transpose_bytes([0, 1, 2, 3].map(|b| run[(n / 2 * 4 + b) * 2 + n % 2]))).collect();
                (0..2 * own).map(|n| fours[n % (own / 4) * 2 + n / own][n / (own / 4) % 4]).collect()
            }
        }
    }
}
