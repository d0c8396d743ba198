//! The server's end of the keeper: requests as async functions, events as a channel.

use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::keeper::{SETTINGS_OPTION, socket_path};
use crate::netns::NetNs;
use crate::protocol::{
    Action, Exited, FailReason, InstanceInfo, Phases, Reply, Request, Usage, VERSION,
};
use crate::settings::{KeeperConfig, KeeperSettings};
use crate::spec::{ContainerSpec, InstanceId, MAX_SPEC_BYTES, SpecError};
use crate::spool::Position;
use crate::wire::{Frame, FrameReader, FrameWriter};

/// Events that may wait for the server to take them. A server that takes none for longer than this stops hearing answers too,
/// so whoever receives events must not wait for an answer of the keeper while it does.
const EVENT_QUEUE: usize = 16_384;

/// Why the keeper could not be reached or did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The keeper has ended, and every instance with it. Make a new client.
    #[error("the keeper is gone, and its instances with it")]
    Gone,
    /// The keeper program could not be run.
    #[error("cannot run the keeper ({program}): {source}")]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The keeper ran and said why it cannot serve.
    #[error("the keeper did not start: {0}")]
    Start(String),
    /// The state directory has a keeper that does not answer.
    #[error(
        "the keeper of {dir} does not answer: {source}; end it (its process id is in `fuser {dir}/keeper.lock`) and try again"
    )]
    Silent {
        /// The state directory.
        dir: PathBuf,
        /// The last fault.
        source: io::Error,
    },
    /// Another version of the program made the keeper.
    #[error(
        "the running keeper speaks version {theirs}, this program {VERSION}: stop its instances with the program that made it, then start again"
    )]
    Version {
        /// The keeper's version.
        theirs: u32,
    },
    /// The keeper refused the request.
    #[error("{0}")]
    Refused(String),
}

/// Why an instance was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The keeper says why.
    #[error("{text}")]
    Failed {
        /// The class of the fault.
        reason: FailReason,
        /// The fault in words a user understands.
        text: String,
    },
    /// The keeper could not be asked.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

/// A started instance.
#[derive(Debug)]
pub struct Started {
    /// What it is.
    pub info: InstanceInfo,
    /// The way into it.
    pub netns: NetNs,
    /// Where the time went; nothing for an adopted one.
    pub phases: Phases,
}

/// All that a keeper holds.
#[derive(Debug, Default)]
pub struct Listed {
    /// The living instances.
    pub running: Vec<Started>,
    /// The exits that nobody has forgotten.
    pub exited: Vec<Exited>,
}

/// What happens without being asked for.
#[derive(Debug)]
pub enum KeeperEvent {
    /// An instance ended. Say [`KeeperClient::forget`] once that is known for good; until then it is said again after each
    /// [`KeeperClient::list`], and its id stays in use.
    Exited(Exited),
    /// A process of the instance was killed for want of memory; the instance itself may live on.
    Oom(InstanceId),
    /// There is more in the spool. Read it to its end, then say [`KeeperClient::logs_seen`].
    LogsAdvanced,
    /// The keeper has ended. All its instances are dead; nothing more comes from this client.
    Gone,
}

type Answer = (Reply, Vec<OwnedFd>);

#[derive(Debug)]
enum Pending {
    One(oneshot::Sender<Answer>),
    List {
        got: Listed,
        done: oneshot::Sender<Listed>,
    },
}

#[derive(Debug)]
struct Shared {
    socket: tokio::net::UnixStream,
    writer: Mutex<FrameWriter>,
    room: Notify,
    stop: Notify,
    pending: Mutex<HashMap<u64, Pending>>,
    seq: AtomicU64,
    gone: AtomicBool,
    keeper_pid: u32,
    gateways: Vec<Ipv4Addr>,
    settings: Option<Box<KeeperSettings>>,
}

/// A connection to the keeper. Dropping it leaves the keeper and the instances as they are.
#[derive(Debug)]
pub struct KeeperClient {
    shared: Arc<Shared>,
    spool_dir: PathBuf,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic in the middle of a push leaves a queue that is still a queue.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeeperClient {
    /// Connects to the living keeper of the state directory, or makes one. If another server is connected, this one takes its
    /// place. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`KeeperError::Run`] and [`KeeperError::Start`] with what is missing on the host; [`KeeperError::Version`] when the
    /// living keeper is another version's.
    pub async fn connect_or_spawn(
        config: KeeperConfig,
    ) -> Result<(Self, mpsc::Receiver<KeeperEvent>), KeeperError> {
        let dir = config.settings.state_dir.clone();
        let mut fault = io::Error::from(io::ErrorKind::NotFound);
        // Two servers may do this at the same time, and a keeper may be ending just now: the lock decides who makes one, and
        // the other finds it a moment later.
        for attempt in 0_u32..40 {
            match greet(&dir).await {
                Ok(greeted) => return Self::serve(greeted, &config.settings),
                Err(Greeting::Version(theirs)) => return Err(KeeperError::Version { theirs }),
                Err(Greeting::Io(e)) => fault = e,
            }
            let made = {
                let config = config.clone();
                tokio::task::spawn_blocking(move || spawn(&config))
                    .await
                    .map_err(|e| KeeperError::Start(e.to_string()))?
            };
            match made {
                Ok(()) => {}
                Err(KeeperError::Start(text))
                    if text.contains("another keeper") && attempt < 39 =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(e) => return Err(e),
            }
        }
        Err(KeeperError::Silent { dir, source: fault })
    }

    fn serve(
        greeted: Greeted,
        config: &KeeperSettings,
    ) -> Result<(Self, mpsc::Receiver<KeeperEvent>), KeeperError> {
        let socket = tokio::net::UnixStream::from_std(greeted.socket)
            .map_err(|e| KeeperError::Start(format!("watch the keeper's socket: {e}")))?;
        let shared = Arc::new(Shared {
            socket,
            writer: Mutex::default(),
            room: Notify::new(),
            stop: Notify::new(),
            pending: Mutex::default(),
            seq: AtomicU64::new(1),
            gone: AtomicBool::new(false),
            keeper_pid: greeted.pid,
            gateways: greeted.gateways,
            settings: greeted.settings,
        });
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        tokio::spawn(run(Arc::clone(&shared), greeted.reader, sender));
        Ok((
            Self {
                shared,
                spool_dir: config.spool_dir(),
            },
            receiver,
        ))
    }

    /// The keeper's process id.
    #[must_use]
    pub fn keeper_pid(&self) -> u32 {
        self.shared.keeper_pid
    }

    /// Where the keeper writes what instances say; open it with [`crate::spool::SpoolReader`].
    #[must_use]
    pub fn spool_dir(&self) -> &Path {
        &self.spool_dir
    }

    /// The host's addresses towards the instances at the time of connecting: where DNS and metadata may listen.
    #[must_use]
    pub fn gateways(&self) -> &[Ipv4Addr] {
        &self.shared.gateways
    }

    /// What the keeper was set up with, which a living one keeps whatever the server asks for now.
    /// `None` when it is of a version that does not say.
    #[must_use]
    pub fn settings(&self) -> Option<&KeeperSettings> {
        self.shared.settings.as_deref()
    }

    /// Whether the keeper has ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.shared.gone.load(Ordering::Acquire)
    }

    /// Starts an instance. Returns when its command has been executed. When the future is dropped before that, the instance is
    /// started all the same: kill it by its id.
    ///
    /// # Errors
    /// [`StartError::Failed`] when nothing was left running, with what to do about it.
    pub async fn start(&self, spec: ContainerSpec) -> Result<Started, StartError> {
        let refuse = |e: SpecError| StartError::Failed {
            reason: FailReason::InvalidSpec,
            text: e.to_string(),
        };
        spec.validate().map_err(refuse)?;
        let size = size_of(&spec);
        if size > MAX_SPEC_BYTES {
            return Err(refuse(SpecError::TooLarge(size)));
        }
        let id = spec.id.clone();
        match self
            .ask(|seq| Request::Start {
                seq,
                spec: Box::new(spec),
            })
            .await?
        {
            (Reply::Started { info, phases, .. }, mut fds) => match fds.pop() {
                Some(netns) => Ok(Started {
                    info,
                    netns: NetNs::new(netns),
                    phases,
                }),
                None => {
                    // Descriptors get lost where this process may have no more of them. Nobody would know that it runs.
                    self.kill(&id).await?;
                    let text = "the keeper's descriptor of the network namespace got lost: raise the limit of open files";
                    Err(KeeperError::Refused(text.to_owned()).into())
                }
            },
            (Reply::StartFailed { reason, text, .. }, _) => {
                Err(StartError::Failed { reason, text })
            }
            (other, _) => Err(unexpected(&other).into()),
        }
    }

    /// Sends a signal to the first process of an instance. A deadly one for which it has no handler kills it, as it would
    /// outside of a container.
    ///
    /// # Errors
    /// When the instance does not run.
    pub async fn signal(&self, id: &InstanceId, signal: i32) -> Result<(), KeeperError> {
        self.act(id, Action::Signal(signal)).await
    }

    /// Kills every process of an instance. Its exit comes as an event.
    ///
    /// # Errors
    /// When the instance does not run.
    pub async fn kill(&self, id: &InstanceId) -> Result<(), KeeperError> {
        self.act(id, Action::Kill).await
    }

    /// Stops all processes of an instance from being scheduled.
    ///
    /// # Errors
    /// When the instance does not run.
    pub async fn freeze(&self, id: &InstanceId) -> Result<(), KeeperError> {
        self.act(id, Action::Freeze).await
    }

    /// Lets a frozen instance go on.
    ///
    /// # Errors
    /// When the instance does not run.
    pub async fn thaw(&self, id: &InstanceId) -> Result<(), KeeperError> {
        self.act(id, Action::Thaw).await
    }

    /// Gives an instance another CPU limit, in thousandths of a CPU; 0 means none.
    ///
    /// # Errors
    /// When the instance does not run.
    pub async fn limit_cpu(&self, id: &InstanceId, cpu_millis: u32) -> Result<(), KeeperError> {
        self.act(id, Action::LimitCpu(cpu_millis)).await
    }

    async fn act(&self, id: &InstanceId, action: Action) -> Result<(), KeeperError> {
        let id = id.clone();
        self.command(|seq| Request::Act { seq, id, action }).await
    }

    /// What instances have used so far; of all of them when `ids` is `None`.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn stats(
        &self,
        ids: Option<Vec<InstanceId>>,
    ) -> Result<Vec<(InstanceId, Usage)>, KeeperError> {
        match self.ask(|seq| Request::Stats { seq, ids }).await? {
            (Reply::Stats { usage, .. }, _) => Ok(usage),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// All living instances, with the way into each: for adoption after a restart. Exits that are not forgotten come again as
    /// events before it.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn list(&self) -> Result<Vec<Started>, KeeperError> {
        Ok(self.list_all().await?.running)
    }

    /// As [`KeeperClient::list`], with the exits that are not forgotten. Those come as events too.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn list_all(&self) -> Result<Listed, KeeperError> {
        let (done, wait) = oneshot::channel();
        self.send(
            Pending::List {
                got: Listed::default(),
                done,
            },
            |seq| Request::List { seq },
        )?;
        wait.await.map_err(|_| KeeperError::Gone)
    }

    /// Says that an exit is known for good; frees its id.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn forget(&self, id: &InstanceId) -> Result<(), KeeperError> {
        self.tell(&Request::Forget { id: id.clone() })
    }

    /// Says that the spool has been read up to `position`, so that [`KeeperEvent::LogsAdvanced`] may come again.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn logs_seen(&self, position: Position) -> Result<(), KeeperError> {
        self.tell(&Request::LogsSeen { position })
    }

    /// Changes the size of the pool.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn configure(&self, pool_size: u32) -> Result<(), KeeperError> {
        self.command(|seq| Request::Configure { seq, pool_size })
            .await
    }

    /// Kills every instance, takes everything off the host that the keeper has put there, and ends the keeper.
    ///
    /// # Errors
    /// [`KeeperError::Refused`] with what could not be removed.
    pub async fn shutdown(self) -> Result<(), KeeperError> {
        self.command(|seq| Request::Shutdown { seq }).await
    }

    async fn command(&self, request: impl FnOnce(u64) -> Request) -> Result<(), KeeperError> {
        match self.ask(request).await? {
            (Reply::Done { fault: None, .. }, _) => Ok(()),
            (
                Reply::Done {
                    fault: Some(text), ..
                },
                _,
            ) => Err(KeeperError::Refused(text)),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, request: impl FnOnce(u64) -> Request) -> Result<Answer, KeeperError> {
        let (sender, answer) = oneshot::channel();
        self.send(Pending::One(sender), request)?;
        answer.await.map_err(|_| KeeperError::Gone)
    }

    fn send(
        &self,
        pending: Pending,
        request: impl FnOnce(u64) -> Request,
    ) -> Result<(), KeeperError> {
        let seq = self.shared.seq.fetch_add(1, Ordering::Relaxed);
        lock(&self.shared.pending).insert(seq, pending);
        let sent = self.tell(&request(seq));
        if sent.is_err() {
            lock(&self.shared.pending).remove(&seq);
        }
        sent
    }

    /// Writes at once from the calling thread when the socket takes it, which it does unless the keeper is far behind.
    fn tell(&self, request: &Request) -> Result<(), KeeperError> {
        if self.is_gone() {
            return Err(KeeperError::Gone);
        }
        let mut writer = lock(&self.shared.writer);
        writer
            .push(request, Vec::new())
            .map_err(|e| KeeperError::Refused(e.to_string()))?;
        match writer.flush(&self.shared.socket) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.shared.room.notify_one();
                Ok(())
            }
            Err(_) => Err(KeeperError::Gone),
        }
    }
}

impl Drop for KeeperClient {
    fn drop(&mut self) {
        self.shared.stop.notify_one();
    }
}

fn unexpected(reply: &Reply) -> KeeperError {
    KeeperError::Refused(format!(
        "the keeper answered with something else: {reply:?}"
    ))
}

fn size_of(spec: &ContainerSpec) -> usize {
    let texts = spec
        .args
        .iter()
        .map(String::len)
        .chain(spec.env.iter().map(|(k, v)| k.len() + v.len() + 2));
    let files = [&spec.hosts, &spec.resolv_conf]
        .into_iter()
        .flatten()
        .map(String::len);
    let labels = spec.labels.iter().map(|(k, v)| k.len() + v.len());
    texts.chain(files).chain(labels).sum()
}

enum Greeting {
    Version(u32),
    Io(io::Error),
}

/// Connects and exchanges greetings, within a second.
/// What a keeper says first, and the way to say more.
struct Greeted {
    socket: UnixStream,
    reader: FrameReader,
    pid: u32,
    gateways: Vec<Ipv4Addr>,
    settings: Option<Box<KeeperSettings>>,
}

async fn greet(dir: &Path) -> Result<Greeted, Greeting> {
    let dir = dir.to_owned();
    let work = tokio::task::spawn_blocking(move || {
        let dir = File::open(&dir).map_err(Greeting::Io)?;
        let socket = UnixStream::connect(socket_path(&dir)).map_err(Greeting::Io)?;
        let mut writer = FrameWriter::default();
        let mut reader = FrameReader::default();
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .map_err(Greeting::Io)?;
        let io = |result: io::Result<()>| result.map_err(Greeting::Io);
        io(writer.push(&Request::Hello { version: VERSION }, Vec::new()))?;
        io(writer.flush(&socket).map(drop))?;
        loop {
            if let Some(frame) = reader.next_frame().map_err(Greeting::Io)? {
                let Ok(Reply::Hello {
                    version,
                    pid,
                    gateways,
                    settings,
                }) = frame.decode()
                else {
                    return Err(Greeting::Io(io::Error::other("no greeting")));
                };
                if version != VERSION {
                    return Err(Greeting::Version(version));
                }
                io(socket.set_read_timeout(None))?;
                io(socket.set_nonblocking(true))?;
                return Ok(Greeted {
                    socket,
                    reader,
                    pid,
                    gateways,
                    settings,
                });
            }
            if reader.fill(&socket).map_err(Greeting::Io)? == 0 {
                return Err(Greeting::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    });
    work.await
        .unwrap_or_else(|e| Err(Greeting::Io(io::Error::other(e))))
}

/// Runs the keeper program, which returns when the keeper serves.
fn spawn(config: &KeeperConfig) -> Result<(), KeeperError> {
    let run = |source| KeeperError::Run {
        program: config.exe.clone(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.settings.state_dir)
        .map_err(run)?;
    let settings =
        serde_json::to_string(&config.settings).map_err(|e| KeeperError::Start(e.to_string()))?;
    let output = Command::new(&config.exe)
        .args(&config.args)
        .arg(SETTINGS_OPTION)
        .arg(settings)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(run)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(KeeperError::Start(if text.is_empty() {
        format!("{} ended with {}", config.exe.display(), output.status)
    } else {
        text
    }))
}

/// Reads what the keeper says until it or the client is gone.
async fn run(shared: Arc<Shared>, mut reader: FrameReader, events: mpsc::Sender<KeeperEvent>) {
    let ended = tokio::select! {
        () = shared.stop.notified() => None,
        () = write(&shared) => Some(()),
        _ = read(&shared, &mut reader, &events) => Some(()),
    };
    shared.gone.store(true, Ordering::Release);
    lock(&shared.pending).clear();
    if ended.is_some() {
        // The receiver may be gone as well.
        let _ = events.send(KeeperEvent::Gone).await;
    }
}

/// Writes what did not fit at once.
async fn write(shared: &Shared) {
    loop {
        shared.room.notified().await;
        loop {
            if shared.socket.writable().await.is_err() {
                return;
            }
            let flush = || match lock(&shared.writer).flush(&shared.socket) {
                Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
                other => other,
            };
            match shared.socket.try_io(Interest::WRITABLE, flush) {
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

async fn read(
    shared: &Shared,
    reader: &mut FrameReader,
    events: &mpsc::Sender<KeeperEvent>,
) -> io::Result<()> {
    loop {
        while let Some(frame) = reader.next_frame()? {
            if let Some(event) = take(shared, frame)? {
                // Nobody listens: the answers still count.
                let _ = events.send(event).await;
            }
        }
        shared.socket.readable().await?;
        match shared
            .socket
            .try_io(Interest::READABLE, || reader.fill(&shared.socket))
        {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Gives an answer to who waits for it; hands an event back.
fn take(shared: &Shared, frame: Frame) -> io::Result<Option<KeeperEvent>> {
    let reply: Reply = frame.decode()?;
    let mut fds = frame.fds;
    let seq = match &reply {
        Reply::Hello { .. } => return Ok(None),
        Reply::Exited(exited) => {
            for pending in lock(&shared.pending).values_mut() {
                if let Pending::List { got, .. } = pending {
                    got.exited.push(exited.clone());
                }
            }
            return Ok(Some(KeeperEvent::Exited(exited.clone())));
        }
        Reply::Oom { id } => return Ok(Some(KeeperEvent::Oom(id.clone()))),
        Reply::LogsAdvanced => return Ok(Some(KeeperEvent::LogsAdvanced)),
        Reply::Instance { seq, .. }
        | Reply::Started { seq, .. }
        | Reply::StartFailed { seq, .. }
        | Reply::Done { seq, .. }
        | Reply::Stats { seq, .. } => *seq,
    };
    let mut pending = lock(&shared.pending);
    if let Reply::Instance { info, .. } = reply {
        if let (Some(Pending::List { got, .. }), Some(netns)) = (pending.get_mut(&seq), fds.pop()) {
            got.running.push(Started {
                info,
                netns: NetNs::new(netns),
                phases: Phases::default(),
            });
        }
        return Ok(None);
    }
    match pending.remove(&seq) {
        // Who asked may have lost interest.
        Some(Pending::One(sender)) => drop(sender.send((reply, fds))),
        Some(Pending::List { got, done }) => drop(done.send(got)),
        None => {}
    }
    Ok(None)
}
