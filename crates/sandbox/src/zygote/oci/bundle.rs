//! `config.json` of the bundle: what the own runtime does, in the words of the OCI runtime specification.

use serde_json::{Value, json};

use super::OciRuntime;
use crate::cgroup::Cgroup;
use crate::seccomp;
use crate::spec::{ContainerSpec, ID_COUNT};
use crate::zygote::prepare::{MASKED, READ_ONLY};
use crate::zygote::{Template, confine, exec};

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
pub(super) fn config(
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
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "noexec", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
    ];
    if runtime.kind.has_a_kernel() {
        // The host's would be handed through. Its memory and CPUs are what the limits say, so no cgroups need to be shown.
        mounts.push(mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", "ro"],
        ));
    } else {
        let sys = stage.join("sys");
        mounts.extend([
            mount(
                "/sys",
                "bind",
                &sys.to_string_lossy(),
                &["rbind", "nosuid", "noexec", "nodev", "ro"],
            ),
            mount(
                "/sys/fs/cgroup",
                "cgroup",
                "cgroup",
                &["nosuid", "noexec", "nodev", "relatime", "ro"],
            ),
        ]);
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
        "mounts": mounts,
        "linux": {
            // No network namespace: the runtime is in the one the instance is to have.
            "namespaces": namespaces,
            "uidMappings": map,
            "gidMappings": map,
            "cgroupsPath": format!("{}/{}", template.cgroup_parent, cgroup.name()),
            "resources": resources,
            "maskedPaths": absolute(&MASKED),
            "readonlyPaths": absolute(&READ_ONLY),
            "seccomp": seccomp::oci_json(),
        },
    })
}
