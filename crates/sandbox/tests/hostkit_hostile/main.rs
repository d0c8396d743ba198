//! A container that tries to get out: under Lauf, under runc with what `runc spec` writes, and under runc with Docker's defaults. Nowhere
//! may Lauf allow what either of the others denies. Needs root, runc and a C compiler; says so and passes without. Prints the whole table.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code"
)]

mod docker;
mod outside;
mod runs;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::lchown;
use std::path::Path;
use std::process::{Command, ExitCode};

use lauf_sandbox::{KeeperArgs, keeper_main};

use outside::Outside;
use runs::{Profile, UID_BASE};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "keeper") {
        return match KeeperArgs::parse(args) {
            Ok(args) => keeper_main(args),
            Err(text) => {
                eprintln!("{text}");
                ExitCode::FAILURE
            }
        };
    }
    if std::env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let compiler = ["musl-gcc", "gcc"].into_iter().find(|c| there(c));
    let (Some(compiler), true, true) = (
        compiler,
        rustix::process::geteuid().is_root(),
        there("runc"),
    ) else {
        println!(
            "SKIP: the hostile container needs root, runc and a C compiler; NOTHING WAS TESTED"
        );
        return ExitCode::SUCCESS;
    };
    judge(compiler)
}

/// Lines that begin so show that an attempt would have been seen to succeed; they are no breach.
const CONTROL: &str = "control: ";

fn judge(compiler: &str) -> ExitCode {
    let dir = tempfile::Builder::new()
        .prefix("hostkit-hostile")
        .tempdir()
        .unwrap();
    let tree = |name: &str| dir.path().join(name);
    build(&tree("layer"), compiler, UID_BASE);
    for bundle in ["bundle", "neighbour"] {
        build(&tree(bundle).join("rootfs"), compiler, 0);
    }
    let outside = Outside::new();

    let (ours, reached) = runs::under_lauf(dir.path(), &outside);
    let under_runc = |profile| runs::under_runc(dir.path(), &outside, &reached, profile);
    let spec = under_runc(Profile::Spec);
    let docker = under_runc(Profile::Docker);
    // The back end that calls an OCI runtime gives it our filter in OCI form: it must load, and hold what the filter is for.
    let filtered = under_runc(Profile::OurFilter);
    for name in [
        "bpf",
        "keyctl",
        "unshare user",
        "setns",
        "vsock",
        "inject terminal input",
        "end",
    ] {
        let verdict = filtered.get(name).map_or("no answer", String::as_str);
        assert!(
            verdict.starts_with("denied"),
            "{name} under runc with our filter: {verdict}"
        );
    }
    let image = fs::read_dir(tree("layer")).unwrap().count();
    assert_eq!(image, 6, "the container has written through to its image");
    compare(&ours, [&spec, &docker])
}

type Verdicts = BTreeMap<String, String>;

fn verdict<'a>(of: &'a Verdicts, name: &str) -> &'a str {
    // What a search finds is said; what it does not find, is not.
    let silence = if name.starts_with("found: ") {
        "denied"
    } else {
        "no answer"
    };
    of.get(name).map_or(silence, String::as_str)
}

fn compare(ours: &Verdicts, theirs: [&Verdicts; 2]) -> ExitCode {
    let mut names: Vec<&String> = ours.keys().chain(theirs[0].keys()).collect();
    names.extend(theirs[1].keys());
    names.sort_unstable();
    names.dedup();
    let (mut failed, mut stricter, mut broken) = (Vec::new(), 0, Vec::new());
    println!(
        "{:<44} {:<12} {:<12} {:<12}",
        "attempt", "lauf", "runc spec", "docker"
    );
    for name in &names {
        let lauf = verdict(ours, name);
        let [spec, docker] = theirs.map(|of| verdict(of, name));
        let held = lauf.starts_with("denied");
        let note = if name.starts_with(CONTROL) {
            let peers_lack_it = spec == "no answer" && docker == "no answer";
            if lauf != "allowed" || !(peers_lack_it || spec == "allowed" && docker == "allowed") {
                broken.push(name.as_str());
            }
            ""
        } else if !held && [spec, docker].iter().any(|peer| peer.starts_with("denied")) {
            failed.push(name.as_str());
            "<-- WEAKER"
        } else if held && [spec, docker].contains(&"allowed") {
            stricter += 1;
            "stricter"
        } else {
            ""
        };
        println!("{name:<44} {lauf:<12} {spec:<12} {docker:<12} {note}");
    }
    let complete = [ours, theirs[0], theirs[1]]
        .iter()
        .all(|of| of.contains_key("end"));
    if !complete {
        println!("one of the containers did not come to its end");
    }
    println!(
        "{} attempts; stricter in {stricter}; weaker: {failed:?}; controls that fail: {broken:?}",
        names.len()
    );
    let failures = failed.len() + broken.len() + usize::from(!complete);
    println!(
        "{} passed, {failures} failed, 0 skipped",
        names.len() - failed.len() - broken.len()
    );
    if failures == 0 && names.len() > 200 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The smallest image: one static program, and the folders that mounts go onto.
fn build(root: &Path, compiler: &str, base: u32) {
    for folder in ["tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("hostile-marker"), "").unwrap();
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/hostkit_hostile/hostile.c"
    );
    let made = Command::new(compiler)
        .args(["-w", "-O1", "-static", "-o"])
        .arg(root.join("hostile"))
        .arg(source)
        .status();
    assert!(
        made.unwrap().success(),
        "{compiler} could not compile the hostile program"
    );
    for path in ["", "tmp", "proc", "sys", "dev", "hostile", "hostile-marker"] {
        lchown(root.join(path), Some(base), Some(base)).unwrap();
    }
}
