//! The kernels of codecs in a model's geometry, compiled once, several at a time; and what was fitted to the model, on the
//! device.

use std::rc::Rc;

use kernels_gen::registry::CodecInfo;
use rayon::prelude::*;
use runtime::{Backs, Calibration, Codec, DecodePlan, DecodeSpec, Device, Elem, LoadPlan, StorePlan, StoreSpec};

use super::Machine;
use crate::attention::{Fitted, Geometry, PAGE_TOKENS};
use crate::error::Result;

/// What codes the rows: a codec of the registry, or one that was fitted to the model's layers.
#[derive(Clone, Copy)]
pub enum Scheme {
    Codec(&'static CodecInfo),
    Fitted(&'static Fitted),
}

impl Scheme {
    /// The codec of a layer, with the bands of its own.
    pub fn codec(self, machine: &Machine, layer: usize) -> Result<Codec> {
        Ok(match self {
            Scheme::Codec(info) => Codec::open(info.name)?,
            Scheme::Fitted(fitted) => calibration(machine, fitted)?.layer(layer)?.codec(),
        })
    }

    /// The maps of all layers; None where there are none.
    pub fn calibration(self, machine: &Machine) -> Result<Option<Rc<Calibration>>> {
        match self {
            Scheme::Codec(_) => Ok(None),
            Scheme::Fitted(fitted) => Ok(Some(calibration(machine, fitted)?)),
        }
    }
}

/// What brings a fitted codec's rows back, made once.
pub fn backs(machine: &Machine, scheme: Scheme) -> Result<Option<Rc<Backs>>> {
    let Scheme::Fitted(fitted) = scheme else { return Ok(None) };
    let key: *const Fitted = fitted;
    if let Some(known) = machine.backs.borrow().get(&key) {
        return Ok(Some(known.clone()));
    }
    let maps = fitted.all_parts().iter().map(|(_, maps)| maps);
    let made = Rc::new(Backs::upload(&machine.device, maps, &fitted.turns)?);
    machine.backs.borrow_mut().insert(key, made.clone());
    Ok(Some(made))
}

/// Made once, found again by where the fit lies for the rest of the program.
fn calibration(machine: &Machine, fitted: &'static Fitted) -> Result<Rc<Calibration>> {
    let key: *const Fitted = fitted;
    if let Some(known) = machine.calibrations.borrow().get(&key) {
        return Ok(known.clone());
    }
    let codec = Codec::open(fitted.preset.name)?;
    let made = Rc::new(Calibration::upload(&machine.device, codec, fitted.all_parts(), &fitted.turns)?);
    machine.calibrations.borrow_mut().insert(key, made.clone());
    Ok(made)
}

/// The kernels of a codec.
pub struct Plans {
    geometry: Geometry,
    pub store: StorePlan,
    pub load: LoadPlan,
    /// where queries read codes
    pub decode: Option<Decoding>,
}

/// The kernel that attends, and the twins of both that count what they move: proof that they read and wrote what was asked.
pub struct Decoding {
    pub plan: DecodePlan,
    pub counted: DecodePlan,
    pub counted_store: StorePlan,
}

impl Plans {
    fn make(device: &Device, codec: Codec, geometry: &Geometry, decode: bool) -> Result<Plans> {
        let Geometry { heads, kv_heads, d: head_dim, .. } = *geometry;
        let (page_tokens, elem, group) = (PAGE_TOKENS, Elem::F32, heads / kv_heads);
        let rows = StoreSpec { codec, head_dim, page_tokens, elem };
        let spec = DecodeSpec { codec, head_dim, group, page_tokens, elem, splits: 0 };
        Ok(Plans { geometry: *geometry, store: StorePlan::prepare(device, &rows)?, load: LoadPlan::prepare(device, &rows)?, decode: decode.then(|| Decoding::make(device, &rows, &spec)).transpose()? })
    }

    fn known(machine: &Machine, codec: Codec, geometry: &Geometry, decode: bool) -> Option<Rc<Plans>> {
        let plans = machine.plans.borrow().get(&key(codec)).cloned();
        plans.filter(|plans| plans.geometry == *geometry && (plans.decode.is_some() || !decode))
    }

    /// Those of `codec`, made where they are not known yet.
    pub fn of(machine: &Machine, codec: Codec, geometry: &Geometry, decode: bool) -> Result<Rc<Plans>> {
        if let Some(plans) = Plans::known(machine, codec, geometry, decode) {
            return Ok(plans);
        }
        let plans = Rc::new(Plans::make(&machine.device, codec, geometry, decode)?);
        machine.plans.borrow_mut().insert(key(codec), plans.clone());
        Ok(plans)
    }
}

impl Decoding {
    fn make(device: &Device, rows: &StoreSpec, spec: &DecodeSpec) -> Result<Decoding> {
        Ok(Decoding { plan: DecodePlan::prepare(device, spec)?, counted: DecodePlan::counted(device, spec)?, counted_store: StorePlan::counted(device, rows)? })
    }
}

/// The name asked for, and that of the bands.
fn key(codec: Codec) -> [&'static str; 2] {
    [codec.name(), codec.info().name]
}

/// What some layers need: how they are coded, and whether queries read the codes.
pub struct Wanted {
    pub scheme: Scheme,
    pub layers: Vec<usize>,
    pub decode: bool,
}

/// Compiles it, several kernels at a time: bands of each layer's own are kernels of their own.
pub fn prepare(machine: &Machine, wanted: &[Wanted], geometry: &Geometry) -> Result<()> {
    let mut missing: Vec<(Codec, bool)> = Vec::new();
    for Wanted { scheme, layers, decode } in wanted {
        for layer in layers {
            let codec = scheme.codec(machine, *layer)?;
            if Plans::known(machine, codec, geometry, *decode).is_some() {
                continue;
            }
            match missing.iter_mut().find(|(known, _)| key(*known) == key(codec)) {
                Some((_, known)) => *known |= decode,
                None => missing.push((codec, *decode)),
            }
        }
    }
    let device = &machine.device;
    let make = |(codec, decode): &(Codec, bool)| Ok((key(*codec), Plans::make(device, *codec, geometry, *decode)?));
    let made: Vec<_> = missing.par_iter().map(make).collect::<Result<_>>()?;
    machine.plans.borrow_mut().extend(made.into_iter().map(|(key, plans)| (key, Rc::new(plans))));
    Ok(())
}
