//! `cargo xtask demo`: the whole of Lauf, shown on this machine in a few minutes.
//!
//! The story, in order: [`plan`] says what will happen, [`platform`] starts Lauf in a temporary folder, [`deploy`] brings the samples up
//! with the tools a user would take, each is called from zero, [`load`] makes instances rise while [`live`] shows them, [`split`] divides
//! the traffic, [`work`] shows jobs, workers and messages, and [`table`] tells what was measured. Whatever happens, everything is taken down again unless `--keep` is given.

mod deploy;
mod live;
mod load;
mod plan;
mod platform;
mod split;
mod table;
mod work;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::samples::{self, Sample};
use crate::setup::{self, Purpose};
use crate::{client::Target, clock, images, tools, ui};
use deploy::Deployer;
use platform::Platform;
use table::{Report, Row, WorkRow};

/// Instances stop after this much idleness in the demo; the product's default is 15 minutes.
const IDLE: Duration = Duration::from_secs(5);

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave Lauf and the services running at the end
    #[arg(long)]
    keep: bool,
    /// Show only this sample beside hello (can be given more than once)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Deploy with `lauf` even where there is a gcloud
    #[arg(long)]
    no_gcloud: bool,
    /// Install what is missing without asking
    #[arg(long, short)]
    yes: bool,
}

/// Shows everything; true when every sample answered rightly and the scaling and the split were seen.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let mut wanted = samples::chosen(&args.only)?;
    let starting = clock::now();
    if !wanted.iter().any(|sample| sample.name == "hello") {
        wanted.insert(0, &samples::ALL[0]);
    }
    plan::say(&wanted, args.keep);
    ui::heading("setup");
    setup::ensure(Purpose::Demo, args.yes)?;
    plan::ask_for_root()?;

    ui::heading("building lauf (release)");
    let start = clock::now();
    let built = tools::loud(tools::cargo().args(["build", "--release", "-p", "lauf"]))?;
    anyhow::ensure!(built, "lauf could not be built");
    ui::step(&format!("built in {}", ui::time(start.elapsed())));

    ui::heading("building the root directories of the images");
    // What could not be installed is told by the setup; a service that lacks something is an error all the same.
    let (wanted, skipped): (Vec<_>, Vec<_>) = wanted
        .into_iter()
        .partition(|sample| !sample.work || work::lacks(sample).is_none());
    let built = images::build_all(&wanted, None)?;

    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            ui::heading("starting lauf");
            let platform = Platform::start(IDLE).await?;
            let mut report = Report::new(platform.ready_in);
            for sample in skipped {
                let lack = work::lacks(sample).unwrap_or_default();
                ui::warn(&format!("SKIPPED {}: {lack}", sample.name));
                report.work.push(WorkRow::skipped(sample, lack));
            }
            let story = async {
                let told = tell(args, &platform, &built, &mut report).await;
                if let Err(error) = &told {
                    report.problem(format!("{error:#}"));
                }
            };
            let interrupted = tokio::select! {
                () = story => false,
                _ = tokio::signal::ctrl_c() => true,
            };
            if interrupted {
                report.problem("interrupted".to_owned());
            }
            let good = report.print();
            ui::step(&format!("all of it took {}", ui::time(starting.elapsed())));
            if !good {
                platform.show_log();
            }
            if args.keep && !interrupted {
                platform.leave_running();
            } else {
                ui::heading("taking everything down");
                platform.stop().await?;
            }
            Ok(good)
        })
}

async fn tell(
    args: &Args,
    platform: &Platform,
    built: &[images::Built],
    report: &mut Report,
) -> Result<()> {
    let deployer = Deployer::choose(platform, args.no_gcloud).await;
    ui::heading(&format!(
        "packing, pushing and deploying with {}",
        deployer.name()
    ));
    let mut up: Vec<&'static Sample> = Vec::new();
    for image in built.iter().filter(|image| !image.sample.work) {
        let sample = image.sample;
        let mut row = Row::new(sample, tools::tree_size(&image.rootfs));
        match bring_up(platform, &deployer, image, &mut row).await {
            Ok(()) => {
                let [pack, deploy] =
                    [row.pack, row.deploy].map(|time| time.map(ui::time).unwrap_or_default());
                ui::step(&format!(
                    "{:6} packed and pushed in {pack}, deployed in {deploy}",
                    sample.name
                ));
                up.push(sample);
            }
            Err(error) => {
                ui::warn(&format!("{}: {error:#}", sample.name));
                row.failed = Some(format!("{error:#}"));
            }
        }
        report.rows.push(row);
    }

    ui::heading("waiting until nothing runs");
    live::until_all_idle(platform)
        .await
        .context("instances did not go away when idle")?;

    ui::heading("calling each from zero");
    for sample in up {
        let row = report.row(sample);
        match call(platform, sample, row).await {
            Ok(()) => ui::step(&format!(
                "{:6} {:>10}  {}",
                sample.name,
                row.cold.map(ui::time).unwrap_or_default(),
                row.seen
            )),
            Err(error) => {
                ui::warn(&format!("{}: {error:#}", sample.name));
                row.failed = Some(format!("{error:#}"));
            }
        }
    }

    ui::heading("load on hello: instances rise, and fall again");
    report.scaling = Some(live::rise_and_fall(platform).await?);

    ui::heading("splitting the traffic of hello between two revisions");
    report.split = Some(split::show(platform, &deployer).await?);

    if built.iter().any(|image| image.sample.work) {
        ui::heading("asynchronous work: jobs, a worker pool, messages");
    }
    for image in built.iter().filter(|image| image.sample.work) {
        let start = clock::now();
        let mut row = WorkRow::new(image.sample, tools::tree_size(&image.rootfs));
        let shown = async {
            pack(platform, image).await?;
            work::show(platform, image.sample).await
        };
        match shown.await {
            Ok(seen) => {
                ui::step(&format!("{:10} {seen}", image.sample.name));
                row.seen = seen;
            }
            Err(error) => {
                ui::warn(&format!("{}: {error:#}", image.sample.name));
                row.failed = Some(format!("{error:#}"));
            }
        }
        row.took = Some(start.elapsed());
        report.work.push(row);
    }
    Ok(())
}

/// From a root directory to a service that is ready.
async fn bring_up(
    platform: &Platform,
    deployer: &Deployer,
    image: &images::Built,
    row: &mut Row,
) -> Result<()> {
    let start = clock::now();
    pack(platform, image).await?;
    row.pack = Some(start.elapsed());
    let start = clock::now();
    deployer.deploy(platform, image.sample).await?;
    row.deploy = Some(start.elapsed());
    Ok(())
}

/// Puts a root directory into the registry as an image of the sample's name.
async fn pack(platform: &Platform, image: &images::Built) -> Result<()> {
    let name = image.sample.name;
    let rootfs = image.rootfs.to_string_lossy().into_owned();
    let mut pack = vec![
        "image".to_owned(),
        "pack".to_owned(),
        rootfs,
        "-t".to_owned(),
        name.to_owned(),
    ];
    pack.extend(image.spec.pack_args()?);
    platform.lauf(&pack).await?;
    Ok(())
}

/// Calls a service that has no instance, and once more when it has one.
async fn call(platform: &Platform, sample: &Sample, row: &mut Row) -> Result<()> {
    let service = platform.service(sample.name).await?;
    anyhow::ensure!(
        service.instances == 0,
        "it has {} instances already, so this is no start from zero",
        service.instances
    );
    let target = Target::of_url(&service.url, platform.addr);
    let cold = sample.call(&target).await?;
    row.cold = Some(cold.first);
    row.seen = cold.seen;
    row.warm = Some(sample.call(&target).await?.first);
    Ok(())
}
