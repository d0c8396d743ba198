//! What a group of tests came to: read from what test programs print, shown as one table.

use std::path::PathBuf;
use std::time::Duration;

use crate::ui;

/// The result of one group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) group: String,
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Why each was skipped.
    pub(crate) skipped: Vec<String>,
    /// Names or reasons of what failed.
    pub(crate) failures: Vec<String>,
    pub(crate) took: Duration,
    /// Where everything that was printed can be read.
    pub(crate) log: Option<PathBuf>,
}

impl Outcome {
    /// An empty result.
    pub(crate) fn new(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            ..Self::default()
        }
    }

    /// Counts one that could not be run.
    pub(crate) fn skip(&mut self, reason: String) {
        self.skipped.push(reason);
    }

    /// Counts one failure.
    pub(crate) fn fail(&mut self, reason: String) {
        self.failed += 1;
        self.failures.push(reason);
    }

    /// Adds up what a test program printed. `success` is its exit status: a program that fails without a failed test counts as one failure.
    pub(crate) fn read(&mut self, output: &str, success: bool) {
        let failed_before = self.failed;
        let mut at_runtime = 0;
        let mut ignored = 0;
        let mut named_ignored = 0;
        for line in output.lines() {
            let line = line.trim();
            if let Some(counts) = line.strip_prefix("test result: ") {
                self.passed += count(counts, "passed");
                self.failed += count(counts, "failed");
                ignored += count(counts, "ignored");
            } else if let Some((name, verdict)) = line
                .strip_prefix("test ")
                .and_then(|test| test.split_once(" ... "))
            {
                if verdict == "FAILED" {
                    self.failures.push(name.to_owned());
                } else if let Some(reason) = verdict.strip_prefix("ignored") {
                    let reason = reason.trim_start_matches(", ");
                    self.skip(format!(
                        "{name}: {}",
                        if reason.is_empty() {
                            "ignored without a reason"
                        } else {
                            reason
                        }
                    ));
                    named_ignored += 1;
                }
            } else if let Some(reason) = line.strip_prefix("SKIP ") {
                // What a test says that finds at run time that it cannot do its work here; libtest counts it as passed.
                self.skip(reason.to_owned());
                at_runtime += 1;
            } else if let Some(reason) = line.strip_prefix("FAIL ") {
                self.failures.push(reason.to_owned());
            } else if let Some((passed, failed, _)) = closing_line(line) {
                // A script prints its skips as SKIP lines, and its sum here.
                self.passed += passed;
                self.failed += failed;
                at_runtime = 0;
            }
        }
        self.passed = self.passed.saturating_sub(at_runtime);
        for _ in named_ignored..ignored {
            self.skip("ignored without a reason".to_owned());
        }
        if !success && self.failed == failed_before {
            self.fail("the program failed without saying which test".to_owned());
        }
    }
}

/// The number before a word, as in `5 passed; 1 failed`.
fn count(text: &str, word: &str) -> usize {
    let words: Vec<&str> = text
        .split([' ', ';', ',', '.'])
        .filter(|word| !word.is_empty())
        .collect();
    words
        .windows(2)
        .find(|pair| pair[1] == word)
        .and_then(|pair| pair[0].parse().ok())
        .unwrap_or(0)
}

/// `N passed, N failed` or `N passed, N failed, N skipped`, alone on a line.
fn closing_line(line: &str) -> Option<(usize, usize, usize)> {
    let mut parts = line.split(", ");
    let mut number = |word: &str| {
        parts
            .next()?
            .strip_suffix(word)?
            .trim_end()
            .parse::<usize>()
            .ok()
    };
    let (passed, failed) = (number("passed")?, number("failed")?);
    Some((passed, failed, number("skipped").unwrap_or(0)))
}

/// Prints the table, the failures, the skips and the closing line; true when nothing failed.
pub(crate) fn report(outcomes: &[Outcome], took: Duration) -> bool {
    let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
    let (passed, failed, skipped) = (
        sum(|o| o.passed),
        sum(|o| o.failed),
        sum(|o| o.skipped.len()),
    );
    let rows: Vec<Vec<String>> = outcomes
        .iter()
        .map(|o| {
            let mark = if o.failed > 0 {
                "FAILED"
            } else if o.passed == 0 {
                "skipped"
            } else {
                "ok"
            };
            let numbers = [o.passed, o.failed, o.skipped.len()].map(|n| n.to_string());
            [
                &[o.group.clone()][..],
                &numbers,
                &[ui::time(o.took), mark.to_owned()],
            ]
            .concat()
        })
        .collect();
    ui::heading("summary");
    println!(
        "{}",
        ui::table(&["group", "passed", "failed", "skipped", "time", ""], &rows)
    );
    if skipped > 0 {
        ui::warn("SKIPPED, so not known to work here:");
        for outcome in outcomes {
            for reason in &outcome.skipped {
                ui::step(&format!("{}: {reason}", outcome.group));
            }
        }
    }
    for outcome in outcomes.iter().filter(|outcome| outcome.failed > 0) {
        let log = outcome
            .log
            .as_ref()
            .map(|log| format!(" (log: {})", log.display()))
            .unwrap_or_default();
        ui::error(&format!(
            "{}: {}{log}",
            outcome.group,
            outcome.failures.join(", ")
        ));
    }
    println!("\n   in {}", ui::time(took));
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    failed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_output_is_counted_with_its_skips() {
        let mut outcome = Outcome::new("g");
        let output = "running 4 tests\ntest a ... ok\ntest b::c ... ignored, needs a GPU\ntest d ... FAILED\ntest e ... ok\n\
                      ---- e stdout ----\nSKIP e: no cgroup v2 controllers here\n\
                      test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        outcome.read(output, false);
        assert_eq!((outcome.passed, outcome.failed), (1, 1));
        assert_eq!(
            outcome.skipped,
            ["b::c: needs a GPU", "e: no cgroup v2 controllers here"]
        );
        assert_eq!(outcome.failures, ["d"]);
    }

    #[test]
    fn a_script_is_counted_by_its_closing_line() {
        let mut outcome = Outcome::new("g");
        outcome.read(
            "SKIP logs tail: no gcloud\nok deploy\n12 passed, 0 failed, 1 skipped\n",
            true,
        );
        assert_eq!(
            (outcome.passed, outcome.failed, outcome.skipped.len()),
            (12, 0, 1)
        );
    }

    #[test]
    fn a_program_that_dies_is_a_failure() {
        let mut outcome = Outcome::new("g");
        outcome.read("running 2 tests\n", false);
        assert_eq!(outcome.failed, 1);
    }
}
