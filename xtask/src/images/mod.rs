//! `cargo xtask images`: the root directories of the sample images.
//!
//! Each sample becomes `target/lauf-samples/NAME/{rootfs/, image.json}`, from the packages of Debian, npm and PyPI through their ordinary
//! clients and without a container tool. A build is reused while the sample's files, the recipes and the tools' versions are the same.

mod background;
mod check;
mod java;
mod python;
pub(crate) mod recipes;
pub(crate) mod rootfs;
pub(crate) mod spec;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::samples::{self, Sample};
use crate::{clock, tools, ui};
use rootfs::Rootfs;
use spec::ImageSpec;

pub(crate) use check::check_all;

/// Counts up when a recipe changes in a way that its sources do not show.
const RECIPES: &[&str] = &[
    include_str!("recipes.rs"),
    include_str!("rootfs.rs"),
    include_str!("spec.rs"),
    include_str!("java.rs"),
    include_str!("python.rs"),
    include_str!("background.rs"),
];

/// Arguments of `cargo xtask images`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build only this sample (can be given more than once)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Where to put the results [default: target/lauf-samples]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Start each one from its root directory on loopback and call it; tells sizes and times to the first answer
    #[arg(long)]
    check: bool,
}

/// A sample that is built.
pub(crate) struct Built {
    pub(crate) sample: &'static Sample,
    /// Its root directory.
    pub(crate) rootfs: PathBuf,
    pub(crate) spec: ImageSpec,
    /// Whether an earlier build was reused.
    pub(crate) reused: bool,
}

/// Builds what was asked for.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let built = build_all(&samples::chosen(&args.only)?, args.out.as_deref())?;
    if args.check {
        return Ok(check_all(&built)?.failed.is_empty());
    }
    Ok(true)
}

/// Builds the samples, one after the other.
///
/// # Errors
/// The first that cannot be built, with what its tool said.
pub(crate) fn build_all(wanted: &[&'static Sample], out: Option<&Path>) -> Result<Vec<Built>> {
    let out = out.map_or_else(
        || tools::root().join("target/lauf-samples"),
        Path::to_path_buf,
    );
    fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let out = out.canonicalize()?;
    wanted
        .iter()
        .map(|sample| {
            let start = clock::now();
            let built = build(sample, &out)
                .with_context(|| format!("building the image {}", sample.name))?;
            let how = if built.reused {
                "as built before".to_owned()
            } else {
                ui::time(start.elapsed())
            };
            ui::step(&format!(
                "{:6} {:>10}  {how}",
                sample.name,
                ui::size(tools::tree_size(&built.rootfs))
            ));
            Ok(built)
        })
        .collect()
}

fn build(sample: &'static Sample, out: &Path) -> Result<Built> {
    let hash = content_hash(sample)?;
    let folder = out.join(sample.name);
    let file = folder.join("image.json");
    if let Some(spec) = ImageSpec::read(&file).filter(|spec| spec.hash == hash) {
        return Ok(Built {
            sample,
            rootfs: folder.join("rootfs"),
            spec,
            reused: true,
        });
    }
    // Without image.json a folder is not a result: remove it first, write it last.
    let _ = fs::remove_file(&file);
    let mut root = Rootfs::create(
        folder.join("rootfs"),
        folder.join("work"),
        tools::root().join("samples").join(sample.name),
    )?;
    let mut spec = (sample.build)(&mut root)?;
    root.finish()?;
    spec.name = sample.name.to_owned();
    spec.http2 = sample.http2;
    spec.hash = hash;
    spec.write(&file)?;
    Ok(Built {
        sample,
        rootfs: folder.join("rootfs"),
        spec,
        reused: false,
    })
}

/// A digest over everything that decides what a build makes.
fn content_hash(sample: &Sample) -> Result<String> {
    let folder = tools::root().join("samples").join(sample.name);
    let mut digest = Sha256::new();
    for text in RECIPES {
        digest.update(text);
    }
    for file in tools::source_files(&folder)? {
        digest.update(file.strip_prefix(&folder)?.as_os_str().as_encoded_bytes());
        digest.update([0]);
        digest.update(fs::read(&file)?);
        digest.update([0]);
    }
    for (tool, version) in sample.tools {
        let output = Command::new(tool).arg(version).output().with_context(|| {
            format!(
                "{tool} is needed for the sample {}; `cargo xtask setup` installs it",
                sample.name
            )
        })?;
        digest.update(&output.stdout);
        digest.update(&output.stderr);
    }
    Ok(digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
