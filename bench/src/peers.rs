//! The peers of a cold start: the bare process and other runtimes, each with the same files, the
//! host's network, and a client that asks every 0.2 ms until it gets the 200.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::http1;
use crate::machine::{Group, free_port, now};
use crate::sample::Sample;

/// Between two tries to reach a starting server.
const POLL: Duration = Duration::from_micros(200);
/// A server that does not answer by then never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Bare,
    Runc,
    Crun,
    Podman,
    Containerd,
    Docker,
}

impl Peer {
    /// All of them, the bare process first.
    pub(crate) const ALL: [Self; 6] = [
        Self::Bare,
        Self::Runc,
        Self::Crun,
        Self::Podman,
        Self::Containerd,
        Self::Docker,
    ];

    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare process",
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::Docker => "docker",
        }
    }

    /// Why it cannot be measured on this machine, if it cannot.
    pub(crate) fn missing(self) -> Option<String> {
        let ask: &[&str] = match self {
            Self::Bare => return None,
            Self::Runc => &["runc", "--version"],
            Self::Crun => &["crun", "--version"],
            Self::Podman => &["podman", "--version"],
            Self::Containerd => &["ctr", "version"],
            Self::Docker => &["docker", "version"],
        };
        let answer = Command::new(ask[0])
            .args(&ask[1..])
            .stdin(Stdio::null())
            .output();
        match answer {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(_) => Some("not installed".to_owned()),
        }
    }
}

/// A sample's files in a folder of their own, with what a bare process needs of the system mounted;
/// unmounted when dropped.
pub(crate) struct Bundle {
    dir: PathBuf,
    sample: Sample,
    docker_image: Option<String>,
    mounted: bool,
}

impl Bundle {
    /// Copies the sample's files below `dir` and writes the runtimes' settings beside them.
    pub(crate) fn prepare(dir: &Path, sample: &Sample, peers: &[Peer]) -> anyhow::Result<Self> {
        let dir = dir.join(&sample.name);
        fs::create_dir_all(&dir)?;
        let rootfs = dir.join("rootfs");
        run(Command::new("cp")
            .arg("-a")
            .arg(&sample.rootfs)
            .arg(&rootfs))?;
        let mut bundle = Self {
            dir,
            sample: sample.clone(),
            docker_image: None,
            mounted: false,
        };
        for (name, mode) in [("proc", "755"), ("dev", "755"), ("tmp", "1777")] {
            let path = rootfs.join(name);
            fs::create_dir_all(&path)?;
            run(Command::new("chmod").arg(mode).arg(path))?;
        }
        if peers.contains(&Peer::Docker) {
            let name = format!("lauf-bench-{}", sample.name);
            let import = format!("tar -C \"$1\" -c . | docker import - {name}");
            run(Command::new("sh").args(["-c", &import, "sh"]).arg(&rootfs))?;
            bundle.docker_image = Some(name);
        }
        // Last, so that the copy for docker has no devices in it.
        for (name, major_minor) in [
            ("null", ["1", "3"]),
            ("zero", ["1", "5"]),
            ("random", ["1", "8"]),
            ("urandom", ["1", "9"]),
        ] {
            run(Command::new("mknod")
                .args(["-m", "666"])
                .arg(rootfs.join("dev").join(name))
                .arg("c")
                .args(major_minor))?;
        }
        run(Command::new("mount")
            .args(["-t", "proc", "proc"])
            .arg(rootfs.join("proc")))?;
        bundle.mounted = true;
        Ok(bundle)
    }

    fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Starts it once and measures until the 200. Everything is gone afterwards.
    pub(crate) fn measure(&self, peer: Peer) -> anyhow::Result<Duration> {
        let port = free_port()?;
        let id = format!("lauf-bench-{}-{port}", std::process::id());
        let mut command = self.command(peer, &id, port)?;
        let log = File::create(self.dir.join("log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let begin = now();
        let mut process = Group::spawn(&mut command)?;
        let took = self.wait(&mut process, port, begin);
        self.end(peer, &id);
        drop(process);
        if peer != Peer::Bare {
            self.remove(peer, &id);
        }
        took.with_context(|| format!("{} under {}", self.sample.name, peer.name()))
    }

    fn wait(
        &self,
        process: &mut Group,
        port: u16,
        begin: std::time::Instant,
    ) -> anyhow::Result<Duration> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        loop {
            if let Ok(answer) = http1::get(address, "localhost", "/")
                && answer.status == 200
            {
                return Ok(answer.at - begin);
            }
            // A runtime that hands over to a daemon may end before the server answers.
            if begin.elapsed() > PATIENCE || process.ended() {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                bail!("it does not answer:\n{log}");
            }
            std::thread::sleep(POLL);
        }
    }

    fn command(&self, peer: Peer, id: &str, port: u16) -> anyhow::Result<Command> {
        let sample = &self.sample;
        let env = || {
            let port = ("PORT".to_owned(), port.to_string());
            sample.env.clone().into_iter().chain([port])
        };
        let command = match peer {
            // No namespaces: a new root and another user only.
            Peer::Bare => {
                let mut command = Command::new("unshare");
                command.env_clear();
                for (name, value) in env() {
                    command.env(name, value);
                }
                command
                    .arg(option("--root=", &self.rootfs()))
                    .args(["--wd", &sample.workdir])
                    .args(["--setgid", "1000", "--setuid", "1000"])
                    .arg("--")
                    .args(&sample.entrypoint);
                command
            }
            Peer::Runc | Peer::Crun => {
                fs::write(self.dir.join("config.json"), self.config(env())?)?;
                let mut command = Command::new(peer.name());
                command.args(["run", "--bundle"]).arg(&self.dir).arg(id);
                command
            }
            Peer::Podman => {
                let mut command = Command::new("podman");
                command
                    .args([
                        "--runtime=runc",
                        "--cgroup-manager=cgroupfs",
                        "run",
                        "--rm",
                        "--name",
                        id,
                    ])
                    .args(["--network=host", "--user=1000:1000"])
                    .args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"])
                    .args(["--workdir", &sample.workdir, "--entrypoint=[]"]);
                for (name, value) in env() {
                    command.arg(format!("--env={name}={value}"));
                }
                command
                    .arg("--rootfs")
                    .arg(self.rootfs())
                    .args(&sample.entrypoint);
                command
            }
            Peer::Containerd => {
                let mut command = Command::new("ctr");
                command
                    .args(["run", "--rm", "--net-host"])
                    .args(["--cwd", &sample.workdir]);
                for (name, value) in env() {
                    command.arg(format!("--env={name}={value}"));
                }
                command
                    .arg("--rootfs")
                    .arg(self.rootfs())
                    .arg(id)
                    .args(&sample.entrypoint);
                command
            }
            Peer::Docker => {
                let image = self.docker_image.as_ref().context("no image for docker")?;
                let mut command = Command::new("docker");
                command
                    .args(["run", "--rm", "--name", id])
                    .args(["--network=host", "--user=1000:1000"])
                    .args(["--workdir", &sample.workdir]);
                for (name, value) in env() {
                    command.arg(format!("--env={name}={value}"));
                }
                command.arg(image).args(&sample.entrypoint);
                command
            }
        };
        Ok(command)
    }

    /// The settings of an OCI runtime: its own defaults without a network namespace.
    fn config(&self, env: impl Iterator<Item = (String, String)>) -> anyhow::Result<Vec<u8>> {
        let path = self.dir.join("defaults").join("config.json");
        if !path.is_file() {
            let dir = self.dir.join("defaults");
            fs::create_dir_all(&dir)?;
            run(Command::new("runc").args(["spec", "--bundle"]).arg(&dir))
                .or_else(|_| run(Command::new("crun").arg("spec").current_dir(&dir)))?;
        }
        let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let env: Vec<String> = env
            .map(|(name, value)| format!("{name}={value}"))
            .chain(["HOME=/tmp".to_owned()])
            .collect();
        config["root"] = json!({"path": self.rootfs(), "readonly": false});
        let process = &mut config["process"];
        process["terminal"] = false.into();
        process["args"] = json!(self.sample.entrypoint);
        process["env"] = json!(env);
        process["cwd"] = json!(self.sample.workdir);
        process["user"] = json!({"uid": 1000, "gid": 1000});
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
        Ok(serde_json::to_vec(&config)?)
    }

    fn end(&self, peer: Peer, id: &str) {
        let end: &[&str] = match peer {
            Peer::Bare => return,
            Peer::Runc => &["runc", "kill", id, "KILL"],
            Peer::Crun => &["crun", "kill", id, "KILL"],
            Peer::Podman => &["podman", "kill", id],
            Peer::Containerd => &["ctr", "tasks", "kill", "-s", "SIGKILL", id],
            Peer::Docker => &["docker", "kill", id],
        };
        quietly(end);
        // So that a runtime in the foreground sees the end and cleans up by itself.
        std::thread::sleep(Duration::from_millis(50));
    }

    fn remove(&self, peer: Peer, id: &str) {
        let remove: &[&str] = match peer {
            Peer::Runc => &["runc", "delete", "--force", id],
            Peer::Crun => &["crun", "delete", "--force", id],
            Peer::Podman => &["podman", "rm", "--force", id],
            Peer::Containerd => &["ctr", "containers", "delete", id],
            Peer::Docker => &["docker", "rm", "--force", id],
            Peer::Bare => return,
        };
        quietly(remove);
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a process that is ending may still look at it.
            let proc = self.rootfs().join("proc");
            let _ = Command::new("umount").arg("--lazy").arg(proc).status();
        }
        if let Some(image) = &self.docker_image {
            quietly(&["docker", "rmi", "--force", image]);
        }
    }
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

fn quietly(command: &[&str]) {
    // What it ends may be gone already.
    let _ = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        let program = command.get_program().display().to_string();
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
