//! Writes the scenarios as the tape that the image carries, and links it by the chip's memory map, with room for defmt's table of messages.

use std::error::Error;
use std::path::Path;

use failsoft_conformance::encode;

const VECTORS: &str = "../../../tests/vectors/peers.jsonl";

fn main() -> Result<(), Box<dyn Error>> {
    let text = std::fs::read_to_string(VECTORS)?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let vectors = lines.map(encode::vector).collect::<Result<Vec<_>, _>>()?;
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("peers.tape"), encode::tape(&vectors))?;
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={VECTORS}");
    Ok(())
}
