//! The system call filter of every instance.
//!
//! [`policy`] says what is allowed, [`bpf`] turns it into the program the kernel runs, [`oci_json`] says the same in the words of the OCI
//! runtime specification for the back end that calls an OCI runtime. No weaker than Docker's default profile for a container without
//! extra capabilities; stricter in three places: netlink only for the protocols that plain programs use, no `chroot`, no terminal
//! injection (`TIOCSTI`).
//!
//! Laws: what isn't listed answers EPERM; what is newer than this list answers ENOSYS, so that a C library falls back to what it did
//! before; another architecture's system call table (32-bit, x32) answers ENOSYS. Arguments that the kernel reads as 32 bits are compared
//! as 32 bits, so that garbage in the upper half cannot slip past.

mod bpf;
mod policy;

use std::io;

/// A filter ready to be installed. Made once, shared by all instances.
#[derive(Clone, Debug)]
pub struct CompiledFilter {
    program: Box<[libc::sock_filter]>,
}

impl CompiledFilter {
    /// How many instructions the program has; the kernel takes at most 4096.
    #[must_use]
    pub fn len(&self) -> usize {
        self.program.len()
    }

    /// Never true of a filter that was compiled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.program.is_empty()
    }
}

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The program came out longer than the kernel takes.
    #[error(
        "the seccomp filter has {0} instructions, the kernel takes at most 4096: this is a mistake in Lauf's list, please report it"
    )]
    TooLong(usize),
}

/// Compiles the default filter for the architecture this binary is built for (x86_64 or aarch64).
///
/// # Errors
/// Only if the list in this crate is wrong.
pub fn default_filter() -> Result<CompiledFilter, SeccompError> {
    let program = bpf::compile(policy::AUDIT_ARCH, policy::NEWEST, &policy::rules());
    let length = program.len();
    // BPF_MAXINSNS
    if length > 4096 {
        Err(SeccompError::TooLong(length))
    } else {
        Ok(CompiledFilter {
            program: program.into(),
        })
    }
}

/// Puts the calling thread, and what it starts, under the filter, for good. Needs `no_new_privs` to be set (or `CAP_SYS_ADMIN`).
/// Allocates nothing, so the forked child may call it. The calls made between this and `execve` must be allowed ones.
///
/// # Errors
/// EACCES without `no_new_privs`, EINVAL on a kernel built without seccomp filters.
pub fn install(filter: &CompiledFilter) -> io::Result<()> {
    let length = u16::try_from(filter.program.len())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog {
        len: length,
        filter: filter.program.as_ptr().cast_mut(),
    };
    // SAFETY: `program` points to `length` instructions that live until the call returns; the kernel copies and checks them and writes
    // nothing back.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The same profile as the `linux.seccomp` object of an OCI runtime configuration (runtime-spec, config-linux.md, "Seccomp").
///
/// libseccomp cannot express everything: there, refused conditions answer EPERM whatever [`policy`] says, and an `ioctl` number is compared
/// as 64 bits.
#[must_use]
pub fn oci_json() -> serde_json::Value {
    use policy::{Action, Test};
    use serde_json::json;

    let mut plain = Vec::new();
    let mut rules = Vec::new();
    for rule in policy::rules() {
        match rule.action {
            Action::Allow => plain.push(rule.name),
            Action::Errno(errno) => rules.push(
                json!({ "names": [rule.name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno }),
            ),
            Action::AllowIf { any, .. } => {
                for all in any {
                    // A libseccomp rule takes one comparison per argument; of several "is not" the first is the one that matters.
                    let mut seen = Vec::new();
                    let args: Vec<_> = all
                        .iter()
                        .filter(|c| !seen.contains(&c.arg) && {
                            seen.push(c.arg);
                            true
                        })
                        .map(|c| match c.test {
                            Test::Is(value) => {
                                json!({ "index": c.arg, "value": u32::MAX, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" })
                            }
                            Test::IsNot(value) => json!({ "index": c.arg, "value": value, "op": "SCMP_CMP_NE" }),
                            Test::NoneOf(mask) => json!({ "index": c.arg, "value": mask, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }),
                        })
                        .collect();
                    rules.push(
                        json!({ "names": [rule.name], "action": "SCMP_ACT_ALLOW", "args": args }),
                    );
                }
            }
        }
    }
    rules.insert(0, json!({ "names": plain, "action": "SCMP_ACT_ALLOW" }));
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::EPERM, "architectures": [policy::OCI_ARCH], "syscalls": rules })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    const ENOSYS: u32 = 0x0005_0000 | 38;
    const EAFNOSUPPORT: u32 = 0x0005_0000 | 97;

    fn verdict(nr: libc::c_long, args: &[u64]) -> u32 {
        let filter = default_filter().unwrap();
        bpf::run(
            &filter.program,
            policy::AUDIT_ARCH,
            u32::try_from(nr).unwrap(),
            args,
        )
    }

    #[test]
    fn every_rule_gives_its_own_verdict() {
        for rule in policy::rules() {
            let got = verdict(rule.nr.into(), &[]);
            match rule.action {
                policy::Action::Allow => assert_eq!(got, ALLOW, "{}", rule.name),
                policy::Action::Errno(errno) => {
                    assert_eq!(got, 0x0005_0000 | u32::from(errno), "{}", rule.name)
                }
                policy::Action::AllowIf { .. } => {}
            }
        }
    }

    #[test]
    fn what_would_reach_the_host_is_refused() {
        for nr in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_perf_event_open,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_open_by_handle_at,
            libc::SYS_fsopen,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_sethostname,
            libc::SYS_acct,
            libc::SYS_quotactl,
            libc::SYS_syslog,
            libc::SYS_chroot,
            libc::SYS_pidfd_getfd,
        ] {
            assert_eq!(verdict(nr, &[]), EPERM, "system call {nr}");
        }
    }

    #[test]
    fn clone_makes_threads_and_processes_but_no_namespaces() {
        assert_eq!(
            verdict(libc::SYS_clone, &[0x003d_0f00]),
            ALLOW,
            "pthread_create"
        );
        assert_eq!(verdict(libc::SYS_clone, &[17]), ALLOW, "fork");
        for flag in [
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWNS,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWCGROUP,
        ] {
            assert_eq!(
                verdict(libc::SYS_clone, &[u64::try_from(flag).unwrap() | 17]),
                EPERM,
                "{flag:x}"
            );
        }
        assert_eq!(
            verdict(libc::SYS_clone3, &[]),
            ENOSYS,
            "its flags are behind a pointer, glibc falls back to clone"
        );
    }

    #[test]
    fn socket_families_are_the_ordinary_ones() {
        for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
            assert_eq!(
                verdict(libc::SYS_socket, &[u64::try_from(family).unwrap(), 1, 6]),
                ALLOW
            );
        }
        assert_eq!(
            verdict(libc::SYS_socket, &[16, 3, 0]),
            ALLOW,
            "NETLINK_ROUTE, which getifaddrs needs"
        );
        assert_eq!(
            verdict(libc::SYS_socket, &[16, 3, 12]),
            EAFNOSUPPORT,
            "NETLINK_NETFILTER"
        );
        for family in [38u64, 40, 17, 44, 15, 29] {
            assert_eq!(
                verdict(libc::SYS_socket, &[family, 3, 0]),
                EAFNOSUPPORT,
                "{family}"
            );
            assert_eq!(
                verdict(libc::SYS_socket, &[family | (7 << 32), 3, 0]),
                EAFNOSUPPORT,
                "garbage above 32 bits"
            );
        }
    }

    #[test]
    fn terminal_injection_and_odd_personalities_are_refused() {
        assert_eq!(verdict(libc::SYS_ioctl, &[0, 0x5401]), ALLOW);
        assert_eq!(verdict(libc::SYS_ioctl, &[0, 0x5412]), EPERM, "TIOCSTI");
        assert_eq!(
            verdict(libc::SYS_ioctl, &[0, 0x5412 | (1 << 32)]),
            EPERM,
            "the kernel looks at 32 bits"
        );
        assert_eq!(verdict(libc::SYS_ioctl, &[0, 0x541c]), EPERM, "TIOCLINUX");
        assert_eq!(verdict(libc::SYS_personality, &[0xffff_ffff]), ALLOW);
        assert_eq!(
            verdict(libc::SYS_personality, &[0x004_0000]),
            EPERM,
            "ADDR_NO_RANDOMIZE"
        );
    }

    #[test]
    fn calls_of_tomorrow_and_of_other_tables_do_not_exist() {
        assert_eq!(verdict(900, &[]), ENOSYS);
        assert_eq!(verdict(0x4000_0001, &[]), ENOSYS, "x32");
        let filter = default_filter().unwrap();
        assert_eq!(
            bpf::run(&filter.program, 0x4000_0003, 3, &[]),
            ENOSYS,
            "i386"
        );
    }

    #[test]
    fn the_oci_form_lists_the_same_calls() {
        let json = oci_json();
        let names: std::collections::BTreeSet<&str> = json["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|name| name.as_str().unwrap())
            .collect();
        let ours: std::collections::BTreeSet<&str> =
            policy::rules().iter().map(|r| r.name).collect();
        assert_eq!(names, ours);
        assert_eq!(json["defaultAction"], "SCMP_ACT_ERRNO");
    }

    /// On the real kernel: a child under the filter can work, and cannot leave.
    #[test]
    fn a_filtered_process_lives_and_is_held() {
        use std::os::unix::process::CommandExt as _;
        let filter = default_filter().unwrap();
        let mut command = std::process::Command::new("/bin/sh");
        command.args([
            "-c",
            "echo alive; unshare -U true 2>&1; sleep 0 & wait; echo done",
        ]);
        // SAFETY: only system calls are made between fork and exec.
        unsafe {
            command.pre_exec(move || {
                rustix::thread::set_no_new_privs(true)?;
                install(&filter)
            });
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("alive") && text.contains("done"), "{text}");
        assert!(text.contains("not permitted"), "{text}");
    }
}
