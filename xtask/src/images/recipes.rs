//! One recipe a sample: what goes into its root directory.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::rootfs::{Rootfs, program};
use super::spec::ImageSpec;
use crate::tools;

pub(crate) use super::background::{etl, puller, thumbnails, transcode};
pub(crate) use super::java::java;
pub(crate) use super::python::{flask, grpc};

/// The search path of an image that has a `/usr`.
pub(crate) const PATH: (&str, &str) = ("PATH", "/usr/bin:/bin");

/// One static file, and nothing else: no shell, no libraries, no `/etc`.
pub(crate) fn hello(root: &mut Rootfs) -> Result<ImageSpec> {
    let target = static_target()?;
    let build = root.work().join("build");
    tools::quiet(
        tools::cargo()
            .current_dir(root.source())
            .args(["build", "--release", "--locked", "--target", &target])
            .env("CARGO_TARGET_DIR", &build)
            // Not position independent: a start then has no relocations to do. With --target this does not reach build scripts.
            .env(
                "RUSTFLAGS",
                "-C target-feature=+crt-static -C relocation-model=static",
            ),
    )?;
    root.copy_file(&build.join(target).join("release/hello"), &root.at("hello"))?;
    Ok(ImageSpec::new(&["/hello"], "/", &[]))
}

/// musl where the toolchain has it, as it starts in half the time and takes a third of the memory; the host's glibc, linked statically, otherwise.
fn static_target() -> Result<String> {
    let version = tools::quiet(Command::new("rustc").arg("-vV"))?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc -vV names no host")?;
    let musl = host.replace("-gnu", "-musl");
    let libraries =
        tools::quiet(Command::new("rustc").args(["--print", "target-libdir", "--target", &musl]))?;
    Ok(if fs::exists(libraries.trim())? {
        musl
    } else {
        host.to_owned()
    })
}

/// Express with its packages, as the lock file has them.
pub(crate) fn node(root: &mut Rootfs) -> Result<ImageSpec> {
    node_app(root, &["server.js", "tasks.js", "public"])
}

/// `ws` without any further package.
pub(crate) fn chat(root: &mut Rootfs) -> Result<ImageSpec> {
    node_app(root, &["server.js", "rooms.js", "index.html"])
}

fn node_app(root: &mut Rootfs, files: &[&str]) -> Result<ImageSpec> {
    root.base()?;
    let node = program("node")?;
    root.copy_file(&node, &root.at("/usr/bin/node"))?;
    root.add_libraries(&[node])?;
    root.add_app(files)?;
    root.add_app(&["package.json", "package-lock.json", ".npmrc"])?;
    tools::quiet(
        Command::new("npm")
            .args([
                "ci",
                "--omit=dev",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
            ])
            .current_dir(root.at("/app")),
    )?;
    fs::remove_file(root.at("/app/.npmrc"))?;
    Ok(ImageSpec::new(
        &["/usr/bin/node", "server.js"],
        "/app",
        &[PATH, ("NODE_ENV", "production")],
    ))
}
