//! The written page: it stands alone, holds every row, is well formed, and a browser draws it.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::assets;
use harness::backend::Choice;
use harness::ppl::{self, Ask, Options, ReadPath, Text};
use harness::report::Report;
use harness::run::Output;

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
    let folder = std::env::temp_dir().join(format!("kvfuse-page-{}", std::process::id()));
    let mut report = report(&folder);
    report.write(&folder).unwrap();
    let html = std::fs::read_to_string(folder.join("report.html")).unwrap();
    assert_well_formed(&html);
    for part in
        ["bf16", "int4:k", "CONTROL_int4_misread", &report.model.sha256, &report.corpus.sha256, "prefers-color-scheme"]
    {
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
    draw(&folder);
    std::fs::remove_dir_all(folder).unwrap();
}

fn browser() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
}

/// At the width of a desk and of a phone nothing is wider than the window.
fn draw(folder: &Path) {
    let Some(browser) = browser() else {
        println!("SKIPPED: no browser to draw the page; install chromium");
        return;
    };
    let page = folder.join("report.html");
    let html = std::fs::read_to_string(&page).unwrap();
    let script = "<script>document.title = 'wide ' + document.documentElement.scrollWidth + ' of ' + window.innerWidth</script></body>";
    std::fs::write(&page, html.replace("</body>", script)).unwrap();
    for width in [1200, 500] {
        let profile: PathBuf = folder.join("profile");
        let output = Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--disable-quic", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("--window-size={width},900"))
            .arg(format!("file://{}", page.display()))
            .output()
            .unwrap();
        let dom = String::from_utf8_lossy(&output.stdout).into_owned();
        let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap_or_default();
        let numbers: Vec<usize> = title.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [is, window] = numbers[..] else { panic!("the browser said {title:?}") };
        assert!(window <= width && is <= window, "the page is {is} wide in a window of {window}");
    }
}
