//! What Docker gives a container by default, in the words of the OCI runtime specification: the second measure beside plain `runc spec`.
//!
//! From Docker's documentation: "Runtime privilege and Linux capabilities" for the capabilities, "Seccomp security profiles for Docker" for
//! the calls that are blocked. The profile itself is a list of what is allowed; what follows from it for the calls that are tried here is
//! the same.

use serde_json::{Value, json};

const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Blocked whatever the arguments are.
const BLOCKED: [&str; 63] = [
    "acct",
    "add_key",
    "bpf",
    "clock_settime",
    "create_module",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "get_mempolicy",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "migrate_pages",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_madvise",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "set_mempolicy",
    "set_mempolicy_home_node",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "sysfs",
    "_sysctl",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "ustat",
    "vhangup",
    "vserver",
];

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`.
const NAMESPACES: [u32; 7] = [
    0x0002_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
];

/// Address families that a container has no business with: `AF_ALG` and `AF_VSOCK`.
const FAMILIES: [u32; 2] = [38, 40];

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];

/// Makes Docker's defaults of what `runc spec` has written.
pub(crate) fn apply(config: &mut Value) {
    config["process"]["capabilities"] = json!({
        "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES, "inheritable": [], "ambient": [],
    });
    config["process"]["noNewPrivileges"] = false.into();
    config["linux"]["maskedPaths"] = json!(MASKED);
    config["linux"]["sysctl"] = json!({
        "net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647",
    });
    config["linux"]["seccomp"] = seccomp();
}

fn seccomp() -> Value {
    let deny = |names: &[&str], errno: u32, args: Value| json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args });
    let mut calls = vec![
        deny(&BLOCKED, 1, json!([])),
        deny(&["clone3"], 38, json!([])),
        deny(
            &["personality"],
            1,
            json!([{ "index": 0, "value": 0x0004_0000, "op": "SCMP_CMP_EQ" }]),
        ),
    ];
    for flag in NAMESPACES {
        let set =
            json!([{ "index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ" }]);
        calls.push(deny(&["clone"], 1, set));
    }
    for family in FAMILIES {
        let is = json!([{ "index": 0, "value": family, "op": "SCMP_CMP_EQ" }]);
        calls.push(deny(&["socket"], 1, is));
    }
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls })
}
