//! Starts each sample from its root directory, without Lauf, and calls it: proof that an image is whole before it is packed.
//!
//! The process gets a mount and a pid namespace of its own, the image's user and environment and nothing else; all of it ends with it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Built;
use crate::client::Target;
use crate::{clock, tools, ui};

/// How long a sample may take to answer first, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_micros(500);

/// The container for one check: `/proc` and `/dev`, then the root directory, then the user. `$1` is the root, `$2` the working directory.
const CONTAINER: &str = r#"root=$1; dir=$2; shift 2
[ -d "$root/proc" ] && mount -t proc proc "$root/proc"
[ -d "$root/dev" ] && mount --rbind /dev "$root/dev"
exec unshare --root="$root" --wd="$dir" $ids -- "$@""#;

/// What the checks found.
pub(crate) struct Checked {
    pub(crate) passed: usize,
    /// Name and reason.
    pub(crate) failed: Vec<(String, String)>,
}

/// Checks all, and prints a table.
pub(crate) fn check_all(built: &[Built]) -> Result<Checked> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut checked = Checked {
        passed: 0,
        failed: Vec::new(),
    };
    let mut rows = Vec::new();
    for image in built {
        let size = ui::size(tools::tree_size(&image.rootfs));
        let name = image.sample.name;
        match check(image, &runtime) {
            Ok((first, seen)) => {
                checked.passed += 1;
                rows.push(vec![name.to_owned(), size, ui::time(first), seen]);
            }
            Err(error) => {
                rows.push(vec![
                    name.to_owned(),
                    size,
                    "-".to_owned(),
                    "FAILED, see below".to_owned(),
                ]);
                checked.failed.push((name.to_owned(), format!("{error:#}")));
            }
        }
    }
    println!(
        "\n{}",
        ui::table(
            &["sample", "root directory", "start to answer", "seen"],
            &rows
        )
    );
    for (name, reason) in &checked.failed {
        ui::error(&format!("{name}: {reason}"));
    }
    Ok(checked)
}

/// Starts one, waits for its first answer, calls it properly, and asks it to stop.
fn check(image: &Built, runtime: &tokio::runtime::Runtime) -> Result<(Duration, String)> {
    if let Some((args, says)) = image.sample.once() {
        return runtime.block_on(run_once(image, args, says));
    }
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let start = clock::now();
    let mut container = Container::start(image, port, &[])?;
    runtime.block_on(async {
        while !image.sample.ping(addr).await {
            if let Some(status) = container.child.try_wait()? {
                bail!(
                    "it ended before it answered ({status}): {}",
                    container.said()
                );
            }
            if start.elapsed() > PATIENCE {
                bail!(
                    "no answer within {} s: {}",
                    PATIENCE.as_secs(),
                    container.said()
                );
            }
            tokio::time::sleep(POLL).await;
        }
        let first = start.elapsed();
        let answer = image
            .sample
            .call(&Target {
                addr,
                host: addr.to_string(),
            })
            .await?;
        container.stop().await?;
        Ok((first, answer.seen))
    })
}

/// Runs one that is no server to its end.
async fn run_once(image: &Built, args: &[&str], says: &str) -> Result<(Duration, String)> {
    let start = clock::now();
    let mut container = Container::start(image, 0, args)?;
    let status = loop {
        if let Some(status) = container.child.try_wait()? {
            break status;
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "it has not ended after {} s: {}",
            PATIENCE.as_secs(),
            container.said()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let said = container.said();
    ensure!(status.success(), "it ended with {status}: {said}");
    let line = said
        .lines()
        .find(|line| line.contains(says))
        .with_context(|| format!("it did not say {says:?}: {said}"))?;
    Ok((start.elapsed(), line.to_owned()))
}

struct Container {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Container {
    fn start(image: &Built, port: u16, args: &[&str]) -> Result<Self> {
        let log = tempfile::NamedTempFile::new()?;
        let (user, group) = image
            .spec
            .user
            .split_once(':')
            .context("image.json: user must be UID:GID")?;
        // Without root a user namespace has one user only, and the sample runs as that.
        let (outer, ids): (&[&str], String) = if tools::is_root() {
            (&[], format!("--setgid={group} --setuid={user}"))
        } else {
            (&["--user", "--map-root-user"], String::new())
        };
        let child = Command::new("unshare")
            .args(outer)
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "/bin/sh",
                "-c",
                CONTAINER,
                "sh",
            ])
            .arg(&image.rootfs)
            .arg(&image.spec.workdir)
            .args(&image.spec.entrypoint)
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(&image.spec.env)
            .env("ids", ids)
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(log.reopen()?)
            .stderr(log.reopen()?)
            .spawn()
            .context("starting `unshare` (Debian package util-linux)")?;
        Ok(Self { child, log })
    }

    /// Sends SIGTERM to the sample itself, as a platform does, and expects it to end well.
    async fn stop(&mut self) -> Result<()> {
        self.signal("-TERM")?;
        let asked = clock::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(
                    status.success(),
                    "after SIGTERM it ended with {status}: {}",
                    self.said()
                );
                return Ok(());
            }
            ensure!(asked.elapsed() < PATIENCE, "it ignores SIGTERM");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Signals the first process of the pid namespace, which is the sample: with it all others there end.
    fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let main = children
            .split_whitespace()
            .next()
            .context("the sample's process is gone")?;
        tools::quiet(Command::new("kill").args([signal, main]))?;
        Ok(())
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The sample first: changing its user has undone what --kill-child asked of the kernel.
        let _ = self.signal("-KILL");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
