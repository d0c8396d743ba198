//! A PostgreSQL of the demo's own: in a temporary folder, on loopback, gone afterwards.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};

use crate::demo::platform::output;
use crate::{clock, tools};

const PATIENCE: Duration = Duration::from_secs(60);
const USER: &str = "shop";

/// A running server.
pub(super) struct Database {
    addr: SocketAddr,
    password: String,
    server: Child,
    folder: tempfile::TempDir,
}

/// The folder of the newest server's programs; `None` where it or `psql` is not installed.
pub(super) fn programs() -> Option<PathBuf> {
    tools::which("psql")?;
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let folder = entry.path().join("bin");
            folder.join("initdb").exists().then_some((version, folder))
        })
        .collect();
    found.sort();
    Some(found.pop()?.1)
}

impl Database {
    /// Makes and starts one, and waits until it answers.
    pub(super) async fn start(addr: SocketAddr) -> Result<Self> {
        let programs = programs().context("PostgreSQL is not installed")?;
        let folder = tempfile::Builder::new()
            .prefix("lauf-demo-database-")
            .tempdir()?;
        let mut secret = [0; 16];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut secret)?;
        let password: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, &password)?;
        if tools::is_root() {
            // PostgreSQL refuses to run as root; Debian's package has made a user for it.
            let mut own = Command::new("chown");
            output(own.args(["-R", "postgres:"]).arg(folder.path())).await?;
        }
        let data = folder.path().join("data");
        output(
            command(&programs.join("initdb"))
                .args(["--username", USER, "--auth", "scram-sha-256", "--no-sync"])
                .args(["--encoding", "UTF8", "--locale", "C"])
                .arg("--pwfile")
                .arg(&password_file)
                .arg("--pgdata")
                .arg(&data)
                .current_dir(folder.path()),
        )
        .await?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let server = command(&programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-h", "127.0.0.1", "-p", &addr.port().to_string()])
            .args(["-c", "unix_socket_directories="])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C in the terminal is for us.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("starting postgres")?;
        let mut database = Self {
            addr,
            password,
            server,
            folder,
        };
        database.wait().await?;
        Ok(database)
    }

    async fn wait(&mut self) -> Result<()> {
        let start = clock::now();
        while let Err(error) = self.ask("SELECT 1").await {
            let ended = self.server.try_wait()?;
            if ended.is_some() || start.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.folder.path().join("log"));
                bail!(
                    "PostgreSQL does not answer ({error:#}): {}",
                    log.unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Its URL, at a host and port that the caller sees it at.
    pub(super) fn url(&self, host: &str) -> String {
        format!("postgres://{USER}:{}@{host}/postgres", self.password)
    }

    /// What psql prints for a statement, without decoration.
    pub(super) async fn ask(&self, statement: &str) -> Result<String> {
        let port = self.addr.port().to_string();
        let mut psql = Command::new("psql");
        psql.args(["-h", "127.0.0.1", "-p", &port, "-U", USER, "-d", "postgres"])
            .args(["-XAt", "-v", "ON_ERROR_STOP=1", "-c", statement])
            .env("PGPASSWORD", &self.password);
        Ok(output(&mut psql).await?.trim().to_owned())
    }

    /// Stops it without waiting for its clients, and removes its folder.
    pub(super) async fn stop(mut self) -> Result<()> {
        let pid = self.server.id().context("PostgreSQL has ended by itself")?;
        output(Command::new("kill").args(["-INT", &pid.to_string()])).await?;
        let status = tokio::time::timeout(PATIENCE, self.server.wait())
            .await
            .context("PostgreSQL does not stop")??;
        ensure!(status.success(), "PostgreSQL ended with {status}");
        self.folder.close()?;
        Ok(())
    }
}

/// A program of the server, as the user that it runs as.
fn command(program: &Path) -> Command {
    if !tools::is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--",
        ])
        .arg(program);
    command
}
