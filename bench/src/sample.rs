//! The sample applications as `cargo xtask images` leaves them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;

/// A folder with a root file system, and how to run what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) rootfs: PathBuf,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) workdir: String,
}

impl Sample {
    /// Reads `FOLDER/NAME/image.json`. The folder is `LAUF_SAMPLES`, or `target/lauf-samples`.
    pub(crate) fn read(name: &str) -> anyhow::Result<Self> {
        let folder = std::env::var_os("LAUF_SAMPLES")
            .map_or_else(|| PathBuf::from("target/lauf-samples"), PathBuf::from);
        let folder = std::path::absolute(folder.join(name))?;
        let path = folder.join("image.json");
        let text = fs::read(&path).with_context(|| {
            format!(
                "{}: there is no sample {name}; `cargo xtask images` builds them",
                path.display()
            )
        })?;
        let json: Value = serde_json::from_slice(&text)?;
        let field = |key: &str| json[key].clone();
        Ok(Self {
            name: name.to_owned(),
            rootfs: folder.join("rootfs"),
            entrypoint: serde_json::from_value(field("entrypoint"))?,
            env: serde_json::from_value(field("env"))?,
            workdir: serde_json::from_value(field("workdir"))?,
        })
    }
}
