//! Names on the command line for models that cache rows which serve all heads: formats of rows, kinds of rows.

use kernels_gen::latent;

use super::names;
use super::subject::{Ask, Layers, Streams, Subject};
use crate::attention::{Coder, Kinds};
use crate::error::{Error, Result};
use crate::model::v4::RowKind;

/// What engines store of such a row.
const ENGINES: &str = "v4_fp8";
/// Before the name of every format of rows.
pub const PREFIX: &str = "v4_";

pub const DEFAULT_CODECS: &str = "v4_bf16,v4_fp8,v4_mxfp4,v4_int4_int8,v4_e8w4_int8,v4_e8q38_int8,v4_fp8:window,v4_fp8:csa,v4_fp8:hca";

/// A format of rows, or a codec of 512 numbers.
pub fn coder(name: &str) -> Result<Coder> {
    let name = if name == "fp8" { ENGINES } else { name };
    if !name.starts_with(PREFIX) {
        return names::coder(name);
    }
    let format = latent::format(name).map_err(|e| Error::Usage(e.to_string()))?;
    Ok(Coder::Latent(Box::leak(Box::new(format))))
}

/// identity and self first, then every codec with every choice of kinds, then the control.
pub fn subjects(codecs: &str, streams: &[Ask]) -> Result<Vec<Subject>> {
    let mut subjects = vec![Subject::Identity, Subject::Noise];
    for name in codecs.split(',').map(str::trim).filter(|n| !n.is_empty() && !["identity", "self"].contains(n)) {
        let (plain, kinds) = match name.split_once(':') {
            Some((plain, named)) => (plain, vec![kinds(name, named)?]),
            None => (name, streams.iter().map(asked).collect::<Result<_>>()?),
        };
        let coder = coder(plain)?;
        for kinds in kinds {
            let subject = Subject::Coded { coder, streams: Streams::Rows(kinds), skip: 0, own: Layers::default() };
            if subjects.iter().all(|s| s.name() != subject.name()) {
                subjects.push(subject);
            }
        }
    }
    let first = subjects.iter().find_map(|s| match s {
        Subject::Coded { coder, .. } if !matches!(coder, Coder::Raw) => Some(*coder),
        _ => None,
    });
    subjects.push(Subject::Control(first.map_or_else(|| coder(ENGINES), Ok)?));
    Ok(subjects)
}

/// One or more kinds, as `window+csa`.
fn kinds(name: &str, named: &str) -> Result<Kinds> {
    let mut kinds = Kinds([false; 3]);
    for part in named.split('+') {
        let kind = RowKind::ALL.into_iter().find(|kind| kind.name() == part);
        let why = || Error::Usage(format!("{name}: {part:?} is no kind of row; write :window, :csa, :hca, two of them with + between, or nothing"));
        kinds.0[kind.ok_or_else(why)? as usize] = true;
    }
    Ok(kinds)
}

fn asked(ask: &Ask) -> Result<Kinds> {
    match ask {
        Ask::Both => Ok(Kinds::ALL),
        Ask::Window => Ok(Kinds::only(RowKind::Window)),
        Ask::Csa => Ok(Kinds::only(RowKind::Csa)),
        Ask::Hca => Ok(Kinds::only(RowKind::Hca)),
        Ask::K | Ask::V => Err(Error::Usage("--streams k or v: a row of this model is key and value at once; ask for both, window, csa or hca".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(codecs: &str, streams: &[Ask]) -> Vec<String> {
        subjects(codecs, streams).unwrap().iter().map(Subject::name).collect()
    }

    #[test]
    fn mandatory_rows_surround_the_formats() {
        assert_eq!(named("fp8,v4_fp8", &[Ask::Both]), ["identity", "self", "v4_fp8", "CONTROL_v4_fp8_misread"]);
        assert_eq!(named("v4_mxfp4,e8q38:csa+hca", &[Ask::Both, Ask::Hca])[2..5], ["v4_mxfp4", "v4_mxfp4:hca", "e8q38:csa+hca"]);
        for (codecs, streams, why) in [("v4_fp8:k", Ask::Both, "no kind of row"), ("v4_fp8", Ask::K, "key and value at once"), ("v4_fp9", Ask::Both, "v4_fp9"), ("pca_v13", Ask::Both, "fitted")] {
            let error = subjects(codecs, &[streams]).unwrap_err();
            assert!(error.to_string().contains(why) && error.exit_code() == 2, "{error}");
        }
    }
}
