//! The build script of `lauf-wire`: from a table of RPCs to everything that serves them.
//!
//! The messages of Google's APIs come as Rust types from the `googleapis-tonic-*` crates. Those
//! crates hold neither descriptors (which JSON, field masks and `Any` need) nor server traits. Both
//! can be had without a copy of anybody's interface files in this repository:
//!
//! 1. [`sources`] finds the crates' sources, at the versions of `Cargo.lock`.
//! 2. [`table`] reads the table: one line an RPC, with its HTTP verb, path and body.
//! 3. [`recover`] reads descriptors off the `#[prost(...)]` attributes, and the requests and
//!    responses of each RPC off the client stubs.
//! 4. [`reach`] keeps what the RPCs of the table can reach.
//! 5. [`emit`] writes the descriptor set, the server traits (by `tonic-build`), the list of HTTP
//!    bindings, and the names of messages.
//!
//! The laws: what is not in the table is not served; a line that no stub stands for fails the build
//! and says so; nothing is fetched, and nothing is written outside `OUT_DIR`.
#![forbid(unsafe_code)]

pub mod emit;
pub mod reach;
pub mod recover;
pub mod sources;
pub mod table;
mod words;

use std::path::Path;

use anyhow::{Context, Result};

/// Makes `descriptors.bin` and `apis.rs` in `out` from the table and the sources of the message
/// crates that the workspace of `manifest_dir` has locked.
///
/// # Errors
/// When a source is missing, cannot be understood, or does not have what the table asks for.
pub fn generate(manifest_dir: &Path, table: &Path, out: &Path) -> Result<()> {
    let text = std::fs::read_to_string(table)
        .with_context(|| format!("the table of RPCs, {}", table.display()))?;
    let table = table::parse(&text)?;
    let packages = sources::find(manifest_dir)?;
    let whole = recover::recover(&packages)?;
    let kept = reach::keep(&whole, &table)?;
    emit::descriptors(&kept, &table, &whole, out)?;
    emit::rust(&kept, &table, &whole, out)
}
