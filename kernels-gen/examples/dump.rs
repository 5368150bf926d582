use kernels_gen::kernels::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let c = kernels_gen::registry::codec(&a[2]).unwrap();
    let (d, g) = (a[3].parse().unwrap(), a[4].parse().unwrap());
    let s = match a[1].as_str() { "store" => store(c, d, 64, Elem::Bf16), "join" => join_splits(c, d, 64, Elem::Bf16), _ => decode_attention(c, d, g, 64, Elem::Bf16) };
    match s { Ok(s) => { eprintln!("{} threads {} smem {}", s.name, s.threads, s.shared_bytes); println!("{}", s.cuda) } Err(e) => { eprintln!("error: {e}"); std::process::exit(1) } }
}
