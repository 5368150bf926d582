//! What every measuring command shares: where its results go, and how a broken-off run goes on.
//! Finished pieces of work are lines of `progress.jsonl`, each on disk before the next begins.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Error, Result};

#[derive(Clone, Debug, Default, clap::Args)]
pub struct Output {
    /// print json instead of a table
    #[arg(long)]
    pub json: bool,
    /// folder for the report (json, markdown, html) and the progress of the run
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// of everything drawn at random; the same seed gives the same numbers
    #[arg(long, default_value_t = SEED)]
    pub seed: u64,
    /// keep what an earlier run with the same settings finished in --out
    #[arg(long)]
    pub resume: bool,
    /// check everything, say what would be done, do nothing
    #[arg(long)]
    pub dry_run: bool,
}

pub const SEED: u64 = 20_260_101;
const PROGRESS: &str = "progress.jsonl";

impl Output {
    /// The folder, made if needed; `--resume` without one is a mistake.
    pub fn folder(&self) -> Result<Option<&Path>> {
        if self.resume && self.out.is_none() {
            return Err(Error::Usage("--resume goes on in a folder: give the --out of the earlier run".into()));
        }
        if let Some(out) = &self.out {
            std::fs::create_dir_all(out).map_err(Error::writing(out))?;
        }
        Ok(self.out.as_deref())
    }
}

/// Finished pieces of a run by name.
pub struct Journal {
    file: Option<(PathBuf, File)>,
    done: HashMap<String, Value>,
}

impl Journal {
    /// `settings` is all that the numbers depend on; a run with others is not continued.
    pub fn open(output: &Output, settings: &Value) -> Result<Journal> {
        let Some(folder) = output.folder()? else { return Ok(Journal { file: None, done: HashMap::new() }) };
        let path = folder.join(PROGRESS);
        let mut done = HashMap::new();
        let mut kept = vec![json!({ "settings": settings })];
        if output.resume && path.exists() {
            let text = std::fs::read_to_string(&path).map_err(Error::reading(&path))?;
            // a line that was cut off by the end of a run does not parse, and its piece is done again
            let lines: Vec<Value> = text.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
            if let Some(differing) = lines.first().and_then(|first| differing(&first["settings"], settings)) {
                return Err(Error::Usage(format!("{} belongs to a run with another {differing}; repeat that run's options, or leave out --resume", path.display())));
            }
            for line in lines.into_iter().skip(1) {
                if let Some(name) = line["piece"].as_str() {
                    done.insert(name.to_string(), line["found"].clone());
                    kept.push(line);
                }
            }
        }
        let mut file = File::create(&path).map_err(Error::writing(&path))?;
        for line in kept {
            writeln!(file, "{line}").map_err(Error::writing(&path))?;
        }
        file.sync_data().map_err(Error::writing(&path))?;
        Ok(Journal { file: Some((path, file)), done })
    }

    pub fn get<T: DeserializeOwned>(&self, piece: &str) -> Option<T> {
        serde_json::from_value(self.done.get(piece)?.clone()).ok()
    }

    pub fn put<T: Serialize>(&mut self, piece: &str, found: &T) -> Result<()> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let line = json!({ "piece": piece, "found": found });
        writeln!(file, "{line}").and_then(|()| file.sync_data()).map_err(Error::writing(path))
    }
}

/// Name of the first setting in which two runs differ.
fn differing(theirs: &Value, ours: &Value) -> Option<String> {
    let names = ours.as_object()?.keys();
    names.into_iter().find(|name| theirs[name.as_str()] != ours[name.as_str()]).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_goes_on_where_it_was_cut() {
        let out = std::env::temp_dir().join(format!("kvfuse-journal-{}", std::process::id()));
        let fresh = Output { out: Some(out.clone()), ..Output::default() };
        let resumed = Output { resume: true, ..fresh.clone() };
        let settings = json!({"ctx": 64, "model": "a"});
        let number = 0.1_f64 + 0.2;
        Journal::open(&fresh, &settings).unwrap().put("one", &number).unwrap();
        let path = out.join(PROGRESS);
        let text = std::fs::read_to_string(&path).unwrap() + "{\"piece\": \"two\", \"fou";
        std::fs::write(&path, text).unwrap();
        let journal = Journal::open(&resumed, &settings).unwrap();
        assert_eq!((journal.get::<f64>("one"), journal.get::<f64>("two")), (Some(number), None));
        let why = Journal::open(&resumed, &json!({"ctx": 65, "model": "a"})).err().unwrap().to_string();
        assert!(why.contains("another ctx"), "{why}");
        assert_eq!(Journal::open(&fresh, &settings).unwrap().get::<f64>("one"), None);
        assert!(Output { out: None, ..resumed }.folder().is_err());
        std::fs::remove_dir_all(out).unwrap();
    }
}
