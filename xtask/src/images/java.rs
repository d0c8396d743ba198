//! Java: a runtime cut to what is needed, the application, and an archive of the classes that a start loads.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::rootfs::{Rootfs, program, shared_objects};
use super::spec::ImageSpec;
use crate::tools;

const MODULES: &str = "java.base,jdk.httpserver";
const ARCHIVE: &str = "-XX:SharedArchiveFile=links.jsa";
/// What a small instance wants: little memory, no second compiler, no parallel collector.
const FLAGS: [&str; 2] = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];

/// The link shortener on a `jlink` runtime with AppCDS.
pub(crate) fn java(root: &mut Rootfs) -> Result<ImageSpec> {
    root.base()?;
    let runtime = root.at("/opt/jre");
    fs::create_dir_all(root.at("/opt"))?;
    tools::quiet(
        Command::new(program("jlink")?)
            .args([
                "--add-modules",
                MODULES,
                "--strip-debug",
                "--no-header-files",
                "--no-man-pages",
                "--output",
            ])
            .arg(&runtime),
    )?;
    // Debian links some of the runtime's files to other packages; the image needs the files.
    root.add_libraries(&[runtime.join("bin/java")])?;
    root.add_libraries(&shared_objects(&runtime)?)?;

    let classes = root.work().join("classes");
    let sources = root.source().join("src/links");
    tools::quiet(
        Command::new(program("javac")?)
            .args(["--release", "17", "-g:none", "-d"])
            .arg(&classes)
            .args([sources.join("Main.java"), sources.join("Links.java")]),
    )?;
    fs::copy(sources.join("page.html"), classes.join("links/page.html"))?;
    let jar = root.at("/app/links.jar");
    tools::quiet(
        Command::new(program("jar")?)
            .args(["--create", "--no-compress", "--file"])
            .arg(&jar)
            .arg("-C")
            .arg(&classes)
            .arg("."),
    )?;

    archive(root, &runtime, &jar)?;
    let mut entrypoint = vec!["/opt/jre/bin/java", ARCHIVE];
    entrypoint.extend(FLAGS);
    entrypoint.extend(["-cp", "links.jar", "links.Main"]);
    Ok(ImageSpec::new(
        &entrypoint,
        "/app",
        &[("PATH", "/opt/jre/bin:/usr/bin:/bin")],
    ))
}

/// Records the classes that one start loads, so that the next start maps them instead of loading them.
fn archive(root: &Rootfs, runtime: &Path, jar: &Path) -> Result<()> {
    // The archive is refused when the time of a file it was made from has changed, unless that time is zero.
    for file in [jar, &runtime.join("lib/modules")] {
        tools::quiet(Command::new("touch").args(["--date", "@0"]).arg(file))?;
    }
    let java = runtime.join("bin/java");
    tools::quiet(Command::new(&java).arg("-Xshare:dump").args(FLAGS))?;
    tools::quiet(
        Command::new(&java)
            .arg("-XX:ArchiveClassesAtExit=links.jsa")
            .args(FLAGS)
            .args(["-cp", "links.jar", "links.Main", "--exit-after-start"])
            .env("PORT", "0")
            .current_dir(root.at("/app")),
    )?;
    Ok(())
}
