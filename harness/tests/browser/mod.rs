//! A page as a browser paints it: the picture, and what colours are in it.

use std::path::Path;
use std::process::{Command, Output};

/// None, with the reason printed, where there is no browser. KVF_REQUIRE_BROWSER=1 makes that a failure.
pub fn browser() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let runs = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    let found = names.into_iter().find(runs);
    if found.is_none() {
        assert!(std::env::var_os("KVF_REQUIRE_BROWSER").is_none(), "a browser is required here");
        println!("SKIPPED pages in a browser: there is none; install chromium");
    }
    found
}

/// Runs it on a page; nothing is fetched, nothing is kept.
pub fn run(browser: &str, page: &Path, [width, height]: [usize; 2], task: &str) -> Output {
    let profile = page.with_extension("profile");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--disable-quic", "--hide-scrollbars"])
        .arg("--force-device-scale-factor=1")
        .arg(task)
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--window-size={width},{height}"))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let _ = std::fs::remove_dir_all(profile);
    output
}

pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// [row, column, red green blue]
    pixels: Vec<u8>,
}

impl Picture {
    /// What the browser paints of a page in a window of that size.
    pub fn of(browser: &str, page: &Path, size: [usize; 2]) -> Picture {
        let file = page.with_extension("png");
        let output = run(browser, page, size, &format!("--screenshot={}", file.display()));
        let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("no picture: {e}; {}", String::from_utf8_lossy(&output.stderr)));
        let picture = Picture::read(&bytes);
        assert_eq!([picture.width, picture.height], size, "the picture has the window's size");
        picture
    }

    /// A PNG of 8 bits a channel, not interlaced.
    pub fn read(bytes: &[u8]) -> Picture {
        assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let (width, height, channels) = (number(16), number(20), if bytes[25] == 6 { 4 } else { 3 });
        assert!(bytes[24] == 8 && [2, 6].contains(&bytes[25]) && bytes[28] == 0, "another kind of PNG");
        let (mut packed, mut at) = (Vec::new(), 8);
        while at < bytes.len() {
            if &bytes[at + 4..at + 8] == b"IDAT" {
                packed.extend_from_slice(&bytes[at + 8..][..number(at)]);
            }
            at += 12 + number(at);
        }
        let lines = miniz_oxide::inflate::decompress_to_vec_zlib(&packed).unwrap();
        let stride = width * channels;
        let mut before = vec![0_u8; stride];
        let mut pixels = Vec::with_capacity(3 * width * height);
        for line in lines.chunks_exact(stride + 1) {
            let line = unfiltered(line[0], &line[1..], &before, channels);
            pixels.extend(line.chunks_exact(channels).flat_map(|pixel| &pixel[..3]));
            before = line;
        }
        Picture { width, height, pixels }
    }

    pub fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let from = 3 * (y * self.width + x);
        [self.pixels[from], self.pixels[from + 1], self.pixels[from + 2]]
    }

    /// Pixels of a colour, within 2 of each channel.
    pub fn count(&self, colour: [u8; 3]) -> usize {
        let near = |pixel: &&[u8]| pixel.iter().zip(colour).all(|(a, b)| a.abs_diff(b) <= 2);
        self.pixels.chunks_exact(3).filter(near).count()
    }

    /// Different colours.
    pub fn colours(&self) -> usize {
        let all = self.pixels.chunks_exact(3).map(|p| (p[0], p[1], p[2]));
        all.collect::<std::collections::HashSet<_>>().len()
    }
}

fn unfiltered(filter: u8, line: &[u8], before: &[u8], channels: usize) -> Vec<u8> {
    let mut out = vec![0_u8; line.len()];
    for i in 0..line.len() {
        let left = if i >= channels { i32::from(out[i - channels]) } else { 0 };
        let (up, corner) = (i32::from(before[i]), if i >= channels { i32::from(before[i - channels]) } else { 0 });
        let guess = match filter {
            0 => 0,
            1 => left,
            2 => up,
            3 => (left + up) / 2,
            4 => {
                let wish = left + up - corner;
                [left, up, corner].into_iter().min_by_key(|v| (wish - v).abs()).unwrap()
            }
            other => panic!("PNG filter {other}"),
        };
        out[i] = line[i].wrapping_add(guess as u8);
    }
    out
}
