//! From names on the command line to the rows of a table.

use kernels_gen::preset::preset;
use kernels_gen::registry::codec;
use kernels_gen::{kivi, pca};

use super::row_names;
use super::subject::{Ask, Layers, Streams, Subject};
use crate::attention::{Coder, FP8, Published, RAW, Variant};
use crate::calibrate::Without;
use crate::error::{Error, Result};

/// The coder of that name.
pub fn coder(name: &str) -> Result<Coder> {
    if preset(name).is_some() {
        return Err(Error::Usage(format!("{name} is calibrated to a model's layers; only `ppl` runs it")));
    }
    if name.starts_with(row_names::PREFIX) {
        return Err(Error::Usage(format!("{name} stores rows that are key and value at once, as DeepSeek-V4's; this model has none")));
    }
    if let Some(format) = Published::of(name) {
        return Ok(Coder::Published(format));
    }
    if Variant::of_static(name).is_some() || pca::codec(name).is_some() {
        return Err(Error::Usage(format!("{name} is fitted to a model's rows; only `ppl` runs it")));
    }
    if kivi::codec(name).is_some() {
        return Err(Error::Usage(format!("{name} keeps its latest tokens raw; only `ppl` runs it")));
    }
    match name {
        "fp8" => Ok(Coder::Codec(codec(FP8)?)),
        RAW => Ok(Coder::Raw),
        _ => Ok(Coder::Codec(codec(name)?)),
    }
}

/// The coder of that name, calibrated ones too; they get their maps later.
pub fn any_coder(name: &str, without: Option<Without>) -> Result<Coder> {
    if let Some(preset) = preset(name) {
        return Ok(Coder::Preset(Variant::of(preset, without), None));
    }
    if let Some(variant) = Variant::of_static(name) {
        return Ok(Coder::Preset(variant, None));
    }
    if let Some(found) = kivi::open(name) {
        return Ok(Coder::Kivi(found));
    }
    match pca::codec(name) {
        Some(found) => Ok(Coder::Pca(Box::leak(Box::new(found?)), None)),
        None => coder(name),
    }
}

fn only_calibrated(name: &str) -> Error {
    Error::Usage(format!("{name}: only kvfuse codecs have parts to leave out"))
}

/// identity and self first, then every codec with every choice of halves, of layers that stay raw and of layers with a
/// coder of their own, then the control.
pub fn subjects(names: &str, streams: &[Ask], skips: &[usize], layers: &[Layers]) -> Result<Vec<Subject>> {
    let mut subjects = vec![Subject::Identity, Subject::Noise];
    for name in names.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        let (plain, way) = name.split_once(':').map_or((name, None), |(plain, way)| (plain, Some(way)));
        let part = way.and_then(|way| Without::ALL.into_iter().find(|part| part.name() == way));
        let parts: Vec<Option<Without>> = match (preset(plain), way) {
            (Some(_), Some("ablate")) => std::iter::once(None).chain(Without::ALL.map(Some)).collect(),
            (Some(_), _) => vec![part],
            (None, Some("ablate")) => return Err(only_calibrated(name)),
            (None, _) if part.is_some() => return Err(only_calibrated(name)),
            _ => vec![None],
        };
        let fixed = match name.split_once(':') {
            Some((_, "ablate")) => None,
            Some(_) if part.is_some() => None,
            None if name == "identity" || name == "self" => continue,
            None => None,
            Some((_, "sim")) => Some(Streams::Both),
            Some((_, "k")) => Some(Streams::K),
            Some((_, "v")) => Some(Streams::V),
            Some((_, other)) => {
                return Err(Error::Usage(format!(
                    "{name}: {other:?} is no way to run a codec; write :k, :v, :sim or nothing, and {} or :ablate for all \
                     of them behind a kvfuse codec",
                    Without::ALL.map(|part| format!(":{}", part.name())).join(", ")
                )));
            }
        };
        let coders = parts.into_iter().map(|part| any_coder(plain, part)).collect::<Result<Vec<Coder>>>()?;
        // nobody here reads the bytes of these
        let blocks = coders.iter().any(|coder| matches!(coder, Coder::Pca(codec, _) if !pca::pages::has(&codec.name)));
        let whole = if blocks { Streams::Both } else { Streams::Cache };
        let asked = |ask: &Ask| match ask {
            Ask::Both => Ok(whole),
            Ask::K => Ok(Streams::K),
            Ask::V => Ok(Streams::V),
            Ask::Window | Ask::Csa | Ask::Hca => Err(Error::Usage("--streams window, csa or hca: this model caches keys and values; ask for both, k or v".into())),
        };
        let chosen = fixed.map_or_else(|| streams.iter().map(asked).collect::<Result<Vec<_>>>(), |fixed| Ok(vec![fixed]))?;
        for streams in chosen {
            let skipping = skips.iter().map(|skip| (*skip, Layers::default()));
            let settings = skipping.chain(layers.iter().map(|own| (0, *own)));
            for (coder, (skip, own)) in settings.flat_map(|setting| coders.iter().map(move |coder| (*coder, setting))) {
                let subject = Subject::Coded { coder, streams, skip, own };
                if subjects.iter().all(|s| s.name() != subject.name()) {
                    subjects.push(subject);
                }
            }
        }
    }
    let control = subjects.iter().find_map(|s| match s {
        Subject::Coded { coder: Coder::Codec(codec), .. } if codec.exact() => Some(*codec),
        _ => None,
    });
    subjects.push(Subject::Control(Coder::Codec(control.map_or_else(|| codec("int4"), Ok)?)));
    Ok(subjects)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, streams: &[Ask], skips: &[usize]) -> Vec<String> {
        subjects(text, streams, skips, &[]).unwrap().iter().map(Subject::name).collect()
    }

    #[test]
    fn mandatory_rows_surround_the_codecs() {
        assert_eq!(names("bf16", &[Ask::Both], &[0]), ["identity", "self", "bf16", "CONTROL_int4_misread"]);
        assert_eq!(names("e8w4, e8w4,int4:k", &[Ask::Both], &[0]), ["identity", "self", "e8w4", "int4:k", "CONTROL_e8w4_misread"]);
        assert_eq!(names("int4,fp8", &[Ask::Both, Ask::K], &[0, 1])[2..6], ["int4", "int4+skip1", "int4:k", "int4:k+skip1"]);
        assert!(subjects("int4:q", &[Ask::Both], &[0], &[]).unwrap_err().to_string().contains(":sim"));
        assert_eq!(names("pca_v13,pca_b3:k", &[Ask::Both], &[1])[2..4], ["pca_v13:sim+skip1", "pca_b3:k+skip1"]);
        assert_eq!(names("pca_b3_post,pca_b3_post:sim", &[Ask::Both], &[0])[2..4], ["pca_b3_post", "pca_b3_post:sim"]);
        assert_eq!(names("pca_static_4,pca_static_4:sim", &[Ask::Both], &[0])[2..4], ["pca_static_4", "pca_static_4:sim"]);
        assert_eq!(names("kivi_k2v2,kivi_k2v2:sim,kivi_k4v4:v", &[Ask::Both], &[0])[2..5], ["kivi_k2v2", "kivi_k2v2:sim", "kivi_k4v4:v"]);
        assert!(subjects("pca_static_5", &[Ask::Both], &[0], &[]).is_err());
        assert_eq!(subjects("pca_b9", &[Ask::Both], &[0], &[]).unwrap_err().exit_code(), 2);
        assert_eq!(subjects("e8w9", &[Ask::Both], &[0], &[]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn parts_are_left_out_one_by_one() {
        let all = names("kvfuse-4:ablate,kvfuse-4:no-mean,kvfuse-3:k", &[Ask::Both], &[0]);
        let parts = ["no-mean", "no-metric", "no-segments", "no-hadamard", "no-layers", "no-widths"];
        let wanted = parts.map(|part| format!("kvfuse-4:{part}"));
        assert_eq!((&all[2][..], &all[3..9], &all[9][..]), ("kvfuse-4", &wanted[..], "kvfuse-3:k"));
        for name in ["int4:ablate", "int4:no-mean"] {
            assert!(subjects(name, &[Ask::Both], &[0], &[]).unwrap_err().to_string().contains("only kvfuse"));
        }
    }
}
