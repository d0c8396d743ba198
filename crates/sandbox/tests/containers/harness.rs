//! The runner: a keeper for each back end, the stories one after the other, a verdict.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lauf_sandbox::spool::{Entry, Position, SpoolReader, Stream};
use lauf_sandbox::{
    ContainerSpec, ExitStatus, Exited, FailReason, InstanceId, KeeperClient, KeeperConfig,
    KeeperEvent, KeeperSettings, StartError, Started,
};
use tokio::sync::mpsc;

use crate::backends::{Backend, Kind};
use crate::{backends, host, stories};

/// Nothing in these tests takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ids are not used twice: what instances said stays in the spool.
static NUMBERS: AtomicU32 = AtomicU32::new(0);

/// A keeper, a client, and what came from it.
pub struct World {
    pub client: Option<KeeperClient>,
    pub events: mpsc::Receiver<KeeperEvent>,
    pub settings: KeeperSettings,
    pub layer: PathBuf,
    pub dir: PathBuf,
    pub kind: Kind,
    exits: Vec<Exited>,
    pub ooms: Vec<InstanceId>,
    logs: Vec<Entry>,
    reader: SpoolReader,
}

fn config(settings: &KeeperSettings) -> KeeperConfig {
    KeeperConfig {
        exe: std::env::current_exe().unwrap(),
        args: vec!["keeper".to_owned()],
        settings: settings.clone(),
    }
}

impl World {
    pub async fn new(dir: &Path, settings: KeeperSettings, kind: Kind, layer: PathBuf) -> Self {
        let (client, events) = KeeperClient::connect_or_spawn(config(&settings))
            .await
            .unwrap();
        let reader = SpoolReader::open(client.spool_dir(), Position::default());
        Self {
            client: Some(client),
            events,
            settings,
            layer,
            kind,
            dir: dir.to_owned(),
            exits: Vec::new(),
            ooms: Vec::new(),
            logs: Vec::new(),
            reader,
        }
    }

    pub fn client(&self) -> &KeeperClient {
        self.client.as_ref().unwrap()
    }

    /// The server goes away (without a word) and comes back.
    pub async fn reconnect(&mut self) {
        self.client = None;
        let (client, events) = KeeperClient::connect_or_spawn(config(&self.settings))
            .await
            .unwrap();
        self.client = Some(client);
        self.events = events;
        self.exits.clear();
    }

    pub fn own(&self) -> bool {
        self.kind == Kind::Own
    }

    /// Whether the container has a kernel of its own, so that what it finds there says nothing about the host's.
    pub fn gvisor(&self) -> bool {
        self.kind == Kind::Runsc
    }

    /// A spec that runs the probe with the given words.
    pub fn probe(&self, words: &[&str]) -> ContainerSpec {
        let mut all = vec!["/probe"];
        all.extend(words);
        self.command(&all)
    }

    pub fn command(&self, words: &[&str]) -> ContainerSpec {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let id = InstanceId::new(format!("t{}-{number}", std::process::id())).unwrap();
        let mut spec = ContainerSpec::new(
            id,
            vec![self.layer.clone()],
            words.iter().map(|w| (*w).to_owned()).collect(),
        );
        spec.memory_bytes = 64 << 20;
        spec.pids_max = 64;
        spec.cpu_millis = 1000;
        spec
    }

    /// A shell script as root of the container.
    pub fn script(&self, text: &str) -> ContainerSpec {
        self.command(&["/bin/sh", "-c", text])
    }

    pub async fn start(&self, spec: ContainerSpec) -> Started {
        let text = format!("{:?}", spec.args);
        self.client()
            .start(spec)
            .await
            .unwrap_or_else(|e| panic!("start of {text}: {e}"))
    }

    pub async fn fails(&self, spec: ContainerSpec) -> (FailReason, String) {
        match self.client().start(spec).await {
            Err(StartError::Failed { reason, text }) => (reason, text),
            other => panic!("should have failed: {other:?}"),
        }
    }

    async fn next_event(&mut self) -> KeeperEvent {
        let event = tokio::time::timeout(PATIENCE, self.events.recv())
            .await
            .expect("no event came")
            .expect("the client is gone");
        match &event {
            KeeperEvent::Exited(exited) => self.exits.push(exited.clone()),
            KeeperEvent::Oom(id) => self.ooms.push(id.clone()),
            KeeperEvent::LogsAdvanced => {
                self.logs.extend(self.reader.read(64 << 20).unwrap());
                self.reader.release().unwrap();
                // The keeper may be dead already, by intent.
                let _ = self.client().logs_seen(self.reader.position());
            }
            KeeperEvent::Gone => {}
        }
        event
    }

    /// Waits for the exit of an instance, and acknowledges it.
    pub async fn exit_of(&mut self, id: &InstanceId) -> Exited {
        loop {
            if let Some(at) = self.exits.iter().position(|exit| exit.id == *id) {
                let exit = self.exits.remove(at);
                self.client().forget(id).unwrap();
                return exit;
            }
            if matches!(self.next_event().await, KeeperEvent::Gone) {
                panic!("the keeper ended");
            }
        }
    }

    /// Waits for the exit of any instance, and acknowledges it.
    pub async fn any_exit(&mut self) -> Exited {
        while self.exits.is_empty() {
            self.next_event().await;
        }
        let exit = self.exits.remove(0);
        self.client().forget(&exit.id).unwrap();
        exit
    }

    pub async fn oom_of(&mut self, id: &InstanceId) {
        while !self.ooms.contains(id) {
            self.next_event().await;
        }
    }

    pub async fn gone(&mut self) {
        while !matches!(self.next_event().await, KeeperEvent::Gone) {}
    }

    /// Everything an instance has said so far.
    pub fn said(&mut self, id: &InstanceId, stream: Stream) -> Vec<Entry> {
        self.logs.extend(self.reader.read(256 << 20).unwrap());
        self.logs
            .iter()
            .filter(|e| e.instance == id.as_str() && e.stream == stream)
            .cloned()
            .collect()
    }

    pub fn lines(&mut self, id: &InstanceId) -> Vec<String> {
        self.said(id, Stream::Stdout)
            .iter()
            .map(|e| String::from_utf8_lossy(&e.bytes).into_owned())
            .collect()
    }

    /// Waits until an instance has said a line.
    pub async fn until_says(&mut self, id: &InstanceId, line: &str) {
        while !self.lines(id).iter().any(|l| l == line) {
            self.next_event().await;
        }
    }

    /// Runs to the end; gives the exit and the lines of standard output.
    pub async fn run(&mut self, spec: ContainerSpec) -> (Exited, Vec<String>) {
        let id = spec.id.clone();
        self.start(spec).await;
        let exit = self.exit_of(&id).await;
        let lines = self.lines(&id);
        (exit, lines)
    }
}

pub fn code(exit: &Exited) -> i32 {
    match exit.status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal { signal, .. } => -signal,
    }
}

pub type Story = for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

pub fn run_all() -> ExitCode {
    let filter = std::env::args()
        .skip(1)
        .find(|arg| !arg.starts_with('-'))
        .unwrap_or_default();
    if std::env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    if !is_root() {
        println!(
            "\n**************** SKIP: lauf-sandbox's container tests need root; NOTHING WAS TESTED ****************\n"
        );
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let dir = tempfile::Builder::new()
        .prefix("lauf-sandbox-test")
        .tempdir()
        .unwrap();
    let layer = host::build_layer(dir.path());
    let (mut told_well, mut failed) = (0, Vec::new());
    let (backends, mut skipped) = backends::all();
    for backend in backends {
        let Backend {
            label,
            kind,
            runtime: backend,
        } = backend;
        let mut settings = KeeperSettings::new(dir.path().join(&label));
        settings.pool_size = 4;
        settings.uid_base = host::UID_BASE;
        settings.layer_dirs = vec![dir.path().to_owned()];
        settings.runtime = backend;
        let before = host::traces(&settings.host_name());
        for (name, story) in stories::all() {
            if !format!("{label}/{name}").contains(&filter) {
                continue;
            }
            print!("{label:>8} {name:<48} ");
            std::io::Write::flush(&mut std::io::stdout()).unwrap();
            if let Some(reason) = stories::impossible(kind, name) {
                println!("SKIP {reason}");
                skipped += 1;
                continue;
            }
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                runtime.block_on(async {
                    let mut world =
                        World::new(dir.path(), settings.clone(), kind, layer.clone()).await;
                    story(&mut world).await;
                    if let Some(client) = world.client.take() {
                        client.shutdown().await.unwrap();
                    }
                    let after = host::traces(&settings.host_name());
                    let left: Vec<_> = after.difference(&before).collect();
                    assert!(left.is_empty(), "left behind: {left:#?}");
                });
            }));
            println!("{}", if told.is_ok() { "ok" } else { "FAILED" });
            if told.is_ok() {
                told_well += 1;
            } else {
                failed.push(format!("{label}/{name}"));
                if let Ok(log) = std::fs::read_to_string(settings.state_dir.join("keeper.log")) {
                    println!("--- keeper.log ---\n{log}---");
                }
                runtime.block_on(async {
                    // The next story begins with a clean house.
                    if let Ok((client, _)) = KeeperClient::connect_or_spawn(config(&settings)).await
                    {
                        let _ = client.shutdown().await;
                    }
                });
            }
        }
    }
    // Once more at the end: of a long output, that is what is kept.
    for name in &failed {
        println!("FAIL {name}");
    }
    println!(
        "{told_well} passed, {} failed, {skipped} skipped",
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .any(|line| line.starts_with("Uid:\t0\t0"))
}
