//! A Lauf of our own: started in a temporary folder, spoken to through its command line, taken down without a trace.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::{clock, tools, ui};

/// How long Lauf may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running Lauf.
pub(crate) struct Platform {
    /// Its one port.
    pub(crate) addr: SocketAddr,
    /// Where Pub/Sub is served without credentials, on loopback and to instances.
    pub(crate) pubsub: SocketAddr,
    /// A free port of this machine that instances may reach: the database's.
    pub(crate) database: SocketAddr,
    /// From the start of the process to the first answer of its API.
    pub(crate) ready_in: Duration,
    binary: PathBuf,
    folder: tempfile::TempDir,
    server: Child,
}

/// A service, as `lauf list` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) instances: u64,
}

impl Platform {
    /// Starts Lauf on a free port and waits until it answers.
    pub(crate) async fn start(idle: Duration) -> Result<Self> {
        let binary = tools::target_dir().join("release/lauf");
        let folder = tempfile::Builder::new().prefix("lauf-demo-").tempdir()?;
        let [addr, pubsub, database] = free_addresses()?;
        let log = fs::File::create(folder.path().join("lauf.log"))?;
        let mut command = Command::from(tools::as_root(&binary).context("no way to root")?);
        command
            .arg("up")
            .arg("--data")
            .arg(folder.path().join("data"))
            .args([
                "--listen",
                &addr.to_string(),
                "--idle-timeout",
                &format!("{}s", idle.as_secs()),
                "--pubsub-emulator",
                &pubsub.to_string(),
                "--egress-host-ports",
                &format!("{},{}", pubsub.port(), database.port()),
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // Ctrl-C in the terminal is for us: we take the server down in order.
        command.process_group(0);
        let start = clock::now();
        let server = command
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let mut platform = Self {
            addr,
            pubsub,
            database,
            ready_in: Duration::ZERO,
            binary,
            folder,
            server,
        };
        while let Err(error) = platform.services().await {
            if let Some(status) = platform.server.try_wait()? {
                platform.show_log();
                bail!("lauf ended at once ({status})");
            }
            if start.elapsed() > PATIENCE {
                platform.show_log();
                platform.stop().await?;
                bail!(
                    "lauf did not answer within {} s: {error:#}",
                    PATIENCE.as_secs()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        platform.ready_in = start.elapsed();
        ui::step(&format!(
            "ready on {addr} after {}, data in {}",
            ui::time(platform.ready_in),
            platform.folder.path().display()
        ));
        Ok(platform)
    }

    /// Runs a command of Lauf's own command line against this server, and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub(crate) async fn lauf<S: AsRef<str>>(&self, args: &[S]) -> Result<String> {
        // As root, because the administrator's token is root's.
        let mut command = Command::from(tools::as_root("env").context("no way to root")?);
        command
            .arg(format!(
                "LAUF_DATA={}",
                self.folder.path().join("data").display()
            ))
            .arg(format!("LAUF_SERVER=http://{}", self.addr))
            .arg(&self.binary)
            .args(args.iter().map(AsRef::as_ref));
        output(&mut command).await
    }

    /// All services.
    pub(crate) async fn services(&self) -> Result<Vec<Service>> {
        let text = self.lauf(&["list", "--format", "json"]).await?;
        services(
            &serde_json::from_str(&text)
                .with_context(|| format!("`lauf list --format json` printed {text:?}"))?,
        )
    }

    /// One service.
    pub(crate) async fn service(&self, name: &str) -> Result<Service> {
        let all = self.services().await?;
        all.into_iter()
            .find(|service| service.name == name)
            .with_context(|| format!("there is no service {name}"))
    }

    /// Prints the end of the server's log.
    pub(crate) fn show_log(&self) {
        let log = fs::read(self.folder.path().join("lauf.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        ui::warn("the last lines of lauf's log:");
        for line in &lines[lines.len().saturating_sub(40)..] {
            println!("      | {line}");
        }
    }

    /// Takes everything down, and checks that the server has ended and its folder is gone.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let data = self
            .folder
            .path()
            .join("data")
            .to_string_lossy()
            .into_owned();
        let down = self.lauf(&["down", "--purge", "--data", &data]).await;
        if let Err(error) = &down {
            ui::warn(&format!("{error:#}"));
            let running = matches!(self.server.try_wait(), Ok(None));
            if let (Some(pid), true, Some(kill)) =
                (self.server.id(), running, tools::as_root("kill"))
            {
                let _ = output(Command::from(kill).args(["-TERM", &pid.to_string()])).await;
            }
        }
        tokio::time::timeout(PATIENCE, self.server.wait())
            .await
            .context("the server does not end")??;
        // Root's files in our folder need root to remove them.
        let folder = self.folder.keep();
        let mut remove = Command::from(tools::as_root("rm").context("no way to root")?);
        output(remove.args(["-rf", "--one-file-system", "--"]).arg(&folder)).await?;
        down?;
        ui::step("nothing is left");
        Ok(())
    }

    /// Forgets the server, and says how to reach and to stop it.
    pub(crate) fn leave_running(self) {
        let data = self.folder.keep().join("data");
        let sudo = if tools::is_root() { "" } else { "sudo " };
        ui::heading("left running");
        ui::step(&format!("address  http://{}", self.addr));
        ui::step(&format!(
            "list     {sudo}LAUF_DATA={} LAUF_SERVER=http://{} {} list",
            data.display(),
            self.addr,
            self.binary.display()
        ));
        ui::step(&format!(
            "stop     {sudo}{} down --purge --data {}",
            self.binary.display(),
            data.display()
        ));
    }
}

/// Addresses on loopback whose ports nobody has, all different.
fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    // All are taken at once, so that none is given twice.
    let mut listeners = Vec::new();
    for address in &mut addresses {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(addresses)
}

/// Runs a command to its end; its standard output, or an error with what it said.
pub(crate) async fn output(command: &mut Command) -> Result<String> {
    let shown = tools::shown(command.as_std());
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("could not start `{shown}`"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    bail!("`{shown}` failed ({}): {}", output.status, said.trim())
}

/// Reads the services out of a list, whether it stands alone or in an object.
fn services(list: &Value) -> Result<Vec<Service>> {
    let items = list
        .as_array()
        .or_else(|| {
            ["services", "items"]
                .iter()
                .find_map(|key| list[key].as_array())
        })
        .context("`lauf list --format json` printed neither a list nor an object with services")?;
    items
        .iter()
        .map(|item| {
            let text = |keys: &[&str]| keys.iter().find_map(|key| item.pointer(key)?.as_str());
            let name = text(&["/name", "/metadata/name"]).context("a service without a name")?;
            let instances = item["instances"]
                .as_u64()
                .with_context(|| format!("{name} has no count of instances"))?;
            Ok(Service {
                name: name.rsplit('/').next().unwrap_or(name).to_owned(),
                // A service that is not ready yet has none.
                url: text(&["/url", "/uri", "/status/url"])
                    .unwrap_or_default()
                    .to_owned(),
                instances,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_from_either_form() {
        let alone = serde_json::json!([{"name": "hello", "url": "http://hello.run.localhost:1", "instances": 3}]);
        let service = Service {
            name: "hello".into(),
            url: "http://hello.run.localhost:1".into(),
            instances: 3,
        };
        assert_eq!(services(&alone).unwrap(), std::slice::from_ref(&service));
        let item = serde_json::json!({"name": "projects/p/locations/l/services/hello", "uri": service.url, "instances": 3});
        assert_eq!(
            services(&serde_json::json!({ "services": [item] })).unwrap(),
            [service]
        );
        assert!(services(&serde_json::json!({"error": "x"})).is_err());
    }
}
