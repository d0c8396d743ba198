//! The second back end: a container made by an OCI runtime's command line (runc, crun, runsc, kata).
//!
//! The process that waits in the pool has a network and a mount namespace only; the runtime makes the others. When a spec comes it
//! mounts the image, writes the bundle, and calls `create` and `start`. The instance's first process then becomes a child of the
//! keeper (which is a subreaper), and everything else goes as with the own runtime: the same cgroup, pipes, events.
//!
//! Confinement is what the own runtime does, in the words of the OCI runtime specification (config.md, config-linux.md).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::MountFlags;
use serde_json::{Value, json};

use super::mounts::mount_new;
use super::prepare::{MASKED, NO_EXEC, READ_ONLY, give_to_user, make_dir, network};
use super::rootfs::Stage;
use super::{Channel, Failure, Making, Says, Step, Template, confine, exec, rootfs};
use crate::cgroup::Cgroup;
use crate::protocol::FailReason;
use crate::protocol::FailReason::{BadCwd, CommandNotFound, Host, Mount, NotExecutable};
use crate::seccomp;
use crate::spec::{ContainerSpec, ID_COUNT};

/// What the keeper decides once about a foreign runtime.
#[derive(Debug, Clone)]
pub(crate) struct OciRuntime {
    /// The program.
    pub(crate) path: PathBuf,
    /// Arguments before the subcommand.
    pub(crate) args: Vec<String>,
    /// Where the runtime keeps its records.
    pub(crate) records: PathBuf,
    /// The cgroup above the instances', as a path within each hierarchy.
    pub(crate) cgroup_parent: String,
}

impl OciRuntime {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.args).arg("--root").arg(&self.records);
        command
    }

    /// A runtime that leaves cgroups alone takes its own along, so it has to be in the instance's.
    fn ignores_cgroups(&self) -> bool {
        self.args.iter().any(|arg| arg.contains("ignore-cgroups"))
    }

    /// The command that takes the runtime's records of an instance away.
    pub(crate) fn deletion(&self, name: &str) -> Command {
        let mut command = self.command();
        command.args(["delete", "--force", name]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

/// Where bundles are built, in the mount namespace of each: the mapped root must be able to walk there, which it cannot in a state
/// directory that is closed to others.
pub(crate) fn stage_outside(avoid: &[PathBuf]) -> Result<PathBuf, String> {
    let places = ["/mnt", "/srv", "/media", "/opt"].map(PathBuf::from);
    let free =
        |place: &PathBuf| place.is_dir() && !avoid.iter().any(|path| path.starts_with(place));
    places
        .into_iter()
        .find(free)
        .ok_or_else(|| "none of /mnt, /srv, /media, /opt is free to mount a bundle on".to_owned())
}

/// The part before a spec comes.
pub(super) fn prepare(
    template: &Template,
    runtime: &OciRuntime,
    making: &Making<'_>,
    channel: &mut Channel,
) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .step(Host, "tie life to the keeper's")?;
    if runtime.ignores_cgroups() {
        let cgroup = making.cgroup;
        cgroup.enter_self().step(Host, "enter the cgroup")?;
        cgroup.enter_unified_self().step(Host, "enter the cgroup")?;
    }
    network(making, channel, 0)?;
    let stage = &template.stage;
    mount_new(
        "tmpfs",
        stage,
        MountFlags::NOSUID | MountFlags::NODEV,
        "mode=0755",
    )
    .step(Host, "mount the writable layer")?;
    for (name, mode, owner) in [
        ("upper", 0o755, template.uid_base),
        ("work", 0o700, 0),
        ("root", 0o755, 0),
        ("empty", 0o755, template.uid_base),
        ("layers", 0o700, 0),
        ("sys", 0o755, 0),
    ] {
        make_dir(&stage.join(name), mode, owner).step(Host, "make the stage")?;
    }
    // A file system of the right network namespace; a mapped root could not mount one.
    mount_new(
        "sysfs",
        &stage.join("sys"),
        NO_EXEC | MountFlags::RDONLY,
        "",
    )
    .step(Host, "mount /sys")
}

/// The part that starts the container; returns when its command was executed or that is certain.
pub(super) fn start(
    template: &Template,
    runtime: &OciRuntime,
    cgroup: &Cgroup,
    spec: &ContainerSpec,
    channel: &mut Channel,
    [out, err]: [&OwnedFd; 2],
) -> Result<(), Failure> {
    let begun = crate::clock::monotonic();
    cgroup
        .set_limits(&spec.limits())
        .step(Host, "set the limits")?;
    let stage = &template.stage;
    let image = Stage {
        at: stage.clone(),
        images: None,
        // As nobody asks for: its size is not set yet.
        memory_bytes: u64::MAX,
    };
    rootfs::assemble(&image, template.uid_base, spec)?;
    for fd in [out, err] {
        give_to_user(fd, template.uid_base, spec).step(Host, "hand over the output pipes")?;
    }
    let config = config(template, runtime, cgroup, spec);
    fs::write(stage.join("config.json"), config.to_string()).step(Host, "write the bundle")?;
    let mounted = crate::clock::monotonic();

    let log = stage.join("log");
    let pid_file = stage.join("pid");
    let name = cgroup.name();
    let call = |words: &[&str]| -> io::Result<bool> {
        let mut command = runtime.command();
        command
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json"])
            .args(words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::from(out.try_clone()?))
            .stderr(Stdio::from(err.try_clone()?));
        Ok(command.status()?.success())
    };
    let what = format!("run {}", runtime.path.display());
    let bundle = stage.to_string_lossy();
    let made = call(&[
        "create",
        "--bundle",
        &bundle,
        "--pid-file",
        &pid_file.to_string_lossy(),
        name,
    ])
    .step(Host, &what)?;
    if !made {
        return Err(failure_from(&log));
    }
    let pid = fs::read_to_string(&pid_file).step(Host, "read the runtime's pid file")?;
    let pid = pid
        .trim()
        .parse()
        .step(Host, "read the runtime's pid file")?;
    channel
        .say(&Says::Created { pid })
        .step(Host, "answer the keeper")?;
    if !call(&["start", name]).step(Host, &what)? {
        return Err(failure_from(&log));
    }
    let says = Says::Executing {
        rootfs: mounted - begun,
        confine: crate::clock::monotonic() - mounted,
    };
    channel.say(&says).step(Host, "answer the keeper")
}

/// Reads the runtime's last complaint, and what kind it is of.
fn failure_from(log: &Path) -> Failure {
    let text = fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().rev().find_map(|line| {
        let entry: Value = serde_json::from_str(line).ok()?;
        let error = matches!(entry["level"].as_str(), Some("error" | "fatal"));
        error.then(|| entry["msg"].as_str().map(str::to_owned))?
    });
    let text = last.unwrap_or_else(|| "the runtime failed without a word".to_owned());
    Failure::new(classify(&text), text)
}

fn classify(text: &str) -> FailReason {
    let has = |part: &str| text.contains(part);
    if has("executable file not found")
        || (has("exec") && has("no such file or directory") && !has("mount"))
    {
        CommandNotFound
    } else if has("exec format error") || (has("exec") && has("permission denied")) {
        NotExecutable
    } else if has("cwd") || (has("mkdir") && !has("mount")) {
        BadCwd
    } else if has("mount") {
        Mount
    } else {
        Host
    }
}

fn capability_names() -> Vec<&'static str> {
    const NAMES: [(u32, &str); 8] = [
        (0, "CAP_CHOWN"),
        (1, "CAP_DAC_OVERRIDE"),
        (3, "CAP_FOWNER"),
        (4, "CAP_FSETID"),
        (5, "CAP_KILL"),
        (6, "CAP_SETGID"),
        (7, "CAP_SETUID"),
        (8, "CAP_SETPCAP"),
    ];
    NAMES
        .into_iter()
        .filter(|(bit, _)| confine::ROOT_CAPABILITIES & (1 << bit) != 0)
        .map(|(_, name)| name)
        .collect()
}

/// `config.json` of the bundle.
fn config(
    template: &Template,
    runtime: &OciRuntime,
    cgroup: &Cgroup,
    spec: &ContainerSpec,
) -> Value {
    let stage = &template.stage;
    let names = capability_names();
    let own: &[&str] = if spec.uid == 0 { &names } else { &[] };
    let mut env: Vec<String> = spec
        .env
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if !spec.env.iter().any(|(key, _)| key == "PATH") {
        env.insert(0, format!("PATH={}", exec::DEFAULT_PATH));
    }
    let map = json!([{ "containerID": 0, "hostID": template.uid_base, "size": ID_COUNT }]);
    let mount = |at: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": source, "options": options });
    let absolute = |paths: &[&str]| {
        paths
            .iter()
            .map(|path| format!("/{path}"))
            .collect::<Vec<_>>()
    };
    let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    if spec.memory_bytes > 0 {
        resources["memory"] = json!({ "limit": spec.memory_bytes, "swap": spec.memory_bytes });
    }
    let cpu_millis = spec.limits().cpu_millis;
    if cpu_millis > 0 {
        resources["cpu"] = json!({ "quota": u64::from(cpu_millis) * 100, "period": 100_000 });
    }
    if spec.pids_max > 0 {
        resources["pids"] = json!({ "limit": spec.pids_max });
    }
    let namespaces =
        ["pid", "ipc", "uts", "mount", "cgroup", "user"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": spec.uid, "gid": spec.gid, "additionalGids": spec.additional_gids, "umask": 0o022 },
            "args": spec.args,
            "env": env,
            "cwd": spec.cwd,
            "capabilities": { "bounding": names, "effective": own, "permitted": own, "inheritable": [], "ambient": [] },
            "noNewPrivileges": true,
            "oomScoreAdj": 500,
        },
        "root": { "path": stage.join("root"), "readonly": false },
        "hostname": spec.hostname,
        "mounts": [
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "noexec", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "bind", &stage.join("sys").to_string_lossy(), &["rbind", "nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            // No network namespace: the runtime is in the one the instance is to have.
            "namespaces": namespaces,
            "uidMappings": map,
            "gidMappings": map,
            "cgroupsPath": format!("{}/{}", runtime.cgroup_parent, cgroup.name()),
            "resources": resources,
            "maskedPaths": absolute(&MASKED),
            "readonlyPaths": absolute(&READ_ONLY),
            "seccomp": seccomp::oci_json(),
        },
    })
}

/// Marks this process as the one that inherits orphans below it.
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(
        rustix::process::getpid(),
    ))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_sorted() {
        assert_eq!(
            classify("exec: \"x\": executable file not found in $PATH: unknown"),
            CommandNotFound
        );
        assert_eq!(
            classify("exec: \"/x\": stat /x: no such file or directory"),
            CommandNotFound
        );
        assert_eq!(
            classify("exec: \"/data.txt\": permission denied: unknown"),
            NotExecutable
        );
        assert_eq!(
            classify("chdir to cwd (\"/f\") set in config.json failed: not a directory"),
            BadCwd
        );
        assert_eq!(
            classify("error mounting \"proc\" to rootfs at \"/proc\""),
            Mount
        );
        assert_eq!(classify("something else"), Host);
    }
}
