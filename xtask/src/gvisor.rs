//! A gVisor to test with. Debian 12's is of 2022, which cannot start a container in a user namespace; a newer one is in Debian's backports,
//! and is unpacked beside what cargo builds, without being installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{tools, ui};

/// The first year whose gVisor will do.
const FIRST_YEAR: &str = "2023";

/// The variable by which the tests are told of runtimes that are not on `PATH`.
pub(crate) const VARIABLE: &str = "LAUF_TEST_RUNTIMES";

/// Where Debian puts the keys that its archives are signed with.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

fn folder() -> PathBuf {
    tools::target_dir().join("tools/gvisor")
}

/// The one from the backports, when it was fetched.
pub(crate) fn unpacked() -> Option<PathBuf> {
    let program = folder().join("root/usr/bin/runsc");
    program.is_file().then_some(program)
}

/// Fetches it, unless the one on `PATH` will do or it is there already. Without it, the tests say what they leave out.
pub(crate) fn from_backports() {
    if unpacked().is_some() || tools::which("runsc").is_some_and(|program| will_do(&program)) {
        return;
    }
    if tools::which("apt-get").is_none() {
        return;
    }
    ui::step("fetching gVisor (runsc) from Debian's backports; it is unpacked, not installed");
    if let Err(error) = fetch() {
        ui::warn(&format!("gVisor could not be had: {error:#}"));
    }
}

fn will_do(program: &Path) -> bool {
    let told = tools::quiet(Command::new(program).arg("--version")).unwrap_or_default();
    let version = told
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().last());
    let day = version.and_then(|v| {
        v.strip_prefix("0.0~")
            .or_else(|| v.strip_prefix("release-"))
    });
    day.is_none_or(|day| day >= FIRST_YEAR)
}

/// With lists and a cache of its own, so that the machine's apt stays as it is.
fn fetch() -> Result<()> {
    let folder = folder();
    for name in ["lists/partial", "cache/archives/partial", "root"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let shown = tools::quiet(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(CODENAME) $(ORIGIN)",
        "Created-By: Packages",
        "Component: main",
    ]))?;
    let (place, release) = shown
        .lines()
        .find_map(|line| {
            let mut words = line.split_whitespace();
            let (place, release, origin) = (words.next()?, words.next()?, words.next()?);
            let plain = origin == "Debian" && !release.contains('-');
            plain.then_some((place, release))
        })
        .context("this machine has no Debian release among its sources")?;
    // Where the keys are elsewhere, apt trusts those it trusts in general.
    let key = if Path::new(KEYS).is_file() {
        format!("[signed-by={KEYS}] ")
    } else {
        String::new()
    };
    let list = folder.join("backports.list");
    fs::write(
        &list,
        format!("deb {key}{place} {release}-backports main\n"),
    )?;
    let apt = || {
        let mut command = Command::new("apt-get");
        for (name, value) in [
            ("Dir::Etc::sourcelist", list.clone()),
            ("Dir::Etc::sourceparts", PathBuf::from("-")),
            ("Dir::State::lists", folder.join("lists")),
            ("Dir::Cache", folder.join("cache")),
            ("APT::Sandbox::User", PathBuf::from("root")),
        ] {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        }
        command.current_dir(&folder);
        command
    };
    tools::quiet(apt().arg("update"))?;
    tools::quiet(apt().args(["download", &format!("runsc/{release}-backports")]))?;
    let package = fs::read_dir(&folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .context("apt-get download left no package")?;
    tools::quiet(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(package)
            .arg(folder.join("root")),
    )?;
    ensure!(
        unpacked().is_some_and(|program| will_do(&program)),
        "what the backports have is too old as well"
    );
    Ok(())
}
