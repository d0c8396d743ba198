//! `lauf down`: ends the server, its instances and the keeper.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use lauf_sandbox::{KeeperClient, KeeperConfig, KeeperSettings};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::settings::find_program;
use crate::up::{self, KEEPER_WORD};

/// Options of `down`.
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Also remove the data folder: images, services, logs, everything.
    #[arg(long)]
    purge: bool,
}

/// How long the server may take to finish the requests in flight.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn run(data: &Path, arguments: &DownArgs) -> anyhow::Result<ExitCode> {
    let data = std::path::absolute(data)?;
    if !data.is_dir() {
        bail!(
            "there is no data folder {}; name it with --data",
            data.display()
        );
    }
    end_server(&data).await?;
    end_keeper(&data).await?;
    if arguments.purge {
        // Only what `up` has made: the folder may have been somebody's own.
        for name in ["events", "images", "keeper", "logs", "tls"] {
            remove(fs::remove_dir_all(data.join(name)), &data.join(name))?;
        }
        for name in [
            "state.db",
            "state.db-wal",
            "state.db-shm",
            "state.db.lock",
            "admin.token",
            "server.json",
            "server.lock",
            "spool.position",
        ] {
            remove(fs::remove_file(data.join(name)), &data.join(name))?;
        }
        // Not empty: the user's own settings file stays.
        let _ = fs::remove_dir(&data);
    }
    eprintln!("lauf: down");
    Ok(ExitCode::SUCCESS)
}

fn remove(result: std::io::Result<()>, path: &Path) -> anyhow::Result<()> {
    match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

async fn end_server(data: &Path) -> anyhow::Result<()> {
    let lock = fs::File::options()
        .read(true)
        .write(true)
        .open(data.join("server.lock"));
    let Ok(lock) = lock else { return Ok(()) };
    if lock.try_lock().is_ok() {
        return Ok(());
    }
    let pid = up::server_pid(data).and_then(Pid::from_raw);
    let Some(pid) = pid else {
        bail!(
            "a server holds {} but says not where it is; end it and try again",
            data.display()
        );
    };
    kill_process(pid, Signal::TERM).context("cannot signal the server; run as its user or root")?;
    let gone = async {
        while test_kill_process(pid).is_ok() && lock.try_lock().is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, gone).await.is_err() {
        bail!(
            "the server (process {}) did not end; end it with kill -9 and try again",
            pid.as_raw_nonzero()
        );
    }
    Ok(())
}

/// The keeper takes all of its instances, cgroups, links and rules with it. A keeper is started for
/// it when there is none, since a killed one may have left things behind.
async fn end_keeper(data: &Path) -> anyhow::Result<()> {
    let state_dir = data.join("keeper");
    if !state_dir.is_dir() {
        return Ok(());
    }
    let mut settings = KeeperSettings {
        pool_size: 0,
        ..KeeperSettings::new(state_dir)
    };
    // Named so that what a killed keeper left of the network goes too; needs nft as `up` does.
    if find_program("nft").is_some() {
        settings.network = Some(up::network_config(&settings, Vec::new()));
    }
    let config = KeeperConfig {
        exe: std::env::current_exe()?,
        args: vec![KEEPER_WORD.to_owned()],
        settings,
    };
    let (keeper, _events) = KeeperClient::connect_or_spawn(config)
        .await
        .context("cannot reach the keeper")?;
    keeper
        .shutdown()
        .await
        .context("the keeper could not clean up")?;
    Ok(())
}
