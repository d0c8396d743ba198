//! The samples of asynchronous work, all in Python: a job on ffmpeg, a job on a database, a worker, a service that is pushed to.

use std::fs;
use std::process::Command;

use anyhow::Result;

use super::python::{PYTHON, compile, environment, install, interpreter};
use super::rootfs::{Rootfs, program};
use super::spec::ImageSpec;
use crate::tools;

/// ffmpeg with its libraries, a film to transcode, and the script.
pub(crate) fn transcode(root: &mut Rootfs) -> Result<ImageSpec> {
    let python = interpreter(root)?;
    let ffmpeg = program("ffmpeg")?;
    root.add_program(&ffmpeg)?;
    root.add_app(&["transcode.py"])?;
    tools::quiet(
        Command::new(ffmpeg)
            .args(["-nostdin", "-hide_banner", "-loglevel", "error"])
            .args([
                "-f",
                "lavfi",
                "-i",
                "testsrc2=size=640x360:rate=25:duration=24",
            ])
            .args(["-f", "lavfi", "-i", "sine=frequency=440:duration=24"])
            .args(["-c:v", "mpeg2video", "-q:v", "4", "-g", "12"])
            .args(["-c:a", "mp2", "-b:a", "128k"])
            .arg(root.at("/app/source.mkv")),
    )?;
    finish(root, &python, "transcode.py")
}

/// psycopg, and the orders that the sample's own script makes.
pub(crate) fn etl(root: &mut Rootfs) -> Result<ImageSpec> {
    let python = interpreter(root)?;
    install(root)?;
    root.add_app(&["etl.py"])?;
    let orders = tools::quiet(Command::new(PYTHON).arg(root.source().join("make_orders.py")))?;
    fs::write(root.at("/app/orders.csv"), orders)?;
    finish(root, &python, "etl.py")
}

/// Google's Pub/Sub client.
pub(crate) fn puller(root: &mut Rootfs) -> Result<ImageSpec> {
    let python = interpreter(root)?;
    install(root)?;
    root.add_app(&["puller.py"])?;
    finish(root, &python, "puller.py")
}

/// Pillow.
pub(crate) fn thumbnails(root: &mut Rootfs) -> Result<ImageSpec> {
    let python = interpreter(root)?;
    install(root)?;
    root.add_app(&["thumbnails.py"])?;
    finish(root, &python, "thumbnails.py")
}

fn finish(root: &Rootfs, python: &str, script: &str) -> Result<ImageSpec> {
    compile(root)?;
    Ok(ImageSpec::new(&[python, script], "/app", &environment()))
}
