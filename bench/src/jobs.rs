//! `bench jobs`: an execution with many one-line tasks at full parallelism, beside as many bare
//! sandboxes with the same program, started by the same keeper program with nothing around it.

use std::fs;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use lauf_sandbox::{
    ContainerSpec, ExitStatus, InstanceId, KeeperClient, KeeperConfig, KeeperEvent, KeeperSettings,
};
use serde_json::json;

use crate::machine::{self, now};
use crate::platform::{Platform, program};
use crate::sample::Sample;
use crate::stats::{Times, heading};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Tasks of an execution, and sandboxes.
    #[arg(long, default_value_t = 1000)]
    tasks: u32,
    /// Executions, and as many runs of bare sandboxes, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Write the result here, too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Between two looks at an execution.
const POLL: Duration = Duration::from_millis(5);
/// The host id of user 0 in bare sandboxes.
const UID_BASE: u32 = 1_000_000;
/// Starts under way at once, as many as the platform allows itself.
const STARTS: usize = 16;

/// The task: one line, and the end.
const PROGRAM: &str =
    "#include <unistd.h>\nint main(void) { return write(1, \"done\\n\", 5) != 5; }\n";

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    machine::check()?;
    let dir = tempfile::Builder::new().prefix("lauf-bench-").tempdir()?;
    let rootfs = compile(dir.path())?;
    let (mut bare, mut jobs) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        bare.push(sandboxes(dir.path(), options.tasks)?);
        jobs.push(execution(&rootfs, options.tasks)?);
    }
    let title = format!(
        "{} one-line tasks, {} rounds",
        options.tasks, options.rounds
    );
    println!("{}", heading(&title));
    let mut report = Vec::new();
    let (bare, jobs) = (Times::new(bare), Times::new(jobs));
    for (what, times) in [("bare sandboxes", &bare), ("a job's execution", &jobs)] {
        println!("{what:<28}{}", times.columns());
        let mut row = times.json();
        row["what"] = json!(what);
        report.push(row);
    }
    let ratio = jobs.ms(50) / bare.ms(50);
    println!(
        "ratio {ratio:.2}; {:.0} tasks a second; load average: {}",
        f64::from(options.tasks) / jobs.ms(50) * 1e3,
        machine::load()
    );
    report.push(json!({"what": "ratio", "ratio": ratio}));
    crate::write(options.json.as_deref(), "jobs", &report)
}

/// Compiles the task into a folder that is a root file system.
fn compile(dir: &Path) -> anyhow::Result<PathBuf> {
    let rootfs = dir.join("rootfs");
    fs::create_dir(&rootfs)?;
    fs::write(dir.join("line.c"), PROGRAM)?;
    let done = Command::new("cc")
        .args(["-O1", "-static", "-o"])
        .arg(rootfs.join("line"))
        .arg(dir.join("line.c"))
        .stdin(Stdio::null())
        .status()
        .context("cc is missing: apt install gcc libc6-dev")?;
    if !done.success() {
        bail!("cc failed: {done}");
    }
    Ok(rootfs)
}

/// How long `count` sandboxes take, from the first start to the last exit.
fn sandboxes(dir: &Path, count: u32) -> anyhow::Result<Duration> {
    let layer = dir.join("layer");
    if !layer.exists() {
        fs::create_dir(&layer)?;
        fs::copy(dir.join("rootfs/line"), layer.join("line"))?;
        for path in [layer.clone(), layer.join("line")] {
            lchown(path, Some(UID_BASE), Some(UID_BASE))?;
        }
    }
    let state = tempfile::Builder::new().prefix("keeper").tempdir_in(dir)?;
    let mut settings = KeeperSettings::new(state.path().join("state"));
    settings.uid_base = UID_BASE;
    settings.layer_dirs = vec![layer.clone()];
    settings.pool_size = 8;
    let config = KeeperConfig {
        exe: program()?,
        args: vec!["keeper".to_owned()],
        settings,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (keeper, mut events) = KeeperClient::connect_or_spawn(config).await?;
        // The pool of the platform is full when an execution begins, too.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let keeper = std::sync::Arc::new(keeper);
        let begin = now();
        let starts = {
            let (keeper, layer) = (std::sync::Arc::clone(&keeper), layer.clone());
            tokio::spawn(async move {
                let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(STARTS));
                let mut running = tokio::task::JoinSet::new();
                for number in 0..count {
                    let permit = std::sync::Arc::clone(&permits).acquire_owned().await;
                    let (keeper, spec) = (std::sync::Arc::clone(&keeper), spec(number, &layer)?);
                    running.spawn(async move {
                        let _permit = permit;
                        keeper.start(spec).await.map(drop)
                    });
                }
                while let Some(started) = running.join_next().await {
                    started??;
                }
                anyhow::Ok(())
            })
        };
        let mut ended = 0;
        while ended < count {
            if let Some(KeeperEvent::Exited(exit)) = events.recv().await {
                if exit.status != ExitStatus::Code(0) {
                    bail!("a sandbox ended with {:?}", exit.status);
                }
                keeper.forget(&exit.id)?;
                ended += 1;
            }
        }
        let took = begin.elapsed();
        starts.await??;
        if let Some(keeper) = std::sync::Arc::into_inner(keeper) {
            keeper.shutdown().await?;
        }
        Ok(took)
    })
}

fn spec(number: u32, layer: &Path) -> anyhow::Result<ContainerSpec> {
    let id = InstanceId::new(format!("b{number}"))?;
    let mut spec = ContainerSpec::new(id, vec![layer.to_owned()], vec!["/line".to_owned()]);
    // As much as a job's container has that says nothing.
    (spec.memory_bytes, spec.cpu_millis) = (512 << 20, 1000);
    (spec.uid, spec.gid) = (1000, 1000);
    Ok(spec)
}

/// How long one execution takes, from `:run` to its last task's end, as a client sees it.
fn execution(rootfs: &Path, tasks: u32) -> anyhow::Result<Duration> {
    // As the sandboxes beside it, without a network of its own.
    let platform = Platform::up(&["--egress", "false"])?;
    platform.pack(&Sample {
        name: "line".to_owned(),
        rootfs: rootfs.to_owned(),
        entrypoint: vec!["/line".to_owned()],
        env: Default::default(),
        workdir: "/".to_owned(),
    })?;
    let mut api = platform.api();
    // The first execution unpacks the image and is not counted.
    api.create_job("line", "line", tasks)?;
    let first = api.run_job("line", Some(1))?;
    api.completed(&first, POLL)?;
    let begin = now();
    let name = api.run_job("line", None)?;
    let ended = api.completed(&name, POLL)?;
    let took = begin.elapsed();
    if ended["status"]["succeededCount"] != tasks {
        bail!("not all tasks succeeded: {}", ended["status"]);
    }
    Ok(took)
}
