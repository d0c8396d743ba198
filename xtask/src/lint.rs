//! `cargo xtask lint`: everything that reads the code and does not run it.

use anyhow::Result;

use crate::{tools, ui};

/// Formatting, clippy, and the dependencies where cargo-deny is installed.
pub(crate) fn run() -> Result<bool> {
    let mut good = true;
    let hello = tools::root().join("samples/hello");
    for (what, folder, args) in [
        (
            "formatting",
            tools::root(),
            &["fmt", "--all", "--check"][..],
        ),
        (
            "formatting of samples/hello",
            hello.clone(),
            &["fmt", "--check"],
        ),
        (
            "clippy",
            tools::root(),
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        ),
        (
            "clippy of samples/hello",
            hello,
            &[
                "clippy",
                "--locked",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        ),
    ] {
        ui::heading(what);
        good &= tools::loud(tools::cargo().current_dir(folder).args(args))?;
    }
    ui::heading("dependencies");
    if tools::which("cargo-deny").is_some() {
        good &= tools::loud(tools::cargo().args([
            "deny",
            "--offline",
            "check",
            "licenses",
            "bans",
            "sources",
        ]))?;
    } else {
        ui::warn("not checked: cargo-deny is not installed (`cargo install cargo-deny`)");
    }
    Ok(good)
}
