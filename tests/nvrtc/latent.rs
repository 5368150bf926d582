//! The kernels for rows of integers compile for every served arch, in every cut that its blocks have the shared memory for.

use kernel_dsl::Source;
use kernels_gen::kernels::latent::{self, Cut};
use kernels_gen::latent::format;

use super::configs::ARCHS;
use super::proven::{prove, record};

/// Bytes that a decode kernel may spill: outputs of 32 heads fill half of its registers.
const SPILT: u32 = 1800;

fn sources() -> Vec<(String, Source)> {
    let joins = [Cut::TWO, Cut::FEW].map(|cut| (format!("join {}", cut.heads), latent::join(cut).unwrap_or_else(|why| panic!("{why}"))));
    let mut all = Vec::from(joins);
    for name in ["v4_int4_int8", "v4_e8w4_int8", "v4_int8_int8"] {
        let f = format(name).unwrap_or_else(|why| panic!("{why}"));
        all.push((format!("store {name}"), latent::store(&f).unwrap_or_else(|why| panic!("{why}"))));
        for whole in [true, false] {
            for cut in [Cut::TWO, Cut::ONE, Cut::FEW] {
                all.push((format!("decode {name} {whole} {} {}", cut.heads, cut.leaves), latent::decode(&f, whole, cut).unwrap_or_else(|why| panic!("{why}"))));
            }
        }
    }
    all
}

#[test]
fn rows_of_integers_compile_within_their_ceilings() {
    let _machine = super::beside_others();
    if let Err(why) = runtime::nvrtc::version() {
        return println!("SKIPPED rows_of_integers_compile_within_their_ceilings: {why}");
    }
    let only = std::env::var("KVF_ONLY").unwrap_or_default();
    for arch in ARCHS {
        let own = Cut::within(arch.shared_bytes());
        let fits = latent::decode(&format("v4_int8_int8").unwrap_or_else(|why| panic!("{why}")), true, own).unwrap_or_else(|why| panic!("{why}"));
        assert!(fits.shared_bytes as usize <= arch.shared_bytes(), "{arch}: {} bytes of {own:?}", fits.shared_bytes);
        for (name, source) in sources() {
            if !format!("{arch} {name}").contains(&only) {
                continue;
            }
            if source.shared_bytes as usize > arch.shared_bytes() {
                assert!(name.starts_with("decode"), "{arch} {name}: {} bytes", source.shared_bytes);
                println!("SKIPPED {arch} {name}: a block has less than {} bytes of shared memory", source.shared_bytes);
                continue;
            }
            let (proof, _) = prove("latent", &source.within(arch.shared_bytes()), arch, false).unwrap_or_else(|why| panic!("{name}: {why}"));
            println!("{arch} {name}: {} registers, {} bytes spilt", proof.registers, proof.spill_bytes);
            let most = if name.starts_with("decode") { SPILT } else { 0 };
            assert!(proof.spill_bytes <= most, "{arch} {name} spills {} bytes", proof.spill_bytes);
        }
    }
    record("latent", only.is_empty());
}
