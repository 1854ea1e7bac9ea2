//! Writes the memory map of the chosen board where the linker finds it.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let board = |name: &str| env::var_os(format!("CARGO_FEATURE_{name}")).is_some();
    let map = if board("VIRT") {
        let regions = |memory: &str, names: &[&str]| {
            names.iter().map(|name| format!("REGION_ALIAS(\"REGION_{name}\", {memory});\n")).collect::<String>()
        };
        // All of it is RAM; the first half of a mebibyte is used as a chip uses its flash.
        format!(
            "MEMORY {{\n  FLASH : ORIGIN = 0x80000000, LENGTH = 512K\n  RAM   : ORIGIN = 0x80080000, LENGTH = 64K\n}}\n{}{}",
            regions("FLASH", &["TEXT", "RODATA"]),
            regions("RAM", &["DATA", "BSS", "HEAP", "STACK"])
        )
    } else {
        let ram = if board("MICROBIT") { "16K" } else { "64K" };
        format!(
            "MEMORY {{\n  FLASH : ORIGIN = 0x00000000, LENGTH = 256K\n  RAM   : ORIGIN = 0x20000000, LENGTH = {ram}\n}}\n"
        )
    };

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("memory.x"), map)?;
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}
