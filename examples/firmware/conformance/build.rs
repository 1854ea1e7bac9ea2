//! Writes the scenarios as the tapes that the images carry, and links them by the chip's memory map, with room for defmt's table of messages.

use std::error::Error;
use std::path::Path;

use failsoft_conformance::{ALL, encode};

const VECTORS: [&str; 2] = ["../../../tests/vectors/peers.jsonl", "../../../tests/vectors/more.jsonl"];

fn main() -> Result<(), Box<dyn Error>> {
    let mut vectors = Vec::new();
    for file in VECTORS {
        println!("cargo:rerun-if-changed={file}");
        let text = std::fs::read_to_string(file)?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            vectors.push(encode::vector(line)?);
        }
    }
    for part in ALL {
        let tape = encode::tape(vectors.iter().filter(|vector| part.has(vector.pattern())));
        std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join(part.name).with_extension("tape"), tape)?;
    }
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}
