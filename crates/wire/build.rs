//! Makes descriptors, server traits and HTTP bindings from the table `rpcs`.

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-changed=rpcs");
    let dir = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_default());
    let manifest = dir("CARGO_MANIFEST_DIR");
    lauf_wire_build::generate(&manifest, &manifest.join("rpcs"), &dir("OUT_DIR"))
}
