//! Starting the programs that messages go through.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::machine::{Group, free_port, now};

/// A server that does not listen by then never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server with files in a folder of its own.
pub(crate) struct Server {
    process: Group,
    pub(crate) port: u16,
    // Last, so that the folder goes after the server.
    _dir: tempfile::TempDir,
}

impl Server {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Starts what `command` makes of a port and a folder, and waits until it listens.
    pub(crate) async fn start(
        dir: tempfile::TempDir,
        command: impl FnOnce(u16, &Path) -> anyhow::Result<Command>,
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let log = dir.path().join("log");
        let mut command = command(port, dir.path())?;
        let mut process = Group::spawn(
            command
                .stdin(Stdio::null())
                .stdout(File::create(&log)?)
                .stderr(File::options().append(true).open(&log)?),
        )?;
        let begin = now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if process.ended() || begin.elapsed() > PATIENCE {
                bail!(
                    "it does not listen: {}",
                    fs::read_to_string(&log).unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self {
            process,
            port,
            _dir: dir,
        })
    }

    /// A NATS server that syncs to the disk so often: `always` is each message.
    pub(crate) async fn nats(dir: tempfile::TempDir, sync: &str) -> anyhow::Result<Self> {
        let program = find("LAUF_NATS_SERVER", "nats-server")?;
        Self::start(dir, |port, dir| {
            let config = dir.join("nats.conf");
            fs::write(
                &config,
                format!(
                    "listen: \"127.0.0.1:{port}\"\njetstream {{\n  store_dir: \"{}\"\n  sync_interval: {sync}\n}}\n",
                    dir.join("store").display()
                ),
            )?;
            let mut command = Command::new(program);
            command.arg("--config").arg(config);
            Ok(command)
        })
        .await
    }

    /// A Redis server that syncs before it answers.
    pub(crate) async fn redis(dir: tempfile::TempDir) -> anyhow::Result<Self> {
        let program = find("REDIS_SERVER", "redis-server")?;
        Self::start(dir, |port, dir| {
            let mut command = Command::new(program);
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]);
            command.arg(dir);
            command.args([
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--save",
                "",
            ]);
            Ok(command)
        })
        .await
    }

    /// Google's emulator, as `gcloud beta emulators pubsub start` starts it.
    pub(crate) async fn emulator(dir: tempfile::TempDir) -> anyhow::Result<Self> {
        let gcloud = fs::canonicalize(find("GCLOUD", "gcloud")?)?;
        let sdk = gcloud.parent().and_then(Path::parent);
        let program = sdk
            .context("gcloud has no folder")?
            .join("platform/pubsub-emulator/bin/cloud-pubsub-emulator");
        if !program.is_file() {
            bail!("{} is not there", program.display());
        }
        Self::start(dir, |port, _| {
            let mut command = Command::new(program);
            command
                .arg("--host=127.0.0.1")
                .arg(format!("--port={port}"));
            Ok(command)
        })
        .await
    }
}

/// The program that a variable names, or the one on `PATH`.
fn find(variable: &str, name: &str) -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
        .with_context(|| format!("there is no {name} on PATH, and {variable} names none"))
}
