//! `bench deploy`: from storing a service to `Ready`, its image being there already.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::machine::{self, now};
use crate::platform::Platform;
use crate::sample::Sample;
use crate::stats::{Times, heading};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// New services, and as many changes of one service.
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// The sample application.
    #[arg(long, default_value = "hello")]
    sample: String,
    /// Write the result here, too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Between two looks at the service.
const POLL: Duration = Duration::from_millis(1);

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    machine::check()?;
    let platform = Platform::up(&["--idle-timeout", "1s"])?;
    let image = &options.sample;
    platform.pack(&Sample::read(image)?)?;
    let mut api = platform.api();
    // The first deploy of all unpacks the image and is not counted.
    api.deploy(&api.service("changed", image, None))?;
    let (mut stored, mut updates, mut creates) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let mut service = api.read("changed")?;
        if let Some(object) = service.as_object_mut() {
            object.remove("status");
        }
        let container = &mut service["spec"]["template"]["spec"]["containers"][0];
        container["env"] = json!([{"name": "MESSAGE", "value": format!("round {round}")}]);
        let begin = now();
        api.put("changed", &service)?;
        stored.push(begin.elapsed());
        api.ready("changed", POLL)?;
        updates.push(begin.elapsed());

        let name = format!("new-{round}");
        let service = api.service(&name, image, None);
        let begin = now();
        api.create(&service)?;
        api.ready(&name, POLL)?;
        creates.push(begin.elapsed());
    }
    println!(
        "{}",
        heading(&format!("deploy of {image}, {} rounds", options.rounds))
    );
    let mut report = Vec::new();
    for (what, times) in [
        ("PUT answered", stored),
        ("PUT to Ready", updates),
        ("POST to Ready", creates),
    ] {
        let times = Times::new(times);
        println!("{what:<28}{}", times.columns());
        let mut row = times.json();
        row["what"] = json!(what);
        report.push(row);
    }
    println!("load average: {}", machine::load());
    crate::write(options.json.as_deref(), "deploy", &report)
}
