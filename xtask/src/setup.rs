//! `cargo xtask setup`: what the demo, the tests and the benchmarks need from Debian, in one list, with the reason for each.

use std::io::{BufRead, IsTerminal};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{gvisor, nats, tools, ui};

/// What a package is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Purpose {
    /// Building Lauf and the samples, running the demo
    Demo,
    /// The tests, on top of what the demo needs
    Test,
    /// The peers of the benchmarks, on top of what the demo needs
    Bench,
}

/// How to see that a thing is there already.
enum Probe {
    /// A program of this name is on `PATH`.
    Program(&'static str),
    /// This command succeeds.
    Runs(&'static [&'static str]),
}

struct Need {
    package: &'static str,
    probe: Probe,
    purpose: Purpose,
    why: &'static str,
}

const fn need(purpose: Purpose, package: &'static str, probe: Probe, why: &'static str) -> Need {
    Need {
        package,
        probe,
        purpose,
        why,
    }
}

use Probe::{Program, Runs};
use Purpose::{Bench, Demo, Test};

/// The one list.
const NEEDS: &[Need] = &[
    need(Demo, "gcc", Program("cc"), "Rust links with it"),
    need(
        Demo,
        "libc6-dev",
        Runs(&["test", "-e", "/usr/include/stdio.h"]),
        "the C library that programs are linked with",
    ),
    need(Demo, "nodejs", Program("node"), "the samples node and chat"),
    need(
        Demo,
        "npm",
        Program("npm"),
        "packages of the samples node and chat",
    ),
    need(
        Demo,
        "python3",
        Runs(&["/usr/bin/python3", "--version"]),
        "the samples in Python",
    ),
    need(
        Demo,
        "python3-pip",
        Runs(&["/usr/bin/python3", "-m", "pip", "--version"]),
        "packages of the samples in Python",
    ),
    need(
        Demo,
        "default-jdk-headless",
        Program("jlink"),
        "the sample java",
    ),
    need(
        Demo,
        "binutils",
        Program("objcopy"),
        "jlink strips the runtime of the sample java with it",
    ),
    need(
        Demo,
        "ffmpeg",
        Program("ffmpeg"),
        "the sample transcode, and the images that thumbnails gets",
    ),
    need(
        Demo,
        "postgresql",
        Runs(&["sh", "-c", "ls /usr/lib/postgresql/*/bin/initdb"]),
        "the database that the sample etl loads into, a cluster of its own",
    ),
    need(Demo, "nftables", Program("nft"), "egress of instances"),
    need(Demo, "iproute2", Program("ip"), "the network of instances"),
    need(
        Demo,
        "ca-certificates",
        Runs(&["test", "-e", "/etc/ssl/certs/ca-certificates.crt"]),
        "pulls from other registries",
    ),
    need(
        Test,
        "git",
        Program("git"),
        "tests that read the repository",
    ),
    need(Test, "curl", Program("curl"), "black-box tests over HTTP"),
    need(
        Test,
        "skopeo",
        Program("skopeo"),
        "a registry client to test against",
    ),
    need(
        Test,
        "kubernetes-client",
        Program("kubectl"),
        "kubectl, for the Kubernetes face",
    ),
    need(
        Test,
        "buildah",
        Program("buildah"),
        "a registry client to test against",
    ),
    need(
        Test,
        "runc",
        Program("runc"),
        "the peer of the hostile-container tests, and the second back end",
    ),
    need(
        Test,
        "crun",
        Program("crun"),
        "the second back end with another runtime; a peer of the cold-start benchmark",
    ),
    need(
        Test,
        "runsc",
        Program("runsc"),
        "gVisor, the second back end with a kernel of its own",
    ),
    need(
        Test,
        "busybox-static",
        Program("busybox"),
        "small test images, and the guest of the cgroup v2 tests",
    ),
    need(
        Test,
        "cpio",
        Program("cpio"),
        "packs the guest of the cgroup v2 tests",
    ),
    need(
        Test,
        "qemu-system-x86",
        Program("qemu-system-x86_64"),
        "the sandbox tests on a kernel with cgroup v2 controllers",
    ),
    need(
        Test,
        "openssl",
        Program("openssl"),
        "certificates for the protocol tests",
    ),
    need(
        Test,
        "nghttp2-client",
        Program("nghttp"),
        "the protocol tests: HTTP/2 frame by frame, and many streams at once",
    ),
    need(
        Bench,
        "nginx-light",
        Program("nginx"),
        "a peer of the proxy benchmark",
    ),
    need(
        Bench,
        "haproxy",
        Program("haproxy"),
        "a peer of the proxy benchmark",
    ),
    need(Bench, "wrk", Program("wrk"), "drives the proxy benchmark"),
];

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to prepare for
    #[arg(long = "for", value_enum, default_value = "test", value_name = "WHAT")]
    purpose: Purpose,
    /// Install without asking
    #[arg(long, short)]
    yes: bool,
}

/// Installs what is missing.
pub(crate) fn run(args: &Args) -> Result<bool> {
    ensure(args.purpose, args.yes)?;
    Ok(true)
}

/// Fetches what tests need in a newer version than Debian 12 has, and what is not installed for it.
fn unpacked(purpose: Purpose) {
    if purpose == Test {
        gvisor::from_backports();
        nats::from_pypi();
    }
}

/// Makes sure that everything for a purpose is there, as far as it can be had. Returns what could not, each with what it is for.
///
/// # Errors
/// When the person at the terminal says no, or there is no way to install anything.
pub(crate) fn ensure(purpose: Purpose, yes: bool) -> Result<Vec<String>> {
    let missing = missing(purpose);
    musl_target();
    if missing.is_empty() {
        unpacked(purpose);
        ui::step("everything needed is installed");
        return Ok(Vec::new());
    }
    ui::step("These Debian packages are needed and not there:");
    for need in &missing {
        ui::step(&format!("  {:22} {}", need.package, need.why));
    }
    let Some(probe) = tools::as_root("true") else {
        anyhow::bail!(
            "installing them needs root, and there is no sudo here; run as root: apt-get install {}",
            names(&missing)
        );
    };
    if tools::which("apt-get").is_none() {
        anyhow::bail!(
            "this is no Debian (there is no apt-get); install what is listed above with your own package manager"
        );
    }
    let how = if tools::is_root() {
        "as we are root"
    } else {
        "with sudo, for this step only"
    };
    ui::step(&format!("They are installed with apt-get {how}."));
    drop(probe);
    confirm(yes)?;

    apt(&["update"])?;
    // All at once is quickest; one that cannot be had must not keep the others away.
    let all: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if !install(&all)? {
        ui::warn("not all could be installed together; trying each alone");
        for package in all {
            install(&[package])?;
        }
    }
    let lacking: Vec<String> = self::missing(purpose)
        .iter()
        .map(|need| format!("{} ({})", need.package, need.why))
        .collect();
    unpacked(purpose);
    for lack in &lacking {
        ui::warn(&format!("could not be had: {lack}"));
    }
    Ok(lacking)
}

fn missing(purpose: Purpose) -> Vec<&'static Need> {
    NEEDS
        .iter()
        .filter(|need| need.purpose == Demo || need.purpose == purpose)
        .filter(|need| !need.probe.is_there())
        .collect()
}

fn names(needs: &[&Need]) -> String {
    needs
        .iter()
        .map(|need| need.package)
        .collect::<Vec<_>>()
        .join(" ")
}

impl Probe {
    fn is_there(&self) -> bool {
        match self {
            Self::Program(name) => tools::which(name).is_some(),
            Self::Runs([program, args @ ..]) => {
                tools::quiet(Command::new(program).args(args)).is_ok()
            }
            Self::Runs([]) => true,
        }
    }
}

/// The toolchain's own package for static programs: the sample hello starts in half the time with it, and works without.
fn musl_target() {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let libraries =
        tools::quiet(Command::new("rustc").args(["--print", "target-libdir", "--target", &target]));
    let there = libraries.is_ok_and(|folder| std::fs::exists(folder.trim()).unwrap_or(false));
    if there || tools::which("rustup").is_none() {
        return;
    }
    ui::step(&format!(
        "adding the Rust target {target} (rustup), for the sample hello"
    ));
    if let Err(error) = tools::quiet(Command::new("rustup").args(["target", "add", &target])) {
        let why = format!("{error:#}");
        let first = why.lines().nth(1).unwrap_or_default().trim().to_owned();
        ui::warn(&format!(
            "{target} could not be had; hello is linked with the host's C library instead ({first})"
        ));
    }
}

/// Asks the person at the terminal. Where nobody can be asked, `--yes` or `CI=true` is the answer.
fn confirm(yes: bool) -> Result<()> {
    if yes || std::env::var_os("CI").is_some() {
        return Ok(());
    }
    anyhow::ensure!(
        std::io::stdin().is_terminal(),
        "nobody can be asked here; give --yes to install them"
    );
    println!("   Go on? [Y/n] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    let answer = answer.trim().to_lowercase();
    anyhow::ensure!(
        answer.is_empty() || answer.starts_with('y'),
        "nothing was installed"
    );
    Ok(())
}

fn apt(args: &[&str]) -> Result<bool> {
    let mut command = tools::as_root("env").context("no way to root")?;
    command
        .args([
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "-q",
            "-y",
            "-o",
            "Dpkg::Use-Pty=0",
            "-o",
            "Acquire::Retries=3",
        ])
        .args(args);
    match tools::quiet(&mut command) {
        Ok(_) => Ok(true),
        Err(error) => {
            ui::warn(&format!("{error:#}"));
            Ok(false)
        }
    }
}

fn install(packages: &[&str]) -> Result<bool> {
    ui::step(&format!("apt-get install {}", packages.join(" ")));
    apt(&[&["install", "--no-install-recommends"], packages].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_listed_once_and_has_a_reason() {
        let mut names: Vec<&str> = NEEDS.iter().map(|need| need.package).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NEEDS.len());
        assert!(NEEDS.iter().all(|need| need.why.len() > 10));
    }

    #[test]
    fn what_is_not_there_is_found_missing() {
        assert!(!Program("lauf-no-such-program").is_there());
        assert!(Runs(&["true"]).is_there() && !Runs(&["false"]).is_there());
    }
}
