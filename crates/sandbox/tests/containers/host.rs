//! What is on the host: images for the tests, and what there is to leak.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first host id of the test containers.
pub const UID_BASE: u32 = 2_000_000;

/// Builds the layer all stories use: the probe, busybox when the host has it, a few directories.
pub fn build_layer(at: &Path) -> PathBuf {
    let layer = at.join("layer");
    for dir in ["bin", "tmp", "etc", "home/user", "not-mine"] {
        fs::create_dir_all(layer.join(dir)).unwrap();
    }
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/containers/probe.c");
    let compiler = if Command::new("musl-gcc").arg("--version").output().is_ok() {
        "musl-gcc"
    } else {
        "gcc"
    };
    let status = Command::new(compiler)
        .args(["-O1", "-static", "-o"])
        .arg(layer.join("probe"))
        .arg(source)
        .status();
    assert!(
        status.unwrap().success(),
        "a C compiler is needed (apt install musl-tools)"
    );
    if Path::new("/usr/bin/busybox").exists() {
        fs::copy("/usr/bin/busybox", layer.join("bin/busybox")).unwrap();
        for name in [
            "sh", "cat", "ls", "stat", "id", "mount", "ping", "wget", "ip", "readlink", "grep",
            "chmod", "touch", "mkdir", "rm", "head",
        ] {
            std::os::unix::fs::symlink("busybox", layer.join("bin").join(name)).unwrap();
        }
    }
    fs::write(
        layer.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    )
    .unwrap();
    fs::write(layer.join("data.txt"), "not a program").unwrap();
    fs::set_permissions(layer.join("data.txt"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(
        layer.join("script-without-interpreter"),
        "#!/nowhere/interp\n",
    )
    .unwrap();
    fs::write(layer.join("garbage"), [0x7f, b'E', b'L', b'F', 9, 9, 9, 9]).unwrap();
    for name in ["script-without-interpreter", "garbage"] {
        fs::set_permissions(layer.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(layer.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    shift(&layer);
    layer
}

/// Gives a tree to the container's root.
pub fn shift(path: &Path) {
    lchown(path, Some(UID_BASE), Some(UID_BASE)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            shift(&entry.unwrap().path());
        }
    }
}

/// How the links of the stories' networks begin; of this process alone, since others may be testing too.
pub fn network_name() -> String {
    format!("lt{:05x}x", std::process::id() & 0xf_ffff)
}

/// Everything on this host that a sandbox could leave behind, as lines.
pub fn traces(name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().map(|line| {
        format!(
            "mount {}",
            line.split(' ').skip(3).collect::<Vec<_>>().join(" ")
        )
    }));
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = folders.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if path.to_string_lossy().contains(name) {
                    found.insert(format!("cgroup {}", path.display()));
                }
                folders.push(path);
            }
        }
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let Ok(cgroups) = fs::read_to_string(path.join("cgroup")) else {
            continue;
        };
        // The dead wait for the host's init, not for us.
        let dead = fs::read_to_string(path.join("status"))
            .is_ok_and(|status| status.contains("State:\tZ"));
        if cgroups.contains(name) && !dead {
            found.insert(format!("process {}", path.display()));
        }
    }
    for entry in fs::read_dir("/sys/class/net").unwrap().flatten() {
        let link = entry.file_name().to_string_lossy().into_owned();
        if link.starts_with(&network_name()) {
            found.insert(format!("link {link}"));
        }
    }
    found
}

/// How many descriptors a process has open.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The network namespaces of all processes in cgroups of this name.
pub fn network_namespaces(name: &str) -> BTreeSet<String> {
    let of = |entry: fs::DirEntry| {
        let groups = fs::read_to_string(entry.path().join("cgroup")).ok()?;
        let link = fs::read_link(entry.path().join("ns/net")).ok()?;
        groups
            .contains(name)
            .then(|| link.to_string_lossy().into_owned())
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(of)
        .collect()
}
