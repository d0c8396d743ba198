//! The samples: their own tests, and each started from its root directory.

use std::path::Path;

use anyhow::Result;

use super::Args;
use super::outcome::Outcome;
use super::process::{Program, say};
use crate::{clock, images, samples, tools, ui};

/// Builds the images, then tests each sample in its own language and as a container.
pub(crate) fn tests(args: &Args, outcomes: &mut Vec<Outcome>) -> Result<()> {
    if !args.wants("samples") {
        return Ok(());
    }
    ui::heading("samples");
    let mut outcome = Outcome::new("samples");
    let start = clock::now();
    let mut built = Vec::new();
    for sample in samples::ALL {
        if let Some(program) = sample.lacks() {
            outcome.skip(format!(
                "the sample {}: {program} is not installed",
                sample.name
            ));
            continue;
        }
        match images::build_all(&[sample], None) {
            Ok(mut image) => built.append(&mut image),
            Err(error) => {
                ui::error(&format!("{error:#}"));
                outcome.fail(format!("{} could not be built", sample.name));
            }
        }
    }
    if can_isolate() {
        let checked = images::check_all(&built)?;
        outcome.passed += checked.passed;
        for (name, _) in checked.failed {
            outcome.fail(format!("{name} started from its root directory"));
        }
    } else {
        outcome.skip("starting samples from their root directories: no way to make namespaces (need root or user namespaces)".to_owned());
    }
    for image in &built {
        own_tests(image, &mut outcome)?;
    }
    outcome.took = start.elapsed();
    say(&outcome, "");
    outcomes.push(outcome);
    Ok(())
}

fn can_isolate() -> bool {
    let mut unshare = std::process::Command::new("unshare");
    if !tools::is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    tools::quiet(unshare.args(["--mount", "--pid", "--fork", "true"])).is_ok()
}

/// The tests that stand in a sample's folder, with the packages of its image.
fn own_tests(image: &images::Built, outcome: &mut Outcome) -> Result<()> {
    let folder = tools::root().join("samples").join(image.sample.name);
    let app = image.rootfs.join("app");
    let group = format!("samples-{}", image.sample.name);
    let has = |suffix: &str| {
        tools::source_files(&folder)
            .is_ok_and(|files| files.iter().any(|file| ends_with(file, suffix)))
    };
    let program = if folder.join("Cargo.toml").exists() {
        let cargo = tools::cargo();
        Program::new(
            &group,
            cargo.get_program(),
            &["test", "--quiet", "--locked"],
            &folder,
        )
        .env("CARGO_TARGET_DIR", tools::target_dir().join("hello"))
    } else if has(".test.js") {
        Program::new(&group, "node", &["--test"], &folder)
            .env("NODE_PATH", app.join("node_modules"))
    } else if has(".py") {
        Program::new(&group, "/usr/bin/python3", &["-m", "unittest"], &folder)
            .env("PYTHONPATH", app.join("site"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
    } else {
        return Ok(());
    };
    let (output, code, log) = program.run()?;
    if folder.join("Cargo.toml").exists() {
        outcome.read(&output, code == Some(0));
    } else if code == Some(0) {
        outcome.passed += counted(&output).max(1);
    } else {
        println!("{output}");
        outcome.fail(format!("the tests of {}", image.sample.name));
        outcome.log = Some(log);
    }
    Ok(())
}

fn ends_with(file: &Path, suffix: &str) -> bool {
    file.file_name()
        .is_some_and(|name| name.to_string_lossy().ends_with(suffix))
}

/// How many tests passed, as Node's runner and Python's unittest say it.
fn counted(output: &str) -> usize {
    output
        .lines()
        .find_map(|line| {
            let node = line
                .strip_prefix("# pass ")
                .or_else(|| line.strip_prefix("ℹ pass "));
            let python = line
                .strip_prefix("Ran ")
                .and_then(|rest| rest.split(' ').next());
            node.or(python)?.trim().parse().ok()
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_runners_are_counted() {
        assert_eq!(counted("# tests 3\n# pass 3\n# fail 0\n"), 3);
        assert_eq!(counted("..\n-----\nRan 2 tests in 0.01s\n\nOK\n"), 2);
    }
}
