//! Models from the Hugging Face hub, kept where its own tools keep them. Built only with the feature `hub`: the rest
//! of the harness needs no network and no TLS.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// Folder of `OWNER/NAME` or `OWNER/NAME@REVISION` with its config.json and safetensors, fetched where they are not there yet.
/// Errors: a name of another form, a file that cannot be fetched, a model without safetensors.
pub fn fetch(name: &str) -> Result<PathBuf> {
    let (repo, revision) = name.split_once('@').unwrap_or((name, "main"));
    let parts: Vec<&str> = repo.split('/').collect();
    if parts.len() != 2 || parts.iter().any(|part| part.is_empty()) || revision.is_empty() {
        return Err(Error::Usage(format!("hub:{name} is no model of the hub; write hub:OWNER/NAME or hub:OWNER/NAME@REVISION")));
    }
    files(repo, revision)
}

#[cfg(feature = "hub")]
fn files(repo: &str, revision: &str) -> Result<PathBuf> {
    use hf_hub::{Cache, Repo, RepoType, api::sync::ApiBuilder};

    let failed = |what: &str, why: String| Error::Data(format!("cannot fetch {what} of {repo} at {revision}: {why}"));
    let wish = || Repo::with_revision(repo.into(), RepoType::Model, revision.into());
    let api = ApiBuilder::from_env().build().map_err(|e| failed("anything", e.to_string()))?;
    let model = api.repo(wish());
    let listed = match model.info() {
        Ok(listed) => listed,
        // without the hub, what an earlier run fetched serves; a shard that is missing is named when it is read
        Err(why) => {
            let kept = Cache::from_env().repo(wish()).get("config.json");
            let folder = kept.and_then(|config| Some(config.parent()?.to_path_buf()));
            return folder.ok_or_else(|| failed("the list of files", why.to_string()));
        }
    };
    let wanted = |name: &str| name.ends_with(".safetensors") || name == "model.safetensors.index.json";
    let tensors: Vec<String> = listed.siblings.into_iter().map(|file| file.rfilename).filter(|name| wanted(name)).collect();
    if tensors.is_empty() {
        return Err(failed("weights", "it has no safetensors; convert them, or choose another model".into()));
    }
    for name in &tensors {
        model.get(name).map_err(|e| failed(name, e.to_string()))?;
    }
    let config = model.get("config.json").map_err(|e| failed("config.json", e.to_string()))?;
    Ok(config.parent().unwrap_or(&config).to_path_buf())
}

#[cfg(not(feature = "hub"))]
fn files(repo: &str, revision: &str) -> Result<PathBuf> {
    Err(Error::Usage(format!("this harness was built without the hub; build it with `cargo build --release -p harness --features hub`, or fetch {repo} at {revision} yourself and give its folder")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_another_form_are_told_so() {
        for name in ["", "qwen", "a/b/c", "a/", "/b", "a/b@"] {
            let text = fetch(name).unwrap_err().to_string();
            assert!(text.contains("OWNER/NAME"), "{name}: {text}");
        }
    }
}
