//! The system calls that need `unsafe`, each behind a small safe function.

use std::ffi::{CStr, CString};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Turns a system call's result into a `Result`.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The two sides of a clone.
pub(crate) enum Cloned {
    /// In the new process.
    Child,
    /// In the old one: the child's process id here and, when asked for, its pidfd.
    Parent { pid: u32, pidfd: OwnedFd },
}

/// `clone3` without shared memory, with a pidfd, and into a cgroup v2 directory when one is given.
///
/// # Errors
/// What the system call gives.
pub(crate) fn clone_process(
    flags: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain integers; all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    args.flags = u64::from(flags.cast_unsigned()) | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    if let Some(cgroup) = cgroup {
        // CLONE_INTO_CGROUP, which does not fit in an int.
        args.flags |= 0x2_0000_0000;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: the arguments live until the call returns. Without CLONE_VM the child has its own copy of the memory and
    // goes on in it like after fork; the callers are processes with a single thread, so no lock is held by another.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel gave this descriptor to us and nobody else has it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent {
        pid: u32::try_from(pid).unwrap_or(0),
        pidfd,
    })
}

/// Runs `work` while a process of its own sits in a new user namespace, and ends that process. It shares the caller's memory, so that
/// none is copied, and touches nothing in it.
///
/// # Errors
/// What the system calls give, or what `work` does.
pub(crate) fn beside_user_namespace<T>(work: impl FnOnce(u32) -> io::Result<T>) -> io::Result<T> {
    extern "C" fn wait(_: *mut libc::c_void) -> libc::c_int {
        loop {
            // SAFETY: no arguments.
            unsafe { libc::syscall(libc::SYS_pause) };
        }
    }
    // A page is plenty for a loop around one system call; aligned as the ABI wants stacks.
    let mut stack = vec![0_u128; 256];
    let top = stack.as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_NEWUSER | libc::SIGCHLD;
    // SAFETY: the stack outlives the child, which is dead and reaped before this function returns. The child runs `wait` alone, which
    // touches nothing but its own stack (and `errno`, which nobody reads between two calls of the caller that failed).
    let pid = check(unsafe { libc::clone(wait, top.cast(), flags, std::ptr::null_mut()) }.into())?;
    let pid = libc::pid_t::try_from(pid).unwrap_or(0);
    let result = work(pid.cast_unsigned());
    // SAFETY: a child that is not reaped yet keeps its number.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        while libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
    result
}

/// Sets and clears attributes (`MOUNT_ATTR_*`) of a mount and, when asked, of all those below it: mount_setattr(2), Linux 5.12.
///
/// # Errors
/// What the system call gives; `ENOSYS` where it does not exist.
pub(crate) fn set_mount_attributes(
    at: &CStr,
    set: u64,
    clear: u64,
    recursive: bool,
) -> io::Result<()> {
    // SAFETY: mount_attr is plain integers; all zeroes is a valid value.
    let mut attributes: libc::mount_attr = unsafe { mem::zeroed() };
    (attributes.attr_set, attributes.attr_clr) = (set, clear);
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path and structure live until the call returns.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            at.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Gives this process its own descriptor table with only the descriptors below `first` in it.
pub(crate) fn keep_only_below(first: RawFd) -> io::Result<()> {
    close_range(first, libc::CLOSE_RANGE_UNSHARE)
}

/// Closes all descriptors from `first` on.
pub(crate) fn close_from(first: RawFd) -> io::Result<()> {
    close_range(first, 0)
}

/// Marks all descriptors from `first` on to be closed by `execve`.
pub(crate) fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: RawFd, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: plain integers. Callers use this in processes that own every descriptor in the range.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) })
        .map(drop)
}

/// Makes descriptor number `slot` a copy of `fd`, whatever it was before.
pub(crate) fn put_into_slot(
    fd: BorrowedFd<'_>,
    slot: RawFd,
    close_on_exec: bool,
) -> io::Result<()> {
    let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    if fd.as_raw_fd() == slot {
        // SAFETY: plain integers.
        return check(
            unsafe {
                libc::fcntl(
                    slot,
                    libc::F_SETFD,
                    if close_on_exec { libc::FD_CLOEXEC } else { 0 },
                )
            }
            .into(),
        )
        .map(drop);
    }
    // SAFETY: plain integers; the slots are reserved for this and owned by nobody.
    check(unsafe { libc::dup3(fd.as_raw_fd(), slot, flags) }.into()).map(drop)
}

/// Takes ownership of a descriptor number that was handed over by [`put_into_slot`].
pub(crate) fn own_slot(slot: RawFd) -> OwnedFd {
    // SAFETY: the zygote calls this once per slot, right after it got its own table with exactly these slots in it.
    unsafe { OwnedFd::from_raw_fd(slot) }
}

/// Borrows one of the reserved or standard descriptors.
pub(crate) fn borrow_slot(slot: RawFd) -> BorrowedFd<'static> {
    // SAFETY: standard descriptors are open in every process here (the keeper opens /dev/null on them), for all its life.
    unsafe { BorrowedFd::borrow_raw(slot) }
}

/// Enters the namespace `fd` stands for, which must be of the type `kind` (`CLONE_NEW*`).
pub(crate) fn enter_namespace(fd: BorrowedFd<'_>, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::setns(fd.as_raw_fd(), kind) }.into()).map(drop)
}

/// Leaves for new namespaces of the given kinds. Never called with `CLONE_FILES` or `CLONE_VM`.
pub(crate) fn new_namespaces(kinds: libc::c_int) -> io::Result<()> {
    // SAFETY: plain integer; memory and descriptor table stay as they are.
    check(unsafe { libc::unshare(kinds) }.into()).map(drop)
}

/// Ends this process at once, running nothing.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

/// Splits the process in two; `true` in the child.
pub(crate) fn fork() -> io::Result<bool> {
    // SAFETY: called by the keeper before it has threads.
    check(unsafe { libc::fork() }.into()).map(|pid| pid == 0)
}

/// Puts all signals back to their defaults and lets all through. Rust's runtime ignores SIGPIPE; an app must not inherit that.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL runs no code of ours. The few numbers that may not be set are refused, which is fine.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an empty set is initialised before use; no old set is asked for.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Ignores the signals that must not end the keeper by accident.
pub(crate) fn ignore_signals(signals: &[libc::c_int]) {
    for signal in signals {
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
}

/// A descriptor that becomes readable when one of the signals comes, which are blocked from now on.
pub(crate) fn signal_fd(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised before use; the descriptor is ours alone.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(fd.into())?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Replaces the program. Returns only the error.
pub(crate) fn execve(file: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts
            .iter()
            .map(|t| t.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays end in null and point to strings that outlive the call.
    unsafe { libc::execve(file.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Gives the process a session keyring of its own, so that it has no part in the host's.
pub(crate) fn own_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    })
    .map(drop)
}

/// Takes a capability out of the bounding set. `false` when there is no such capability in this kernel.
pub(crate) fn drop_from_bounding_set(capability: u32) -> io::Result<bool> {
    let number = libc::c_ulong::from(capability);
    // SAFETY: plain integers.
    let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
    match check(result.into()) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Sets the sets of capabilities of this process; ambient ones go with the inheritable set, which becomes empty.
pub(crate) fn set_capabilities(permitted_and_effective: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let half = |word: u64| u32::try_from(word & 0xffff_ffff).unwrap_or(0);
    let set = |bits: u32| Data {
        effective: bits,
        permitted: bits,
        inheritable: 0,
    };
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let data = [
        set(half(permitted_and_effective)),
        set(half(permitted_and_effective >> 32)),
    ];
    // SAFETY: version 3 reads two data structures, which is what is given; both live until the call returns.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Brings the loopback interface of the current network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data; all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    // SAFETY: reads into the ifreq, which lives until the call returns.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request).into() })?;
    // SAFETY: the call above has filled the flags member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: only reads the ifreq, which lives until the call returns.
    check(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request).into()
    })?;
    Ok(())
}

/// Aborts unless an io error can be ruled out: for the one state no code can go on from.
pub(crate) fn abort_with(text: &str) -> ! {
    eprintln!("lauf-sandbox: {text}");
    std::process::abort()
}

/// Sends a signal to the process behind a pidfd.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: plain integers, and a null pointer that asks for the kernel's own signal information.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            none,
            0,
        )
    })
    .map(drop)
}

/// The signals that wait at a descriptor of [`signal_fd`].
pub(crate) fn read_signals(fd: BorrowedFd<'_>) -> Vec<i32> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut buffer = [0_u8; SIZE * 8];
    let count = rustix::io::read(fd, &mut buffer).unwrap_or(0);
    // The number is the first member, a u32.
    let number = |info: &[u8]| {
        info.first_chunk::<4>()
            .map(|bytes| i32::from_ne_bytes(*bytes))
    };
    buffer[..count]
        .chunks_exact(SIZE)
        .filter_map(number)
        .collect()
}

/// A child that has ended, not reaped when `options` say so.
pub(crate) fn exited_child(options: rustix::process::WaitIdOptions) -> Option<u32> {
    let options = i32::try_from(options.bits()).ok()?;
    // SAFETY: siginfo_t is plain data; all zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: the structure lives until the call returns.
    if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) } != 0 {
        return None;
    }
    // SAFETY: waitid fills this member, and leaves it zero when there is no such child.
    u32::try_from(unsafe { info.si_pid() })
        .ok()
        .filter(|pid| *pid != 0)
}
