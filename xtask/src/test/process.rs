//! Runs one test program: bounded in time, its output in a log and not on the screen.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::outcome::Outcome;
use crate::{clock, tools, ui};

/// The longest that one test program may take.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// A test program to be.
pub(crate) struct Program {
    group: String,
    program: PathBuf,
    args: Vec<String>,
    folder: PathBuf,
    env: Vec<(String, String)>,
    as_root: bool,
}

impl Program {
    /// A program that runs in `folder`.
    pub(crate) fn new(
        group: &str,
        program: impl Into<PathBuf>,
        args: &[&str],
        folder: &Path,
    ) -> Self {
        Self {
            group: group.to_owned(),
            program: program.into(),
            args: args.iter().map(ToString::to_string).collect(),
            folder: folder.to_path_buf(),
            env: Vec::new(),
            as_root: false,
        }
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((
            name.to_owned(),
            value.as_ref().to_string_lossy().into_owned(),
        ));
        self
    }

    /// Runs it as root.
    pub(crate) fn root(mut self, yes: bool) -> Self {
        self.as_root = yes;
        self
    }

    /// Runs it to its end (or [`PATIENCE`]) and tells all that it printed, and whether it exited with zero.
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub(crate) fn run(&self) -> Result<(String, Option<i32>, PathBuf)> {
        let folder = tools::target_dir().join("test-logs");
        fs::create_dir_all(&folder)?;
        let log = folder.join(format!("{}.log", self.group.replace('/', "-")));
        let out = fs::File::create(&log)?;
        // `env` carries the variables through sudo, which drops them; `timeout` ends what hangs, with its children.
        let mut command = if self.as_root {
            tools::as_root("env").context("no way to root")?
        } else {
            Command::new("env")
        };
        command
            .args(
                self.env
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            )
            .arg(format!(
                "PATH={}",
                std::env::var("PATH").unwrap_or_default()
            ))
            .args([
                "timeout",
                "--kill-after=10",
                &PATIENCE.as_secs().to_string(),
            ])
            .arg(&self.program)
            .args(&self.args)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let status = command
            .status()
            .with_context(|| format!("could not start `{}`", tools::shown(&command)))?;
        let output = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        Ok((output, status.code(), log))
    }

    /// Runs it, reads the result and says it in one line.
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub(crate) fn outcome(&self) -> Result<Outcome> {
        let mut outcome = Outcome::new(&self.group);
        if self.as_root && !can_be_root() {
            outcome.skip("needs root: run as root, or where sudo needs no password".to_owned());
            say(&outcome, "");
            return Ok(outcome);
        }
        let start = clock::now();
        let (output, code, log) = self.run()?;
        outcome.took = start.elapsed();
        outcome.log = Some(log);
        match code {
            Some(124 | 137) => outcome.fail(format!("did not end within {}", ui::time(PATIENCE))),
            // The convention of automake and others: everything here was skipped.
            Some(77) => outcome.read(&output, true),
            code => outcome.read(&output, code == Some(0)),
        }
        say(&outcome, &output);
        Ok(outcome)
    }
}

/// One line for a result; for a failure, what was printed last.
pub(crate) fn say(outcome: &Outcome, output: &str) {
    let skipped = if outcome.skipped.is_empty() {
        String::new()
    } else {
        format!(", {} skipped", outcome.skipped.len())
    };
    ui::step(&format!(
        "{:32} {:4} passed, {} failed{skipped}  ({})",
        outcome.group,
        outcome.passed,
        outcome.failed,
        ui::time(outcome.took)
    ));
    if outcome.failed > 0 {
        let lines: Vec<&str> = output.lines().collect();
        for line in &lines[lines.len().saturating_sub(60)..] {
            println!("      | {line}");
        }
    }
}

/// Whether root can be had without asking anybody.
fn can_be_root() -> bool {
    tools::is_root()
        || tools::which("sudo")
            .is_some_and(|sudo| tools::quiet(Command::new(sudo).args(["-n", "true"])).is_ok())
        || ui::is_live()
}
