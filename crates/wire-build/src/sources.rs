//! Where the sources of the message crates lie.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::words::plain;

/// The crates that hold messages.
const PREFIX: &str = "googleapis-tonic-";
/// Which of the forms in which the crates have everything: `bytes::Bytes` and `BTreeMap`, so that
/// bodies are not copied and maps have one order. It is what `lauf-wire` asks of them by feature.
const FORM: &str = "bytes_btree_map";

/// One protobuf package as Rust.
pub struct Package {
    /// Its name, such as `google.cloud.run.v2`.
    pub name: String,
    /// The crate it is in, as an identifier.
    pub krate: String,
    /// What it says.
    pub file: syn::File,
}

/// All packages of all message crates that `Cargo.lock` names.
///
/// # Errors
/// When a crate's sources are not to be found or cannot be read.
pub fn find(manifest_dir: &Path) -> Result<Vec<Package>> {
    let lock = manifest_dir
        .ancestors()
        .map(|dir| dir.join("Cargo.lock"))
        .find(|path| path.exists())
        .context("there is no Cargo.lock above the crate")?;
    println!("cargo::rerun-if-changed={}", lock.display());
    let crates = locked(&std::fs::read_to_string(&lock)?)?;
    ensure!(!crates.is_empty(), "{} names no {PREFIX}*", lock.display());
    let mut told = None;
    let mut packages = Vec::new();
    for (name, version) in &crates {
        let dir = match unpacked(name, version) {
            Some(dir) => dir,
            // Vendored or replaced sources lie where only cargo knows.
            None => {
                if told.is_none() {
                    told = Some(metadata(manifest_dir)?);
                }
                manifest(told.as_ref(), name, version)
                    .with_context(|| format!("the sources of {name} {version} were not found"))?
            }
        };
        packages.extend(read(name, &dir)?);
    }
    Ok(packages)
}

/// Names and versions of the message crates.
fn locked(lock: &str) -> Result<Vec<(String, String)>> {
    let lock: toml::Table = lock.parse()?;
    let all = lock.get("package").and_then(toml::Value::as_array);
    let mut found: Vec<(String, String)> = Vec::new();
    for package in all.context("Cargo.lock has no packages")? {
        let text = |key: &str| Some(package.get(key)?.as_str()?.to_owned());
        let (Some(name), Some(version)) = (text("name"), text("version")) else {
            continue;
        };
        if !name.starts_with(PREFIX) {
            continue;
        }
        if let Some((_, other)) = found.iter().find(|(n, _)| *n == name) {
            bail!("{name} is locked as {other} and as {version}: pin crates that agree");
        }
        found.push((name, version));
    }
    Ok(found)
}

/// Where cargo has unpacked a crate of a registry.
fn unpacked(name: &str, version: &str) -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let sources = home.join("registry").join("src");
    std::fs::read_dir(sources)
        .ok()?
        .filter_map(Result::ok)
        .map(|registry| registry.path().join(format!("{name}-{version}")))
        .find(|dir| dir.join("src").is_dir())
}

fn metadata(manifest_dir: &Path) -> Result<serde_json::Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--offline", "--locked"])
        .current_dir(manifest_dir)
        .output()
        .context("cargo metadata does not start")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn manifest(told: Option<&serde_json::Value>, name: &str, version: &str) -> Option<PathBuf> {
    let all = told?["packages"].as_array()?;
    let package = all
        .iter()
        .find(|p| p["name"] == name && p["version"] == version)?;
    let path = Path::new(package["manifest_path"].as_str()?);
    Some(path.parent()?.to_owned())
}

/// The packages that a crate itself holds.
fn read(name: &str, dir: &Path) -> Result<Vec<Package>> {
    let folder = dir.join("src").join(FORM);
    let mut packages = Vec::new();
    let files = std::fs::read_dir(&folder)
        .with_context(|| format!("{name} has no {}; its layout has changed", folder.display()))?;
    for file in files {
        let path = file?.path();
        let text = std::fs::read_to_string(&path)?;
        let file = syn::parse_file(&text).with_context(|| path.display().to_string())?;
        let stem = path
            .file_stem()
            .and_then(|s| s.to_str())
            .unwrap_or_default();
        let parts = stem.split('.').map(|part| {
            let ident = syn::parse_str::<syn::Ident>(part);
            ident.map(|ident| plain(&ident))
        });
        let parts: Result<Vec<String>, _> = parts.collect();
        packages.push(Package {
            name: parts
                .with_context(|| format!("{stem} is no package"))?
                .join("."),
            krate: name.replace('-', "_"),
            file,
        });
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_names_the_crates_and_two_versions_of_one_are_refused() {
        let entry = |version: &str| {
            format!("[[package]]\nname = \"googleapis-tonic-a\"\nversion = \"{version}\"\n")
        };
        let other = "[[package]]\nname = \"serde\"\nversion = \"1.0.0\"\n";
        let one = locked(&format!("{}{other}", entry("1.2.3"))).unwrap();
        assert_eq!(one, [("googleapis-tonic-a".into(), "1.2.3".into())]);
        assert!(locked(&format!("{}{}", entry("1.2.3"), entry("2.0.0"))).is_err());
    }
}
