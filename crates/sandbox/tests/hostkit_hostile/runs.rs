//! One run of the hostile program, with a neighbour, under each runtime.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lauf_sandbox::settings::Egress;
use lauf_sandbox::spool::{Entry, Position, SpoolReader};
use lauf_sandbox::{
    ContainerSpec, InstanceId, KeeperClient, KeeperConfig, KeeperEvent, KeeperSettings,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::outside::{Outside, Reached};
use crate::{Verdicts, docker};

pub(crate) const UID_BASE: u32 = 2_200_000;
const MEMORY: u64 = 128 << 20;
const PIDS: u32 = 200;
const NEIGHBOUR_PORT: u16 = 7777;

fn verdicts(text: &str) -> Verdicts {
    text.lines()
        .filter_map(|line| line.rsplit_once(": "))
        .map(|(name, verdict)| (name.to_owned(), verdict.trim().to_owned()))
        .collect()
}

// === Lauf ===

struct Reading {
    events: mpsc::Receiver<KeeperEvent>,
    reader: SpoolReader,
    entries: Vec<Entry>,
}

impl Reading {
    /// Waits until an instance has said a line, or has ended when there is none to wait for.
    async fn until(&mut self, client: &KeeperClient, id: &InstanceId, line: Option<&[u8]>) {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(120), self.events.recv()).await;
            let event = event.expect("the container goes on for ever").unwrap();
            self.entries.extend(self.reader.read(16 << 20).unwrap());
            client.logs_seen(self.reader.position()).unwrap();
            let of = |entry: &&Entry| entry.instance == id.as_str();
            match (event, line) {
                (KeeperEvent::Exited(exited), _) if exited.id == *id => {
                    assert!(line.is_none(), "it ended early: {exited:?}");
                    return;
                }
                (_, Some(line))
                    if self
                        .entries
                        .iter()
                        .filter(of)
                        .any(|entry| entry.bytes == line) =>
                {
                    return;
                }
                _ => {}
            }
        }
    }

    fn text(&self, id: &InstanceId) -> String {
        let lines = self.entries.iter().filter(|e| e.instance == id.as_str());
        lines
            .map(|entry| String::from_utf8_lossy(&entry.bytes).into_owned() + "\n")
            .collect()
    }
}

fn spec(dir: &Path, name: &str, words: Vec<String>) -> ContainerSpec {
    let id = InstanceId::new(format!("{name}-{}", std::process::id())).unwrap();
    let mut spec = ContainerSpec::new(id, vec![dir.join("layer")], words);
    (spec.memory_bytes, spec.pids_max, spec.cpu_millis) = (MEMORY, PIDS, 1000);
    spec
}

/// What came of it, and what there was to be reached.
pub(crate) fn under_lauf(dir: &Path, outside: &Outside) -> (Verdicts, Reached) {
    let mut settings = KeeperSettings::new(dir.join("state"));
    settings.pool_size = 1;
    settings.uid_base = UID_BASE;
    settings.layer_dirs = vec![dir.to_owned()];
    settings.network = Some(Egress {
        name: "lsbxh".to_owned(),
        subnet: None,
        private: Vec::new(),
        allow_host_ports: vec![outside.open.local_addr().unwrap().port()],
        dns_port: None,
        metadata_port: None,
    });
    let config = KeeperConfig {
        exe: std::env::current_exe().unwrap(),
        args: vec!["keeper".to_owned()],
        settings,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, events) = KeeperClient::connect_or_spawn(config).await.unwrap();
        let mut reading = Reading {
            events,
            reader: SpoolReader::open(client.spool_dir(), Position::default()),
            entries: Vec::new(),
        };
        let neighbour = spec(
            dir,
            "neighbour",
            vec!["/hostile".into(), "neighbour".into()],
        );
        let id = neighbour.id.clone();
        let neighbour = client.start(neighbour).await.unwrap();
        reading.until(&client, &id, Some(b"ready")).await;
        // That it listens is seen from inside its namespace.
        neighbour.netns.connect(NEIGHBOUR_PORT).unwrap();
        let reached = Reached {
            gateway: client.gateways()[0],
            neighbour: neighbour.info.ip.unwrap(),
            pid: neighbour.info.pid,
            has_network: true,
        };
        let hostile = spec(dir, "hostile", outside.words(&reached));
        let id = hostile.id.clone();
        let _started = client.start(hostile).await.unwrap();
        reading.until(&client, &id, None).await;
        client.shutdown().await.unwrap();
        (verdicts(&reading.text(&id)), reached)
    })
}

// === runc ===

/// What runc is told to give.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What `runc spec` writes.
    Spec,
    /// What Docker gives when nothing is asked for.
    Docker,
    /// `runc spec` with the filter that Lauf hands to OCI runtimes.
    OurFilter,
}

/// A container of runc, deleted when dropped.
struct Container {
    runc: PathBuf,
    id: String,
    process: Child,
}

impl Container {
    fn run(dir: &Path, name: &str, words: &[String], profile: Profile) -> Self {
        let bundle = dir.join(name);
        write_bundle(&bundle, words, profile);
        let records = dir.join("records");
        let id = format!("hostkit-{name}-{}", std::process::id());
        let process = Command::new("runc")
            .arg("--root")
            .arg(&records)
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg("--pid-file")
            .arg(bundle.join("pid"))
            .arg(&id)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            runc: records,
            id,
            process,
        }
    }
}

impl Container {
    /// runc writes it when the container runs already.
    fn pid(&self, file: &Path) -> u32 {
        (0..1000)
            .find_map(|_| {
                std::thread::sleep(Duration::from_millis(10));
                fs::read_to_string(file).ok()?.trim().parse().ok()
            })
            .unwrap_or_else(|| panic!("no pid of {}", self.id))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("runc")
            .arg("--root")
            .arg(&self.runc)
            .args(["delete", "--force", &self.id])
            .stderr(Stdio::null())
            .status();
        let _ = self.process.wait();
    }
}

fn write_bundle(bundle: &Path, words: &[String], profile: Profile) {
    let file = bundle.join("config.json");
    let _ = fs::remove_file(&file);
    let _ = fs::remove_file(bundle.join("pid"));
    let spec = Command::new("runc")
        .arg("spec")
        .current_dir(bundle)
        .status()
        .unwrap();
    assert!(spec.success());
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    // As it is, but for what the program needs to run to its end: arguments, no terminal, a file system to write to, the same limits.
    config["process"]["args"] = words.into();
    config["process"]["terminal"] = false.into();
    config["root"]["readonly"] = false.into();
    config["linux"]["resources"]["memory"] = json!({ "limit": MEMORY });
    config["linux"]["resources"]["pids"] = json!({ "limit": PIDS });
    match profile {
        Profile::Spec => {}
        Profile::Docker => docker::apply(&mut config),
        Profile::OurFilter => config["linux"]["seccomp"] = lauf_sandbox::seccomp::oci_json(),
    }
    fs::write(&file, config.to_string()).unwrap();
}

pub(crate) fn under_runc(
    dir: &Path,
    outside: &Outside,
    like: &Reached,
    profile: Profile,
) -> Verdicts {
    let words = ["/hostile".to_owned(), "neighbour".to_owned()];
    let mut neighbour = Container::run(dir, "neighbour", &words, profile);
    let mut said = String::new();
    BufReader::new(neighbour.process.stdout.as_mut().unwrap())
        .read_line(&mut said)
        .unwrap();
    assert_eq!(said, "ready\n", "the neighbour under runc");
    let reached = Reached {
        pid: neighbour.pid(&dir.join("neighbour/pid")),
        // A namespace with a loopback interface only: whatever the address, nobody is there.
        neighbour: Ipv4Addr::new(10, 255, 255, 1),
        has_network: false,
        ..like.clone()
    };
    let mut hostile = Container::run(dir, "bundle", &outside.words(&reached), profile);
    let output = std::io::read_to_string(hostile.process.stdout.as_mut().unwrap()).unwrap();
    assert!(!output.is_empty(), "runc has run nothing");
    verdicts(&output)
}
