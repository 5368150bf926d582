//! Measures how the decode kernels of some codecs are best cut on this GPU, and writes the file that plans read.

use std::path::PathBuf;

use runtime::tuning::{Size, Tuning, search};
use runtime::{Codec, DecodeSpec, Device, Elem};

use crate::emit::Number;
use crate::error::{Error, Result};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// codecs, with commas
    #[arg(long, value_delimiter = ',', default_value = "bf16,int4,e8w4,e8q38")]
    pub codec: Vec<String>,
    /// batches of equally long sequences to measure: sequences x tokens, with commas
    #[arg(long, value_delimiter = ',', default_value = "1x4096,1x32768,1x131072,8x8192,8x32768,32x2048,32x8192,64x4096")]
    pub sizes: Vec<String>,
    /// head dim: 64, 128 or 256
    #[arg(long, default_value_t = 128)]
    pub d: usize,
    /// query heads that share a kv head: 1 to 8, or 16
    #[arg(long, default_value_t = 4)]
    pub group: usize,
    /// kv heads of a layer
    #[arg(long, default_value_t = 8)]
    pub kv_heads: usize,
    /// tokens of a page, a multiple of 32
    #[arg(long, default_value_t = 64)]
    pub page_tokens: usize,
    /// numbers in memory around the cache
    #[arg(long, value_enum, default_value = "bf16")]
    pub elem: Number,
    /// the device's number
    #[arg(long, default_value_t = 0)]
    pub device: usize,
    /// file to write; what it holds of other kernels of this device stays
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// The tuning as text, or one line about the file that was written. What is being measured goes to stderr.
pub fn run(options: &Options) -> Result<String> {
    let sizes = options.sizes.iter().map(|s| size(s)).collect::<Result<Vec<_>>>()?;
    let elem = if options.elem == Number::Bf16 { Elem::Bf16 } else { Elem::F32 };
    let codecs = options.codec.iter().map(|name| Ok(Codec::open(name)?)).collect::<Result<Vec<_>>>()?;
    let device = Device::open(options.device)?;
    let mut tuning = Tuning { device: device.name().to_string(), entries: vec![] };
    if let Some(text) = options.out.as_ref().and_then(|path| std::fs::read_to_string(path).ok()) {
        let old = Tuning::parse(&text).map_err(|why| Error::Usage(format!("--out: {why}")))?;
        if old.device != tuning.device {
            return Err(Error::Usage(format!("--out: that file is for {}, this is {}; name another", old.device, tuning.device)));
        }
        tuning = old;
    }
    for codec in codecs {
        let spec = DecodeSpec { codec, head_dim: options.d, group: options.group, page_tokens: options.page_tokens, elem, splits: 0 };
        tuning.merge(search(&device, &spec, options.kv_heads, &sizes, &mut |line| eprintln!("{line}"))?);
    }
    let Some(path) = &options.out else { return Ok(tuning.to_string()) };
    std::fs::write(path, tuning.to_string()).map_err(Error::writing(path))?;
    Ok(format!("wrote {} choices to {}; plans read it when KVF_TUNING names it", tuning.entries.len(), path.display()))
}

/// `32x8192`.
fn size(text: &str) -> Result<Size> {
    let parts = text.split_once('x').and_then(|(batch, tokens)| Some(Size { batch: batch.parse().ok()?, tokens: tokens.parse().ok()? }));
    let sound = parts.filter(|s| (1..=65535).contains(&s.batch) && (1..=1 << 24).contains(&s.tokens));
    sound.ok_or_else(|| Error::Usage(format!("--sizes {text}: write sequences x tokens, for example 32x8192")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("32x8192").expect("a size"), Size { batch: 32, tokens: 8192 });
        for wrong in ["", "32", "x", "0x1", "1x0", "1x1x1", "-1x1", "1x99999999999"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
