//! `bench cold-start`: from the request's sending at zero instances to the 200, beside a bare
//! process and other runtimes, in turns.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::http1;
use crate::machine::{self, now};
use crate::peers::{Bundle, Peer};
use crate::platform::{Api, Platform};
use crate::sample::Sample;
use crate::stats::{Times, heading};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The sample applications.
    #[arg(long, value_delimiter = ',', default_value = "hello,node,flask,java")]
    samples: Vec<String>,
    /// Rounds; each measures everybody once.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Measure Lauf alone.
    #[arg(long)]
    alone: bool,
    /// Milliseconds of rest before each measurement of Lauf, in which its pool is filled again.
    #[arg(long, default_value_t = 100)]
    rest_ms: u64,
    /// Write the result here, too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    machine::check()?;
    let mut peers = Vec::new();
    for peer in Peer::ALL.into_iter().filter(|_| !options.alone) {
        match peer.missing() {
            None => peers.push(peer),
            Some(why) => println!("SKIP {}: {why}", peer.name()),
        }
    }
    let platform = Platform::up(&["--idle-timeout", "300ms"])?;
    let mut api = platform.api();
    // After the platform in this scope, so that its mounts go before the folder does.
    let dir = tempfile::Builder::new()
        .prefix("lauf-bench-peers-")
        .tempdir()?;
    let mut report = Vec::new();
    for name in &options.samples {
        let sample = Sample::read(name)?;
        platform.pack(&sample)?;
        let host = api.deploy(&api.service(name, name, None))?;
        let bundle = (!options.alone)
            .then(|| Bundle::prepare(dir.path(), &sample, &peers))
            .transpose()?;
        let mut lauf = Vec::new();
        let mut others = vec![Vec::new(); peers.len()];
        let mut able = vec![true; peers.len()];
        // The round before the first warms the page cache for everybody and is not counted.
        for round in 0..=options.rounds {
            let rest = Duration::from_millis(options.rest_ms);
            let took = measure(&platform, &mut api, name, &host, rest)?;
            if round > 0 {
                lauf.push(took);
            }
            let Some(bundle) = &bundle else { continue };
            for ((peer, times), able) in peers.iter().zip(&mut others).zip(&mut able) {
                if !*able {
                    continue;
                }
                match bundle.measure(*peer) {
                    Ok(took) if round > 0 => times.push(took),
                    Ok(_) => {}
                    // What does not work on this machine at all is told of once.
                    Err(why) if round == 0 => {
                        println!("SKIP {why:#}");
                        *able = false;
                    }
                    Err(why) => return Err(why),
                }
            }
        }
        let all: Vec<(&str, Times)> = std::iter::once(("lauf", Times::new(lauf)))
            .chain(
                peers
                    .iter()
                    .map(|p| p.name())
                    .zip(others)
                    .filter(|(_, times)| !times.is_empty())
                    .map(|(name, times)| (name, Times::new(times))),
            )
            .collect();
        let bare = all.get(1).map_or(f64::NAN, |(_, times)| times.ms(50));
        println!(
            "\n{name}: from zero to the 200, {} rounds in turns",
            options.rounds
        );
        println!("{}{:>14}", heading(""), "p50 of bare");
        for (who, times) in &all {
            let ratio = times.ms(50) / bare;
            println!("{who:<28}{}{ratio:>14.2}", times.columns());
            let mut row = times.json();
            row["sample"] = json!(name);
            row["runtime"] = json!(who);
            row["p50_ratio_to_bare"] = json!(ratio);
            report.push(row);
        }
        println!("load average: {}", machine::load());
    }
    crate::write(options.json.as_deref(), "cold-start", &report)
}

/// Waits until there is no instance, then asks.
fn measure(
    platform: &Platform,
    api: &mut Api,
    name: &str,
    host: &str,
    rest: Duration,
) -> anyhow::Result<Duration> {
    api.wait_for_none(Some(name))?;
    std::thread::sleep(rest);
    let begin = now();
    let answer = http1::get(platform.address, host, "/")?;
    let took = answer.at - begin;
    if answer.status != 200 {
        anyhow::bail!(
            "{name} answered {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
    }
    Ok(took)
}
