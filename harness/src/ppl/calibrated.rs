//! Calibrated codecs among the subjects: their file is read when the run is planned, their maps are made once the
//! model's hash is known.

use std::path::Path;

use kernels_gen::preset::{Calibration, Preset};

use super::{Plan, Subject};
use crate::attention::{Coder, Fitted, Geometry};
use crate::calibrate::{self, Facts, Opened};
use crate::error::Result;

/// The calibration, if a subject needs one.
pub fn opened(subjects: &[Subject], asked: Option<&Path>, folder: &Path, geometry: &Geometry) -> Result<Option<Opened>> {
    let calibrated = |coder: &Coder| matches!(coder, Coder::Preset(..));
    let needed = |s: &Subject| match s {
        Subject::Coded { coder, own, .. } => calibrated(coder) || own.iter().any(|(_, coder)| calibrated(coder)),
        _ => false,
    };
    let needed = subjects.iter().any(needed);
    if !needed && asked.is_none() {
        return Ok(None);
    }
    Ok(Some(calibrate::open(asked, folder, calibrate::shape(geometry))?))
}

fn leaked(calibration: &Calibration, preset: &'static Preset, tokens: usize) -> Result<&'static Fitted> {
    Ok(Box::leak(Box::new(Fitted::new(calibration, preset, tokens)?)))
}

/// Gives the calibrated subjects their maps, for contexts up to `tokens`; they are kept for the rest of the program.
pub fn equip(plan: &mut Plan, model: &str, tokens: usize) -> Result<Option<Facts>> {
    let Some(opened) = &plan.calibration else { return Ok(None) };
    opened.check(model)?;
    let mut made: Vec<(&str, &'static Fitted)> = Vec::new();
    let mut with_maps = |coder: Coder| -> Result<Coder> {
        let Coder::Preset(variant, _) = coder else { return Ok(coder) };
        let known = made.iter().find(|(name, _)| *name == variant.name).map(|(_, fitted)| *fitted);
        let fitted = match (known, variant.without) {
            (Some(fitted), _) => fitted,
            (None, None) => leaked(&opened.calibration, variant.preset, tokens)?,
            (None, Some(part)) => leaked(&part.of(&opened.calibration, variant.preset, tokens)?, variant.preset, tokens)?,
        };
        made.push((&variant.name, fitted));
        Ok(Coder::Preset(variant, Some(fitted)))
    };
    for subject in &mut plan.subjects {
        if let Subject::Coded { coder, own, .. } = subject {
            *coder = with_maps(*coder)?;
            let layers = own.iter().map(|(layer, coder)| Ok((*layer, with_maps(*coder)?)));
            *own = layers.collect::<Result<Vec<_>>>()?.leak();
        }
    }
    Ok(Some(opened.facts()))
}
