//! The closing tables: what was measured, and whether all of it was right.

use std::time::Duration;

use super::live::Scaling;
use super::split::Answers;
use crate::samples::Sample;
use crate::ui;

/// All that the demo found.
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) work: Vec<WorkRow>,
    pub(crate) scaling: Option<Scaling>,
    pub(crate) split: Option<Answers>,
    ready_in: Duration,
    problems: Vec<String>,
}

/// What was measured of one sample.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: &'static str,
    what: &'static str,
    size: u64,
    pub(crate) pack: Option<Duration>,
    pub(crate) deploy: Option<Duration>,
    /// From the first packet at zero instances to the right answer.
    pub(crate) cold: Option<Duration>,
    /// The same with an instance there.
    pub(crate) warm: Option<Duration>,
    pub(crate) seen: String,
    pub(crate) failed: Option<String>,
}

impl Row {
    /// A sample of which nothing is known yet but the size of its root directory.
    pub(crate) fn new(sample: &Sample, size: u64) -> Self {
        let (name, what) = (sample.name, sample.what);
        Self {
            name,
            what,
            size,
            pack: None,
            deploy: None,
            cold: None,
            warm: None,
            seen: String::new(),
            failed: None,
        }
    }
}

/// What was seen of a sample of asynchronous work.
#[derive(Clone, Debug)]
pub(crate) struct WorkRow {
    name: &'static str,
    what: &'static str,
    size: u64,
    /// From packing its image to the last of its results checked.
    pub(crate) took: Option<Duration>,
    pub(crate) seen: String,
    pub(crate) failed: Option<String>,
    skipped: bool,
}

impl WorkRow {
    /// A sample of which nothing is known yet but the size of its root directory.
    pub(crate) fn new(sample: &Sample, size: u64) -> Self {
        Self {
            name: sample.name,
            what: sample.what,
            size,
            took: None,
            seen: String::new(),
            failed: None,
            skipped: false,
        }
    }

    /// A sample that cannot be shown here, and why.
    pub(crate) fn skipped(sample: &Sample, why: String) -> Self {
        Self {
            seen: format!("SKIPPED: {why}"),
            skipped: true,
            ..Self::new(sample, 0)
        }
    }

    fn is_good(&self) -> bool {
        self.skipped || (self.failed.is_none() && self.took.is_some() && !self.seen.is_empty())
    }
}

impl Report {
    /// An empty report.
    pub(crate) fn new(ready_in: Duration) -> Self {
        Self {
            rows: Vec::new(),
            work: Vec::new(),
            scaling: None,
            split: None,
            ready_in,
            problems: Vec::new(),
        }
    }

    /// The row of a sample; made if it is new.
    pub(crate) fn row(&mut self, sample: &Sample) -> &mut Row {
        let index = self
            .rows
            .iter()
            .position(|row| row.name == sample.name)
            .unwrap_or_else(|| {
                self.rows.push(Row::new(sample, 0));
                self.rows.len() - 1
            });
        &mut self.rows[index]
    }

    /// Notes what went wrong outside any one sample.
    pub(crate) fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    /// Prints everything; true when every sample answered rightly from zero, instances rose and fell, and the split was even.
    pub(crate) fn print(&self) -> bool {
        ui::heading("what was measured");
        println!("{}", self.text());
        for row in &self.rows {
            if let Some(reason) = &row.failed {
                ui::error(&format!("{}: {reason}", row.name));
            }
        }
        for row in &self.work {
            if let Some(reason) = &row.failed {
                ui::error(&format!("{}: {reason}", row.name));
            }
            if row.skipped {
                ui::warn(&format!("{} {}", row.name, row.seen));
            }
        }
        for problem in &self.problems {
            ui::error(problem);
        }
        self.is_good()
    }

    fn is_good(&self) -> bool {
        let served = !self.rows.is_empty()
            && self
                .rows
                .iter()
                .all(|row| row.failed.is_none() && row.cold.is_some());
        let worked = self.work.iter().all(WorkRow::is_good);
        served
            && worked
            && self.problems.is_empty()
            && self.scaling.is_some()
            && self.split.is_some()
    }

    fn text(&self) -> String {
        let time = |duration: Option<Duration>| duration.map_or_else(|| "-".to_owned(), ui::time);
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                let verdict = if row.failed.is_some() {
                    "FAILED".to_owned()
                } else {
                    row.seen.clone()
                };
                let times = [row.pack, row.deploy, row.cold, row.warm].map(time);
                [
                    &[row.name.to_owned(), row.what.to_owned(), ui::size(row.size)][..],
                    &times,
                    &[verdict],
                ]
                .concat()
            })
            .collect();
        let header = [
            "sample",
            "what",
            "image",
            "pack+push",
            "deploy",
            "from zero",
            "warm",
            "answered",
        ];
        let mut out = ui::table(&header, &rows);
        out.push_str(&self.work_text());

        let mut facts = vec![vec!["lauf ready".to_owned(), ui::time(self.ready_in)]];
        let mut fact = |name: &str, value: String| facts.push(vec![name.to_owned(), value]);
        if let Some(Scaling {
            load,
            peak,
            peak_after,
            zero_after,
        }) = &self.scaling
        {
            let per_second = u128::from(load.answered) * 1000 / load.lasted.as_millis().max(1);
            fact(
                "load on hello",
                format!(
                    "{} connections for {}",
                    load.connections,
                    ui::time(load.lasted)
                ),
            );
            fact(
                "answers",
                format!(
                    "{} ({per_second}/s), refused {}, broken {}",
                    load.answered, load.refused, load.broken
                ),
            );
            fact(
                "answer time (200 ms asked for)",
                format!("{} p50, {} p99", ui::time(load.p50), ui::time(load.p99)),
            );
            fact(
                "instances",
                format!(
                    "0 to {peak} in {}, back to 0 in {}",
                    ui::time(*peak_after),
                    ui::time(*zero_after)
                ),
            );
        }
        if let Some(answers) = &self.split {
            let shares: Vec<String> = answers
                .iter()
                .map(|(revision, count)| format!("{count} {revision}"))
                .collect();
            fact("split 50/50", shares.join(", "));
        }
        out.push('\n');
        out.push_str(&ui::table(&["the whole", ""], &facts));
        out
    }

    /// The table of asynchronous work; empty when none was shown.
    fn work_text(&self) -> String {
        if self.work.is_empty() {
            return String::new();
        }
        let rows: Vec<Vec<String>> = self
            .work
            .iter()
            .map(|row| {
                let seen = if row.failed.is_some() {
                    "FAILED"
                } else {
                    &row.seen
                };
                let took = row.took.map_or_else(|| "-".to_owned(), ui::time);
                vec![
                    row.name.to_owned(),
                    row.what.to_owned(),
                    ui::size(row.size),
                    took,
                    seen.to_owned(),
                ]
            })
            .collect();
        let header = ["at work", "what", "image", "took", "seen and checked"];
        format!("\n{}", ui::table(&header, &rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn it_is_good_only_when_everything_was_seen() {
        let ms = Duration::from_millis;
        let mut report = Report::new(ms(300));
        assert!(!report.is_good());
        let row = report.row(&samples::ALL[0]);
        row.cold = Some(ms(3));
        row.seen = "GET /: 200".to_owned();
        report.split = Some([("hello-1".to_owned(), 203), ("hello-2".to_owned(), 197)].into());
        let load = super::super::load::Load {
            answered: 20_000,
            lasted: ms(10_000),
            ..Default::default()
        };
        report.scaling = Some(Scaling {
            load,
            peak: 5,
            peak_after: ms(900),
            zero_after: ms(5200),
        });
        assert!(report.is_good());
        let text = report.text();
        assert!(
            text.contains("3.0 ms")
                && text.contains("0 to 5 in 900 ms")
                && text.contains("203 hello-1"),
            "{text}"
        );
        assert!(text.contains("20000 (2000/s)"), "{text}");
        let work = samples::ALL.iter().find(|sample| sample.work).unwrap();
        report
            .work
            .push(WorkRow::skipped(work, "no ffmpeg".to_owned()));
        assert!(report.is_good() && report.text().contains("SKIPPED: no ffmpeg"));
        report.work.push(WorkRow::new(work, 0));
        assert!(
            !report.is_good(),
            "work that was not seen to end is no success"
        );
        report.work.pop();
        report.row(&samples::ALL[1]).failed = Some("no answer".to_owned());
        assert!(!report.is_good());
    }
}
