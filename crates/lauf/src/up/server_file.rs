//! `DATA/server.json`: where the running server is, for the command line.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use lauf_iam::Iam;
use lauf_model::Project;
use serde_json::json;

use super::aside::replace;
use crate::settings::Settings;

fn path(data: &Path) -> PathBuf {
    data.join("server.json")
}

/// Says where the server is.
pub(crate) fn write(
    settings: &Settings,
    listen: SocketAddr,
    project: &Project,
    iam: &Iam,
    ca_file: &Path,
) -> anyhow::Result<()> {
    let text = json!({
        "address": listen.to_string(),
        "domain": settings.domain,
        "project": project.id,
        "project_number": project.number,
        "region": settings.regions[0],
        "ca_file": ca_file,
        "token_file": iam.token_file(),
        "pid": std::process::id(),
    });
    let file = path(&settings.data);
    replace(&file, &format!("{text:#}\n"))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// The server is no longer there.
pub(crate) fn remove(data: &Path) {
    // Gone already is as good.
    let _ = fs::remove_file(path(data));
}

/// The process id of the server, if it says it is there.
pub(crate) fn pid(data: &Path) -> Option<i32> {
    let text = fs::read_to_string(path(data)).ok()?;
    let file: serde_json::Value = serde_json::from_str(&text).ok()?;
    i32::try_from(file.get("pid")?.as_i64()?).ok()
}
