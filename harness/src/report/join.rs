//! `report`: several runs as one document. Runs of other texts or models stand beside each other, marked as such;
//! what is compared number by number is the work of `compare`.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::json;

use super::{Report, html, markdown, write_files};
use crate::error::{Error, Result};
use crate::run::Output;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// report.json files of `ppl`, or the folders that hold them
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

/// What was joined; files go to --out.
pub struct Joined {
    reports: Vec<Report>,
    warnings: Vec<String>,
}

pub fn run(options: &Options) -> Result<Joined> {
    let reports = options.runs.iter().map(|path| Report::read(path)).collect::<Result<Vec<_>>>()?;
    let mut warnings = Vec::new();
    for (index, report) in reports.iter().enumerate().skip(1) {
        let first = &reports[0];
        let differs = [
            ("the model", first.model.sha256 == report.model.sha256),
            ("the passages", first.corpus.sha256 == report.corpus.sha256),
            ("the scored positions", first.corpus.score == report.corpus.score && first.corpus.ctx == report.corpus.ctx),
            ("the number of passages", first.corpus.passages == report.corpus.passages),
            ("the read path", first.read_path == report.read_path),
        ];
        let differs: Vec<&str> = differs.iter().filter(|(_, same)| !same).map(|(what, _)| *what).collect();
        if !differs.is_empty() {
            warnings.push(format!("run {} differs from run 1 in {}: do not compare their rows", index + 1, differs.join(", ")));
        }
    }
    let joined = Joined { reports, warnings };
    if let (Some(folder), false) = (options.output.folder()?, options.output.dry_run) {
        write_files(folder, "report", &joined.json()?, &joined.markdown(), &html::document(&joined.reports, &joined.warnings))?;
        eprintln!("wrote {}", folder.join("report.html").display());
    }
    Ok(joined)
}

impl Joined {
    pub fn json(&self) -> Result<String> {
        // one run stays what it is, so that it can be read again
        let value = match &self.reports[..] {
            [one] => serde_json::to_value(one),
            many => serde_json::to_value(json!({ "kind": "report", "warnings": self.warnings, "runs": many })),
        };
        value.and_then(|value| serde_json::to_string_pretty(&value)).map_err(|e| Error::Data(format!("the report cannot be written as json: {e}")))
    }

    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            let _ = writeln!(text, "**{warning}**\n");
        }
        self.reports.iter().for_each(|report| text += &markdown::document(report));
        text
    }

    pub fn summary(&self) -> String {
        let mut text = self.warnings.iter().map(|w| format!("warning: {w}\n")).collect::<String>();
        self.reports.iter().for_each(|report| text += &format!("{}\n", report.summary()));
        text
    }

    /// Fails if any of the runs was invalid.
    pub fn check(&self) -> Result<()> {
        self.reports.iter().try_for_each(Report::check)
    }
}
