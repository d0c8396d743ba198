//! Formatting, clippy, and the tests of the workspace: built once as ourselves, run as root where a crate needs it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Args;
use super::outcome::Outcome;
use super::process::{Program, say};
use crate::{clock, gvisor, nats, tools, ui};

/// Crates whose tests make namespaces, mounts and cgroups.
const AS_ROOT: &[&str] = &["lauf-sandbox", "lauf-engine", "lauf"];

/// A cargo command that reads code, and the workspace it reads.
struct Lint<'a>(&'a Path, &'a [&'a str]);

/// Formatting and clippy of both workspaces.
pub(crate) fn lints(args: &Args, outcomes: &mut Vec<Outcome>) -> Result<()> {
    let hello = tools::root().join("samples/hello");
    let whole = tools::root();
    let fmt = [
        Lint(&whole, &["fmt", "--all", "--check"]),
        Lint(&hello, &["fmt", "--check"]),
    ];
    let clippy = [
        Lint(
            &whole,
            &[
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        ),
        Lint(
            &hello,
            &[
                "clippy",
                "--quiet",
                "--locked",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        ),
    ];
    let jobs = [("fmt", fmt), ("clippy", clippy)];
    if jobs.iter().any(|(group, _)| args.wants(group)) {
        ui::heading("lints");
    }
    for (group, commands) in jobs {
        if !args.wants(group) {
            continue;
        }
        let start = clock::now();
        let mut outcome = Outcome::new(group);
        for Lint(folder, arguments) in commands {
            // A workspace of its own has a target folder of its own, so that the two do not throw out each other's work.
            let target = if *folder == whole {
                tools::target_dir()
            } else {
                tools::target_dir().join("hello")
            };
            match tools::quiet(
                tools::cargo()
                    .current_dir(folder)
                    .args(arguments)
                    .env("CARGO_TARGET_DIR", target),
            ) {
                Ok(_) => outcome.passed += 1,
                Err(error) => {
                    println!("{error:#}");
                    outcome.fail(format!(
                        "cargo {} in {}",
                        arguments.join(" "),
                        folder.display()
                    ));
                }
            }
        }
        outcome.took = start.elapsed();
        say(&outcome, "");
        outcomes.push(outcome);
    }
    Ok(())
}

/// The tests of every crate, and the examples in the documentation.
pub(crate) fn tests(args: &Args, outcomes: &mut Vec<Outcome>) -> Result<()> {
    let packages = packages(&args.only);
    if args.only.is_empty() || !packages.is_empty() {
        ui::heading("tests of the crates");
        let start = clock::now();
        match build(&packages) {
            Ok(binaries) => {
                ui::step(&format!(
                    "{} test programs built in {}",
                    binaries.len(),
                    ui::time(start.elapsed())
                ));
                run_all(args, &binaries, outcomes)?;
            }
            Err(error) => {
                ui::error(&format!("{error:#}"));
                let mut outcome = Outcome::new("build");
                outcome.fail("the tests do not compile".to_owned());
                outcomes.push(outcome);
                return Ok(());
            }
        }
    }
    if args.wants("doc") {
        let cargo = tools::cargo();
        let doc = Program::new(
            "doc",
            cargo.get_program(),
            &["test", "--quiet", "--workspace", "--doc"],
            &tools::root(),
        );
        outcomes.push(doc.outcome()?);
    }
    Ok(())
}

fn run_all(args: &Args, binaries: &[Binary], outcomes: &mut Vec<Outcome>) -> Result<()> {
    for binary in binaries {
        if !args.wants(&binary.group) && !args.wants(&binary.package) {
            continue;
        }
        let outcome = Program::new(
            &binary.group,
            &binary.executable,
            &["--color=never", "--show-output"],
            &binary.folder,
        )
        .env("CARGO_MANIFEST_DIR", &binary.folder)
        .env("CARGO_PKG_NAME", &binary.package)
        .env("LAUF_BIN", lauf_binary())
        .env(gvisor::VARIABLE, gvisor::unpacked().unwrap_or_default())
        .env(nats::VARIABLE, nats::unpacked().unwrap_or_default())
        .root(AS_ROOT.contains(&binary.package.as_str()))
        .outcome()?;
        // A crate without tests of its own is no line worth reading.
        if outcome.passed + outcome.failed + outcome.skipped.len() > 0 {
            outcomes.push(outcome);
        }
    }
    Ok(())
}

/// The `lauf` that black-box tests start.
pub(crate) fn lauf_binary() -> PathBuf {
    tools::target_dir().join("debug/lauf")
}

/// A test program that cargo built.
#[derive(Debug, PartialEq, Eq)]
struct Binary {
    /// `CRATE` for its unit tests, `CRATE/FILE` for an integration test.
    group: String,
    package: String,
    executable: PathBuf,
    folder: PathBuf,
}

/// The crates that these groups are tests of: `CRATE` or `CRATE/FILE`.
fn packages(groups: &[String]) -> Vec<&str> {
    const OTHERS: [&str; 4] = ["fmt", "clippy", "samples", "doc"];
    groups
        .iter()
        .filter(|group| !OTHERS.contains(&group.as_str()) && !super::scripts::exists(group))
        .map(|group| group.split('/').next().unwrap_or(group))
        .collect()
}

/// Builds the programs that tests start, then the tests, of these crates or of all.
fn build(packages: &[&str]) -> Result<Vec<Binary>> {
    let which: Vec<&str> = if packages.is_empty() {
        vec!["--workspace"]
    } else {
        packages.iter().flat_map(|name| ["-p", name]).collect()
    };
    let mut programs = tools::cargo();
    programs.args(["build", "--quiet", "--bins"]).args(&which);
    anyhow::ensure!(
        tools::loud(&mut programs)?,
        "`{}` failed",
        tools::shown(&programs)
    );
    let mut command = tools::cargo();
    command
        .args([
            "test",
            "--quiet",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ])
        .args(&which);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "`{}` failed",
        tools::shown(&command)
    );
    let mut binaries: Vec<Binary> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| test_binary(line).transpose())
        .collect::<Result<_>>()?;
    binaries.sort_by(|a, b| a.group.cmp(&b.group));
    Ok(binaries)
}

/// The test program that a line of cargo's output tells of, if it does.
fn test_binary(line: &str) -> Result<Option<Binary>> {
    let Ok(message) = serde_json::from_str::<Value>(line) else {
        return Ok(None);
    };
    let Some(executable) = message["executable"]
        .as_str()
        .filter(|_| message["profile"]["test"] == true)
    else {
        return Ok(None);
    };
    let manifest = message["manifest_path"]
        .as_str()
        .context("cargo tells no manifest_path")?;
    let folder = Path::new(manifest)
        .parent()
        .context("a manifest without a folder")?
        .to_path_buf();
    let package = message["package_id"]
        .as_str()
        .context("cargo tells no package_id")?;
    // path+file:///DIR/FOLDER#NAME@VERSION, or #VERSION where folder and package are called the same
    let (path, name) = package.split_once('#').unwrap_or((package, ""));
    let package = match name.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => path.rsplit('/').next().unwrap_or(path).to_owned(),
    };
    let target = message["target"]["name"].as_str().unwrap_or_default();
    let integration = message["target"]["kind"][0] == "test";
    let group = if integration {
        format!("{package}/{target}")
    } else {
        package.clone()
    };
    Ok(Some(Binary {
        group,
        package,
        executable: executable.into(),
        folder,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_crates_asked_for_are_built() {
        let groups = ["fmt", "lauf-model", "lauf-store/model"].map(str::to_owned);
        assert_eq!(packages(&groups), ["lauf-model", "lauf-store"]);
    }

    #[test]
    fn cargo_tells_test_programs_apart() {
        let line = |id: &str, kind: &str, test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"{id}","manifest_path":"/w/crates/model/Cargo.toml",
                "target":{{"kind":["{kind}"],"name":"names"}},"profile":{{"test":{test}}},"executable":"/w/target/x"}}"#
            )
        };
        let unit = test_binary(&line(
            "path+file:///w/crates/model#lauf-model@0.1.0",
            "lib",
            true,
        ))
        .unwrap()
        .unwrap();
        assert_eq!(
            (unit.group.as_str(), unit.package.as_str()),
            ("lauf-model", "lauf-model")
        );
        let integration = test_binary(&line("path+file:///w/crates/lauf#0.1.0", "test", true))
            .unwrap()
            .unwrap();
        assert_eq!(
            (integration.group.as_str(), integration.folder.to_str()),
            ("lauf/names", Some("/w/crates/model"))
        );
        assert_eq!(
            test_binary(&line("path+file:///w/x#0.1.0", "bin", false)).unwrap(),
            None
        );
        assert_eq!(test_binary("not json").unwrap(), None);
    }
}
