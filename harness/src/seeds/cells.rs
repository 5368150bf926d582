//! The cells of the experiment: the published recipe, then one switch at a time, then ours.

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Cell {
    pub what: &'static str,
    /// as `ppl` takes it
    pub codec: String,
}

/// Layers that the recipe leaves raw in DeepSeek-R1-Distill-Qwen-1.5B, which has 28.
const PUBLISHED_RAW: [usize; 6] = [0, 1, 7, 14, 26, 27];

/// The recipe's raw layers for a model of so many: the published ones, or as large a share of it at either end.
pub fn raw_layers(layers: usize) -> Vec<usize> {
    if layers == 28 {
        return PUBLISHED_RAW.to_vec();
    }
    ends((layers * PUBLISHED_RAW.len()).div_ceil(2 * 28), layers)
}

fn ends(each: usize, layers: usize) -> Vec<usize> {
    (0..layers).filter(|layer| *layer < each || layer + each >= layers).collect()
}

/// One half's name: its words, then the raw layers.
fn side(words: &str, raw: &[usize]) -> String {
    match raw {
        [] => format!("pca_{words}"),
        raw => format!("pca_{words}_raw{}", raw.iter().map(usize::to_string).collect::<Vec<_>>().join(".")),
    }
}

/// All cells for a model of so many layers.
pub fn cells(layers: usize) -> Vec<Cell> {
    let raw = raw_layers(layers);
    let pair = |k: &str, v: &str, raw: &[usize]| match k == v {
        true => side(k, raw),
        false => format!("{}/{}", side(k, raw), side(v, raw)),
    };
    let cell = |what, k: &str, v: &str, after: &str| Cell { what, codec: pair(k, v, &raw) + after };
    let bounded = |what, words: &str, each| Cell { what, codec: pair(words, words, &ends(each, layers)) };
    let named = |what, codec: &str| Cell { what, codec: codec.into() };
    let twice = if 4 < layers { 2 } else { 1 };
    vec![
        cell("the recipe", "v13", "v13", ""),
        cell("variance ratio 0.95", "v13_vr95", "v13_vr95", ""),
        cell("keys not preconditioned", "v13_noqp", "v13", ""),
        cell("and the norm forgotten, as published", "v13_noqp_ip_compat", "v13", ""),
        cell("keys after RoPE", "v13_post", "v13", ""),
        cell("blocks per head", "v13_head", "v13_head", ""),
        cell("levels fitted here", "v13_fitted", "v13_fitted", ""),
        cell("fitted, no outliers", "v13_fitted_t0", "v13_fitted", ""),
        cell("fitted, outliers of values too", "v13_fitted", "v13_fitted_t2", ""),
        cell("fitted, keys of 4 bits", "v13_fitted_b4", "v13_fitted", ""),
        cell("per head, fitted, norms corrected", "v13_head_fitted_norm", "v13_head_fitted_norm", ""),
        bounded("no raw layer", "v13", 0),
        bounded("twice as many raw layers", "v13", twice),
        cell("keys only", "v13", "v13", ":k"),
        cell("values only", "v13", "v13", ":v"),
        cell("values only, fitted, outliers", "v13", "v13_fitted_t2", ":v"),
        named("all components, 4 bits, per head", "pca_b4_vr100_qp_fitted/pca_b4_vr100_fitted"),
        named("one basis, fitted ahead, fused", "pca_static_3"),
        named("one basis, fitted ahead, fused", "pca_static_4"),
        named("ours", "kvfuse-2"),
        named("ours", "kvfuse-3"),
        named("ours", "kvfuse-4"),
        named("not calibrated", "e8w4"),
        named("not calibrated", "int4"),
        named("vLLM's TurboQuant", "turboquant_k8v4"),
        named("vLLM's TurboQuant", "turboquant_4bit_nc"),
        named("vLLM's TurboQuant", "turboquant_3bit_nc"),
        named("what engines use", "fp8"),
    ]
}

/// Cells whose loss is taken apart: through the packed cache and over decoded rows by exact attention, and on a GPU by the
/// fused kernel and by the scalar reference within one forward pass. Their sums are of integers: the two must be equal.
pub const FUSED: [&str; 6] = ["kvfuse-3", "kvfuse-4", "pca_static_4", "e8w4", "int4", "turboquant_4bit_nc"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_layers_are_a_fifth() {
        assert_eq!(raw_layers(28), [0, 1, 7, 14, 26, 27]);
        assert_eq!(raw_layers(6), [0, 5]);
        assert_eq!(raw_layers(36), [0, 1, 2, 3, 32, 33, 34, 35]);
    }

    #[test]
    fn every_name_is_a_codec() {
        for cell in cells(6).iter().chain(&cells(28)) {
            let name = cell.codec.split(':').next().unwrap();
            if let (false, Some(found)) = (name.starts_with("pca_static_"), kernels_gen::pca::codec(name)) {
                let codec = found.unwrap();
                codec.k.check(128).unwrap();
                codec.v.check(128).unwrap();
            }
        }
        assert_eq!(cells(6)[2].codec, "pca_v13_noqp_raw0.5/pca_v13_raw0.5");
    }
}
