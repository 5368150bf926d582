//! The written pages: they stand alone, hold every row, are well formed, and a browser paints what they say.

mod browser;

use std::path::{Path, PathBuf};

use browser::Picture;
use harness::backend::Choice;
use harness::ppl::{self, Ask, Options, ReadPath, Text};
use harness::report::Report;
use harness::run::Output;
use harness::{assets, audit, compare, seeds, sweep, validate};

fn report(folder: &Path) -> Report {
    let options = Options {
        text: Text { model: assets::BUNDLED_MODEL.into(), corpus: None, passages: 2, ctx: 64, stream: false },
        codec: "bf16,int4,int4:k".into(),
        streams: vec![Ask::Both],
        skip_layers: "0".into(),
        layers: Vec::new(),
        read_path: ReadPath::All,
        chunk: 32,
        score: None,
        calibration: None,
        fit_text: None,
        backend: Choice::Cpu,
        output: Output { out: Some(folder.to_path_buf()), ..Output::default() },
    };
    ppl::run(&options).unwrap()
}

/// Every element that opens closes, in order; the few that never close are left out.
fn assert_well_formed(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in html.split('<').skip(1) {
        let inside = tag.split('>').next().unwrap();
        let name = inside.trim_end_matches('/').split_whitespace().next().unwrap();
        if inside.ends_with('/') || name.starts_with('!') || ["meta", "br"].contains(&name) {
            continue;
        }
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "near <{tag}"),
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
}

#[test]
fn the_page_stands_alone() {
    let folder = temporary("alone");
    std::fs::create_dir_all(&folder).unwrap();
    let mut report = report(&folder);
    report.write(&folder).unwrap();
    let html = std::fs::read_to_string(folder.join("report.html")).unwrap();
    assert_well_formed(&html);
    for part in ["bf16", "int4:k", "CONTROL_int4_misread", &report.model.sha256, &report.corpus.sha256, "prefers-color-scheme"] {
        assert!(html.contains(part), "{part} is missing");
    }
    // nothing is fetched from anywhere
    assert!(!html.contains("http") && !html.contains("url(") && !html.contains("<script"));
    assert_eq!(html.matches("<svg").count(), 6);
    assert!(!html.contains("NaN") && !html.contains("inf"), "a number that is none was drawn");
    let back = Report::read(&folder).unwrap();
    assert_eq!(serde_json::to_value(&back).unwrap(), serde_json::to_value(&report).unwrap());
    report.valid = false;
    report.invalid = vec!["a <control> failed".into()];
    report.write(&folder).unwrap();
    let html = std::fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(html.contains("INVALID") && html.contains("a &lt;control&gt; failed"));
    std::fs::remove_dir_all(folder).unwrap();
}

/// Colours of the style sheet: of the page, of cards, of the text, of an INVALID run, of the codecs.
const PAGE: [u8; 3] = [0xf6, 0xf7, 0xf9];
const CARD: [u8; 3] = [0xff; 3];
const INK: [u8; 3] = [0x16, 0x19, 0x1f];
const WRONG: [u8; 3] = [0xfd, 0xe7, 0xe5];
const CODECS: [[u8; 3]; 3] = [[0x1f, 0x5f, 0xd0], [0xc4, 0x50, 0x0c], [0x15, 0x7f, 0x4f]];

#[test]
fn a_browser_paints_the_report() {
    let Some(browser) = browser::browser() else { return };
    let folder = temporary("painted");
    std::fs::create_dir_all(&folder).unwrap();
    let mut report = report(&folder);
    report.write(&folder).unwrap();
    let page = folder.join("report.html");
    let valid = Picture::of(browser, &page, [1200, 2600]);
    // the ground around one column of cards, over the whole height
    assert!([[2, 2], [1197, 2], [2, 2597], [1197, 2597]].iter().all(|[x, y]| valid.at(*x, *y) == PAGE));
    let (all, card, ink) = (valid.width * valid.height, valid.count(CARD), valid.count(INK));
    assert!((all / 2..all * 9 / 10).contains(&card), "{card} of {all} pixels are card");
    assert!((2_000..all / 10).contains(&ink), "{ink} pixels are text");
    for colour in CODECS {
        let painted = valid.count(colour);
        assert!((300..40_000).contains(&painted), "{painted} pixels of a codec's colour {colour:x?}");
    }
    assert!(valid.colours() > 200, "{} colours", valid.colours());
    // rows that miss their limits warn too, but little
    assert!(valid.count(WRONG) < 10_000, "{} pixels warn", valid.count(WRONG));

    report.valid = false;
    report.invalid = vec!["a control failed".into()];
    report.write(&folder).unwrap();
    let invalid = Picture::of(browser, &page, [1200, 2600]);
    assert!(invalid.count(WRONG) > 30_000, "{} pixels warn", invalid.count(WRONG));
    fits(browser, &page);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_browser_paints_the_other_pages() {
    let Some(browser) = browser::browser() else { return };
    let folder = temporary("others");
    std::fs::create_dir_all(&folder).unwrap();
    let text = Text { model: assets::BUNDLED_MODEL.into(), corpus: None, passages: 2, ctx: 64, stream: false };
    let output = Output::default();
    let swept = sweep::Options { text: text.clone(), codec: "int4,e8w4,e8q38".into(), baseline: "fp8".into(), output: output.clone() };
    sweep::run(&swept).unwrap().write(&folder).unwrap();
    let audited = audit::Options { text, rows: 64, null_draws: 2, shuffles: 2, output };
    audit::run(&audited).unwrap().write(&folder).unwrap();
    let validated = validate::Options { codec: Some("int4,e8w4".into()), d: 128, backend: Choice::Cpu, output: Output::default() };
    validate::run(&validated).unwrap().write(&folder).unwrap();
    report(&folder).write(&folder).unwrap();
    let of = |codec: &str| format!("{}:{codec}", folder.display());
    compare::run(&compare::Options { a: of("bf16"), b: of("int4"), output: Output { out: Some(folder.clone()), ..Output::default() } }).unwrap();
    let cells = seeds::Options { model: assets::BUNDLED_MODEL.into(), corpus: None, fit_text: None, passages: 2, prefix: 512, scored: 16, only: Some("int4,e8w4".into()), backend: Choice::Cpu, output: Output::default() };
    seeds::run(&cells).unwrap().write(&folder).unwrap();
    let pages = [("sweep", CODECS[0], 2), ("audit", CODECS[0], 5), ("validate", CODECS[0], 1), ("compare", INK, 1), ("seeds", INK, 1)];
    for (name, drawn, drawings) in pages {
        let html = std::fs::read_to_string(folder.join(format!("{name}.html"))).unwrap();
        assert_well_formed(&html);
        assert!(html.matches("<svg").count() >= drawings && !html.contains("NaN"), "{name}");
        let page = folder.join(format!("{name}.html"));
        let picture = Picture::of(browser, &page, [1200, 1000]);
        assert_eq!(picture.at(2, 2), PAGE, "{name}");
        assert!(picture.count(CARD) > 200_000 && picture.count(INK) > 1_000, "{name}: {} {}", picture.count(CARD), picture.count(INK));
        assert!(picture.count(drawn) > 150, "{name}: {} pixels of {drawn:x?}", picture.count(drawn));
        fits(browser, &page);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("kvfuse-page-{}-{name}", std::process::id()))
}

/// At the width of a desk and of a phone nothing is wider than the window.
fn fits(browser: &str, page: &Path) {
    let html = std::fs::read_to_string(page).unwrap();
    let script = "<script>document.title = 'wide ' + document.documentElement.scrollWidth + ' of ' + window.innerWidth</script></body>";
    let measured = page.with_file_name("measured.html");
    std::fs::write(&measured, html.replace("</body>", script)).unwrap();
    for width in [1200, 500] {
        let output = browser::run(browser, &measured, [width, 900], "--dump-dom");
        let dom = String::from_utf8_lossy(&output.stdout).into_owned();
        let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap_or_default();
        let numbers: Vec<usize> = title.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [is, window] = numbers[..] else { panic!("the browser said {title:?}") };
        assert!(window <= width && is <= window, "{}: {is} wide in a window of {window}", page.display());
    }
}
