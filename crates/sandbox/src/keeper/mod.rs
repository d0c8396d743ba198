//! The keeper: the small process that is the parent of every instance.
//!
//! It is made by [`crate::KeeperClient::connect_or_spawn`], which runs the program with the hidden subcommand that calls
//! [`keeper_main`]. That sets everything up, tells its caller whether it went well, and goes on in the background: one thread,
//! one epoll loop ([`event_loop`]), no allocation to speak of. There is at most one per state directory, held by a lock.

mod connection;
mod event_loop;
mod exits;
mod foreign;
mod item;
mod memory;
mod output;
mod pool;
mod requests;
mod room;
mod shutdown;
mod starts;
mod sweep;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cgroup::{CgroupRoot, Hierarchy};
use crate::net::Network;
use crate::seccomp;
use crate::settings::{KeeperSettings, Runtime};
use crate::spool::SpoolWriter;
use crate::sys;
use crate::zygote::{self, Template};
pub(crate) use room::meminfo;

/// The option by which the settings come.
pub(crate) const SETTINGS_OPTION: &str = "--settings";

/// What the hidden subcommand was given.
#[derive(Debug, Clone)]
pub struct KeeperArgs {
    /// The settings.
    pub settings: KeeperSettings,
}

impl KeeperArgs {
    /// Reads the arguments after the subcommand's name.
    ///
    /// # Errors
    /// A line for the user, when they are not what the client writes.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let args: Vec<OsString> = args.into_iter().collect();
        let [option, json] = args.as_slice() else {
            return Err(format!(
                "the keeper is started by the server, with {SETTINGS_OPTION} JSON"
            ));
        };
        if option != SETTINGS_OPTION {
            return Err(format!(
                "unknown option {option:?}; expected {SETTINGS_OPTION}"
            ));
        }
        let settings = serde_json::from_slice(json.as_encoded_bytes())
            .map_err(|e| format!("{SETTINGS_OPTION}: {e}"))?;
        Ok(Self { settings })
    }
}

/// Where the lock is.
pub(crate) fn lock_path(state_dir: &Path) -> PathBuf {
    state_dir.join("keeper.lock")
}

/// The name of the socket in the state directory.
pub(crate) const SOCKET_NAME: &str = "keeper.sock";

/// The path of the socket by way of an open state directory: socket paths are limited to 107 bytes, directories are not.
pub(crate) fn socket_path(state_dir: &impl std::os::fd::AsRawFd) -> PathBuf {
    PathBuf::from(format!(
        "/proc/self/fd/{}/{SOCKET_NAME}",
        state_dir.as_raw_fd()
    ))
}

/// Runs a keeper in the background; returns when it serves (success) or cannot (failure, with a line on standard error).
///
/// Must be called before the process has a second thread, because it forks. It closes every descriptor but the standard ones.
pub fn keeper_main(args: KeeperArgs) -> ExitCode {
    match start(args.settings) {
        Ok(code) => code,
        Err(text) => {
            eprintln!("lauf keeper: {text}");
            ExitCode::FAILURE
        }
    }
}

/// The exit code of the caller that stays in the foreground.
fn start(settings: KeeperSettings) -> Result<ExitCode, String> {
    // First of all: these numbers must never belong to anything else.
    zygote::reserve_slots().map_err(|e| format!("reserve descriptors: {e}"))?;
    sys::close_from(zygote::FIRST_FREE).map_err(|e| format!("close inherited descriptors: {e}"))?;
    let (mut ready, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map(|(r, w)| (File::from(r), File::from(w)))
        .map_err(|e| format!("make a pipe: {e}"))?;
    if !sys::fork().map_err(|e| format!("fork: {e}"))? {
        drop(tell);
        let mut answer = String::new();
        let _ = ready.read_to_string(&mut answer);
        return match answer.strip_prefix("ok") {
            Some(_) => Ok(ExitCode::SUCCESS),
            None if answer.is_empty() => Err(
                "it ended while it was starting; see keeper.log in its state directory".to_owned(),
            ),
            None => Err(answer),
        };
    }
    drop(ready);
    let mut tell = Some(tell);
    let answer = |tell: &mut Option<File>, text: &str| {
        if let Some(mut pipe) = tell.take() {
            // Nobody waits any more if this fails.
            let _ = pipe.write_all(text.as_bytes());
        }
    };
    match set_up(settings) {
        Ok((mut keeper, lock)) => {
            answer(&mut tell, "ok");
            let code = keeper.run();
            drop(lock);
            sys::exit_now(code)
        }
        Err(text) => {
            answer(&mut tell, &text);
            sys::exit_now(1)
        }
    }
}

fn set_up(mut settings: KeeperSettings) -> Result<(event_loop::Keeper, File), String> {
    let at = |what: &str| {
        let what = what.to_owned();
        move |e: io::Error| format!("{what}: {e}")
    };
    rustix::process::setsid().map_err(|e| format!("setsid: {e}"))?;
    let _ = rustix::thread::set_name(c"lauf-keeper");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&settings.state_dir)
        .map_err(at(&format!(
            "make the state directory {}",
            settings.state_dir.display()
        )))?;
    // What instances write is here, and locks that nobody else may take; older versions left it open.
    fs::set_permissions(&settings.state_dir, fs::Permissions::from_mode(0o700))
        .map_err(at("close the state directory to others"))?;
    settings.state_dir = settings
        .state_dir
        .canonicalize()
        .map_err(at("state directory"))?;
    let state_dir = settings.state_dir.clone();
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(lock_path(&state_dir))
        .map_err(at("open the lock file"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| "another keeper has this state directory".to_owned())?;
    redirect_output(&state_dir).map_err(at("open keeper.log"))?;
    sys::ignore_signals(&[libc::SIGHUP, libc::SIGPIPE, libc::SIGUSR1, libc::SIGUSR2]);
    let wanted: &[libc::c_int] = match &settings.runtime {
        Runtime::Own => &[libc::SIGTERM, libc::SIGINT],
        Runtime::Oci { .. } => &[libc::SIGTERM, libc::SIGINT, libc::SIGCHLD],
    };
    let signals = sys::signal_fd(wanted).map_err(at("signalfd"))?;
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: files.maximum,
            maximum: files.maximum,
        },
    );

    let stage = state_dir.join("stage");
    fs::create_dir_all(&stage).map_err(at("make the stage directory"))?;
    let kind = match &settings.runtime {
        Runtime::Own => None,
        Runtime::Oci { path, .. } => Some(zygote::Kind::of(path)?),
    };
    sys::new_namespaces(libc::CLONE_NEWNS)
        .map_err(at("make a mount namespace (root is needed)"))?;
    // The last four for `nft` and its libraries, where they have mounts of their own.
    let mut needed: Vec<PathBuf> = [
        "/proc",
        "/sys",
        "/dev",
        "/usr/sbin",
        "/usr/lib",
        "/lib64",
        "/etc",
    ]
    .map(PathBuf::from)
    .into();
    needed.push(state_dir.clone());
    needed.extend(
        settings
            .layer_dirs
            .iter()
            .map(|dir| dir.canonicalize().unwrap_or_else(|_| dir.clone())),
    );
    match &settings.runtime {
        Runtime::Own => zygote::keep_only_mounts(&needed),
        // A foreign runtime may want to see any part of the host.
        Runtime::Oci { .. } => zygote::keep_all_mounts(),
    }
    .map_err(at("make the mounts private"))?;
    if kind.is_some_and(zygote::Kind::refuses_hybrid) {
        zygote::hide_unified_cgroups().map_err(at("hide cgroup v2 from the runtime"))?;
    }
    let cgroup_mounts = zygote::cgroup_mounts().map_err(at("read the mount table"))?;

    let cgroups = Hierarchy::detect()
        .and_then(|h| h.root(&settings.host_name()))
        .map_err(|e| e.to_string())?;
    sweep::kill_leftovers(&cgroups)?;
    let cgroup_parent = cgroup_parent(&cgroups, &cgroup_mounts)?;
    let (stage, oci) = match (&settings.runtime, kind) {
        (Runtime::Own, _) | (_, None) => {
            cgroups.confine_self().map_err(|e| e.to_string())?;
            (stage, None)
        }
        (Runtime::Oci { path, args }, Some(kind)) => {
            open_devices(&cgroups).map_err(at("open the list of devices"))?;
            zygote::become_subreaper().map_err(at("become a subreaper"))?;
            let records = state_dir.join("oci");
            let runtime = zygote::OciRuntime {
                path: path.clone(),
                args: kind.arguments(args),
                kind,
                records,
            };
            forget_records(&runtime).map_err(at("make the runtime's directory"))?;
            (zygote::stage_outside(&needed)?, Some(runtime))
        }
    };
    let network = match &settings.network {
        Some(egress) => Some(Network::set_up(&egress.config()?).map_err(|e| e.to_string())?),
        None => None,
    };
    let filter = seccomp::default_filter().map_err(|e| e.to_string())?;
    let spool = SpoolWriter::open(&settings.spool_dir(), settings.spool_max_bytes)
        .map_err(at("open the spool"))?;
    let listener = listen(&state_dir).map_err(at("open the socket"))?;
    let template = Template {
        oci,
        cgroup_parent,
        stage,
        uid_base: settings.uid_base,
        filter,
        cgroup_mounts,
        layer_dirs: settings.layer_dirs.clone(),
        layers_one_by_one: zygote::takes_layers_one_by_one(),
    };
    let keeper = event_loop::Keeper::new(
        settings, template, cgroups, network, spool, listener, signals,
    )
    .map_err(at("set up the event loop"))?;
    Ok((keeper, lock))
}

/// How many descriptors this process may have.
fn max_files() -> usize {
    getrlimit(Resource::Nofile)
        .current
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(usize::MAX)
}

/// Lifts our own limit on devices: the runtime brings a list, which may not go beyond the one above it.
fn open_devices(cgroups: &CgroupRoot) -> io::Result<()> {
    for list in cgroups.dirs().iter().map(|dir| dir.join("devices.allow")) {
        let mut tries = 0;
        loop {
            match fs::write(&list, "a") {
                // Groups that were just swept away are still leaving.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) && tries < 200 => tries += 1,
                Err(e)
                    if e.kind() != io::ErrorKind::NotFound
                        && e.raw_os_error() != Some(libc::EACCES) =>
                {
                    return Err(e);
                }
                Ok(()) | Err(_) => break,
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    Ok(())
}

/// Begins the runtime's records anew. Those of an earlier keeper are about containers that are dead by now; the runtime knows what
/// else it made for them, such as cgroups in hierarchies that we have no use for.
fn forget_records(runtime: &zygote::OciRuntime) -> io::Result<()> {
    for entry in fs::read_dir(&runtime.records).into_iter().flatten() {
        // What it cannot take away is not ours to wait for: the directory goes in any case.
        let _ = runtime
            .deletion(&entry?.file_name().to_string_lossy())
            .status();
    }
    let _ = fs::remove_dir_all(&runtime.records);
    fs::create_dir_all(&runtime.records)
}

/// The path of our own cgroup within its hierarchies, as OCI runtimes want it.
fn cgroup_parent(cgroups: &CgroupRoot, mounts: &[zygote::CgroupMount]) -> Result<String, String> {
    let dirs = cgroups.dirs();
    let within = |dir: &PathBuf| {
        let mount = mounts
            .iter()
            .filter(|mount| dir.starts_with(&mount.at))
            .max_by_key(|mount| mount.at.as_os_str().len())?;
        Some(
            mount
                .root
                .join(dir.strip_prefix(&mount.at).ok()?)
                .to_string_lossy()
                .into_owned(),
        )
    };
    dirs.iter()
        .find_map(within)
        .ok_or_else(|| "no cgroup file system found for the runtime".to_owned())
}

fn listen(state_dir: &Path) -> io::Result<UnixListener> {
    let dir = File::open(state_dir)?;
    let path = socket_path(&dir);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Standard input from nowhere, output to a log file that is begun anew when it has grown.
fn redirect_output(state_dir: &Path) -> io::Result<()> {
    let path = state_dir.join("keeper.log");
    if fs::metadata(&path).is_ok_and(|meta| meta.len() > 1 << 20) {
        fs::rename(&path, state_dir.join("keeper.log.1"))?;
    }
    let log = File::options().create(true).append(true).open(path)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    sys::put_into_slot(null.as_fd(), 0, false)?;
    sys::put_into_slot(log.as_fd(), 1, false)?;
    sys::put_into_slot(log.as_fd(), 2, false)
}
