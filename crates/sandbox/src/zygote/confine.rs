//! Giving up power: user namespace, capabilities, ids, limits, system call filter. After this, only `execve` is left to do.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Gid, Uid};
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};

use super::prepare::Prepared;
use super::{Failure, Step, Template};
use crate::protocol::FailReason::{BadCwd, BadUser, Host};
use crate::seccomp;
use crate::spec::ContainerSpec;
use crate::sys;

/// The capabilities root in a container has, all of them within its user namespace only: CHOWN, DAC_OVERRIDE, FOWNER, FSETID,
/// KILL, SETGID, SETUID, SETPCAP: what a program needs that starts as root, prepares its files and becomes somebody else. Docker's
/// others have no use here: raw sockets and low ports belong to a network namespace that root in here does not own, device nodes
/// cannot be made in a user namespace, the filter has no `chroot`, and `no_new_privs` voids capabilities of files.
pub(crate) const ROOT_CAPABILITIES: u64 = mask_of(&[0, 1, 3, 4, 5, 6, 7, 8]);

const fn mask_of(numbers: &[u32]) -> u64 {
    let (mut mask, mut at) = (0, 0);
    while at < numbers.len() {
        mask |= 1 << numbers[at];
        at += 1;
    }
    mask
}

/// The most open files an instance may have; fewer when the host allows fewer.
const OPEN_FILES: u64 = 65_536;

/// Enters the user namespace and the working directory, and takes the ids of the spec on.
pub(super) fn enter_user(prepared: &Prepared, spec: &ContainerSpec) -> Result<(), Failure> {
    limits();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    sys::enter_namespace(prepared.user_namespace.as_fd(), libc::CLONE_NEWUSER)
        .step(Host, "enter the user namespace")?;
    for capability in 0..64 {
        if ROOT_CAPABILITIES & (1 << capability) == 0
            && !sys::drop_from_bounding_set(capability).step(Host, "drop capabilities")?
        {
            break;
        }
    }
    let who = || format!("user {}:{}", spec.uid, spec.gid);
    let groups: Vec<Gid> = spec
        .additional_gids
        .iter()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    rustix::thread::set_thread_groups(&groups).step(BadUser, &who())?;
    let gid = Gid::from_raw(spec.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).step(BadUser, &who())?;
    // As root of the container: a directory that the user cannot enter is still a valid place to start in.
    rustix::process::chdir(&spec.cwd).step(BadCwd, &format!("working directory {:?}", spec.cwd))?;
    let uid = Uid::from_raw(spec.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).step(BadUser, &who())?;
    // The change of ids has cleared it. Whoever calls this looks afterwards whether the keeper is still there.
    set_parent_process_death_signal(Some(Signal::KILL)).step(Host, "tie life to the keeper's")
}

/// The last steps: no new privileges, no capabilities but those of a container's root, the filter.
pub(super) fn give_up_power(template: &Template, spec: &ContainerSpec) -> Result<(), Failure> {
    rustix::thread::set_no_new_privs(true).step(Host, "set no_new_privs")?;
    sys::set_capabilities(if spec.uid == 0 { ROOT_CAPABILITIES } else { 0 })
        .step(Host, "drop capabilities")?;
    seccomp::install(&template.filter).step(Host, "install the system call filter")
}

/// Resource limits. Raising them may be refused where the keeper lacks the right; what there is serves then.
fn limits() {
    let now = getrlimit(Resource::Nofile);
    let most = now.maximum.map_or(OPEN_FILES, |max| max.min(OPEN_FILES));
    let _: io::Result<()> = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(most),
            maximum: Some(most),
        },
    )
    .map_err(Into::into);
    // A core limit of one byte is the one value that also keeps dumps from a helper program of the host.
    let _: io::Result<()> = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(1),
            maximum: Some(1),
        },
    )
    .map_err(Into::into);
}
