//! Links the images by the chip's memory map; the one that measures on the chip with room for defmt's table of messages, too.

fn main() {
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    println!("cargo:rustc-link-arg-bin=costs=-Tdefmt.x");
    println!("cargo:rerun-if-changed=build.rs");
}
