//! `lauf simulate`: a log played against settings, with the autoscaler's own decisions.

mod learn;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use lauf_simulate::{
    Distribution, Input, InputOptions, InputSummary, Options, Report, Scenario, parse_duration,
    plot, simulate, table,
};
use serde_json::json;

use self::learn::Learned;
use super::Global;
use super::connect::Target;
use super::http::Api;
use super::output::{Format, Out};

/// How long a start takes when nothing is known of the container.
const START: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  lauf simulate access.log --start 800ms --set max=3 --set max=10
  lauf simulate requests.json --service hello --plot hello.svg
  lauf simulate trace.csv --service-time lognormal:p50=80ms,p99=1.2s --cpu-share 0.5
  lauf simulate --from-service hello --set 'one: concurrency=1' --set 'wide: concurrency=200'
  gcloud logging read 'httpRequest:*' --format=json | lauf simulate - --format json

A scenario is NAME: KEY=VALUE, KEY=VALUE; without a name it is called what it says. Keys:
  min max manual concurrency cpu memory cpu-target concurrency-target cpu-always idle-timeout timeout
  start stop start-failures, and for Knative's rules: knative metric target window panic-window
  panic-threshold scale-down-delay retention activation";

/// Arguments of `lauf simulate`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SimulateArgs {
    /// The access log, - for standard input: Cloud Logging's or Lauf's request log as JSON, the combined
    /// log format, or a trace with columns
    #[arg(value_name = "FILE", required_unless_present = "from_service")]
    log: Option<PathBuf>,
    /// Take requests, start times and settings from a running service and what it has logged
    #[arg(long, value_name = "NAME", conflicts_with = "log")]
    from_service: Option<String>,
    /// Requests read at most with --from-service, the newest
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000)]
    limit: usize,
    /// Play the requests against these settings too; may be given several times
    #[arg(long, value_name = "SCENARIO")]
    set: Vec<String>,
    /// The settings that scenarios differ from: max=10, concurrency=20
    #[arg(long, value_name = "SETTINGS")]
    base: Option<String>,
    /// How long a start takes: 800ms, lognormal:p50=1s,p99=4s, percentiles:p50=1s,p99=4s [default: 1s,
    /// or as --from-service has seen it]
    #[arg(long, value_name = "TIME")]
    start: Option<Distribution>,
    /// How long an instance works on a request, in the same forms [default: as recorded]
    #[arg(long, value_name = "TIME")]
    service_time: Option<Distribution>,
    /// How much of that is CPU time, from 0 to 1; the rest waits for others
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    cpu_share: f64,
    /// How the log is written [default: found out]
    #[arg(long, value_enum, value_name = "FORM")]
    log_format: Option<LogFormat>,
    /// Only requests to this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only requests to this revision
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,
    /// Requests kept to put them in the order of their arrival
    #[arg(long, value_name = "NUMBER", default_value_t = 20_000)]
    window: usize,
    /// Decides what is drawn; the same seed gives the same result
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Go on for this long after the last request
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    tail: Duration,
    /// Draw the scenarios over time into this SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Entries of Cloud Logging, one a line or in one array
    Json,
    /// The combined or common log format of Apache and nginx
    Combined,
    /// Columns with a header
    Csv,
}

impl From<LogFormat> for lauf_simulate::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Json => Self::Json,
            LogFormat::Combined => Self::Combined,
            LogFormat::Csv => Self::Csv,
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|s| (0.0..=1.0).contains(s));
    share.ok_or_else(|| "it must be from 0 to 1".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "it must be a duration, such as 15m".to_owned())
}

/// Runs `lauf simulate`.
pub(crate) async fn run(global: &Global, out: &Out, args: SimulateArgs) -> Result<()> {
    let learned = match &args.from_service {
        Some(name) => {
            let api = Api::connect(Target::find(global)?).await?;
            let revision = args.revision.as_deref();
            Some(learn::from_service(&api, name, revision, args.limit).await?)
        }
        None => None,
    };
    if let Some(learned) = &learned {
        out.note(&learned.said());
    }
    let drawing = args.plot.clone();
    let played = tokio::task::spawn_blocking(move || play(&args, learned.as_ref()));
    let (reports, summary) = played.await??;
    tell(out, &summary)?;
    if let Some(path) = drawing {
        fs::write(&path, plot(&reports))
            .with_context(|| format!("cannot write the picture to {}", path.display()))?;
        out.note(&format!("Drawn into {}.", path.display()));
    }
    if out.format == Format::Table {
        return out.raw(table(&reports).as_bytes());
    }
    let all = json!({ "input": summary, "scenarios": reports });
    out.structured(&all).map(|_| ())
}

fn play(args: &SimulateArgs, learned: Option<&Learned>) -> Result<(Vec<Report>, InputSummary)> {
    let scenarios = scenarios(args, learned)?;
    let options = Options {
        seed: args.seed,
        service_time: args.service_time.clone(),
        cpu_share: args.cpu_share,
        tail: args.tail,
    };
    let input = InputOptions {
        format: args.log_format.map(Into::into),
        service: args.service.clone(),
        revision: args.revision.clone(),
        window: args.window,
        seed: args.seed,
    };
    let reader: Box<dyn BufRead> = match (learned, &args.log) {
        (Some(learned), _) => Box::new(&learned.requests[..]),
        (None, Some(path)) if path == Path::new("-") => Box::new(io::stdin().lock()),
        (None, Some(path)) => {
            let file =
                File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            Box::new(BufReader::with_capacity(1 << 20, file))
        }
        (None, None) => bail!("name a log, or a service with --from-service"),
    };
    let mut input = Input::new(reader, input);
    let reports = simulate(&mut input, &scenarios, &options).context("the log cannot be read")?;
    Ok((reports, input.summary().clone()))
}

/// The base, and the scenarios that differ from it.
fn scenarios(args: &SimulateArgs, learned: Option<&Learned>) -> Result<Vec<Scenario>> {
    let start = Distribution::Constant(START);
    let mut base = learned.map_or_else(|| Scenario::new("base", start), |l| l.scenario.clone());
    if let Some(text) = &args.base {
        let name = std::mem::take(&mut base.name);
        base = base.with(text).context("--base")?;
        base.name = name;
    }
    if let Some(start) = &args.start {
        base.start_time = start.clone();
    }
    let mut all = vec![base];
    for text in &args.set {
        let scenario = all[0].with(text).context("--set")?;
        all.push(scenario);
    }
    Ok(all)
}

/// Says what was read, and what could not be.
fn tell(out: &Out, summary: &InputSummary) -> Result<()> {
    if summary.requests == 0 {
        let first = summary.first_bad.first();
        let why = first.map_or_else(
            || "no line of it is about a request".to_owned(),
            |bad| format!("line {} {}", bad.line, bad.why),
        );
        bail!("The log has no requests that can be played: {why}.");
    }
    let mut text = format!("{} requests of {} lines", summary.requests, summary.lines);
    for (count, what) in [
        (summary.others, "are about something else"),
        (summary.late, "came out of order by more than --window"),
        (summary.bad, "make no sense"),
    ] {
        if count > 0 {
            text += &format!("; {count} {what}");
        }
    }
    out.note(&format!("{text}."));
    for bad in &summary.first_bad {
        out.note(&format!("  line {} {}", bad.line, bad.why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn parse(line: &[&str]) -> SimulateArgs {
        let words = std::iter::once(&"simulate").chain(line);
        Line::try_parse_from(words).unwrap().args
    }

    #[test]
    fn scenarios_differ_from_the_base() {
        let args = parse(&[
            "a.log",
            "--base",
            "max=7,min=1",
            "--start",
            "2s",
            "--set",
            "few: max=2",
            "--set",
            "min=0",
        ]);
        let all = scenarios(&args, None).unwrap();
        let said: Vec<_> = all
            .iter()
            .map(|s| (s.name.as_str(), s.settings.min, s.settings.max))
            .collect();
        assert_eq!(said, [("base", 1, 7), ("few", 1, 2), ("min=0", 0, 7)]);
        let start = Distribution::Constant(Duration::from_secs(2));
        assert!(all.iter().all(|s| s.start_time == start));
    }

    #[test]
    fn a_log_is_played_and_what_makes_no_sense_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "t,duration_ms\n0,100\n1,x\n2,300\n").unwrap();
        let args = parse(&[file.path().to_str().unwrap(), "--set", "max=1"]);
        let (reports, summary) = play(&args, None).unwrap();
        assert_eq!((summary.requests, summary.bad), (2, 1));
        assert_eq!(summary.first_bad[0].line, 3);
        assert_eq!(reports.len(), 2);
        assert_eq!(reports[1].totals.served, 2);
    }
}
