//! The moment in which a process begins to listen, wherever on this host.
//!
//! A socket in another network namespace gives no event that could be waited for, but the kernel has a tracepoint for every change of a
//! TCP socket's state (`sock:inet_sock_set_state`, Linux 4.16), and perf_event_open(2) wakes who asks for it. Only changes to `LISTEN`
//! are asked for. Where there are no tracepoints, or no right to them, there are no events, and the caller tries from time to time.
//!
//! The event comes a moment before the socket can be connected to, and may be lost when very many come at once: it is a hint.

use std::ffi::CStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Waits for listeners, and for a word from another thread.
#[derive(Debug)]
pub struct Listening {
    processors: Vec<Ring>,
    woken: Arc<OwnedFd>,
}

/// Ends a wait of [`Listening`] from another thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Ends the wait, or the next one.
    pub fn wake(&self) {
        // Full means that many have woken it already.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

/// Who has begun to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// This process, in the caller's numbering.
    Process(u32),
    /// Somebody; the kernel had more to tell than there was room for.
    Unknown,
}

impl Listening {
    /// Asks the kernel for events; without them if it has none.
    ///
    /// # Errors
    /// When there is no descriptor left for the waker.
    pub fn new() -> io::Result<(Self, Waker)> {
        let woken = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let listening = Self {
            processors: rings().unwrap_or_default(),
            woken: Arc::clone(&woken),
        };
        Ok((listening, Waker(woken)))
    }

    /// Whether there are events at all.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.processors.is_empty()
    }

    /// Waits until somebody listens, [`Waker::wake`] was called, or the time is over; hands over who it was.
    pub fn wait(&mut self, timeout: Option<Duration>, mut heard: impl FnMut(Listener)) {
        let timeout = timeout.map(|t| Timespec {
            tv_sec: t.as_secs().cast_signed(),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let descriptors = self.processors.iter().map(|ring| ring.event.as_fd());
        let mut waiting: Vec<PollFd<'_>> = std::iter::once(self.woken.as_fd())
            .chain(descriptors)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        // An interrupted wait is one that ended early.
        let _ = poll(&mut waiting, timeout.as_ref());
        let _ = rustix::io::read(&*self.woken, &mut [0; 8]);
        for ring in &mut self.processors {
            ring.drain(&mut heard);
        }
    }
}

/// One event for each processor: the kernel has none for all together.
fn rings() -> io::Result<Vec<Ring>> {
    let number = tracepoint()?;
    let count = std::thread::available_parallelism()?.get();
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let processors = match processors(&online) {
        listed if listed.is_empty() => (0..u32::try_from(count).unwrap_or(1)).collect(),
        listed => listed,
    };
    processors
        .into_iter()
        .map(|processor| Ring::open(number, processor))
        .collect()
}

/// Reads a list such as `0-3,8`.
fn processors(list: &str) -> Vec<u32> {
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(part).flatten().collect()
}

/// The tracepoint's number. From a tracefs of our own that is mounted nowhere, since many hosts have none.
fn tracepoint() -> io::Result<u64> {
    let fs = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(fs.as_fd())?;
    let root = fsmount(
        fs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let path = "events/sock/inet_sock_set_state/id";
    let file = openat(&root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    std::fs::File::from(file).read_to_string(&mut text)?;
    text.trim()
        .parse()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The first version of `struct perf_event_attr` (linux/perf_event.h), which is all that is needed.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
}

const TRACEPOINT: u32 = 2;
const SAMPLE_TID: u64 = 1 << 1;
const DISABLED: u64 = 1;
const FD_CLOEXEC: libc::c_ulong = 1 << 3;
/// `TCP_LISTEN` of net/tcp_states.h.
const FILTER: &CStr = c"newstate == 10";
const IOC_ENABLE: libc::c_ulong = 0x2400;
const IOC_SET_FILTER: libc::c_ulong = 0x4008_2406;
const RECORD_SAMPLE: u32 = 9;

/// A page of the kernel's bookkeeping, and one of records: 256 of them, more than can be heard of before they are read.
const PAGE: usize = 4096;
/// Places in the first page (`struct perf_event_mmap_page`).
const HEAD: usize = 1024;
const TAIL: usize = 1032;

/// The records of one processor.
#[derive(Debug)]
struct Ring {
    event: OwnedFd,
    pages: NonNull<u8>,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for Ring {}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped by `open` with this length, and nobody else has the address.
        let _ = unsafe { munmap(self.pages.as_ptr().cast(), 2 * PAGE) };
    }
}

impl Ring {
    fn open(tracepoint: u64, processor: u32) -> io::Result<Self> {
        let attributes = Attributes {
            kind: TRACEPOINT,
            size: u32::try_from(size_of::<Attributes>()).unwrap_or(0),
            config: tracepoint,
            sample_period: 1,
            sample_type: SAMPLE_TID,
            flags: DISABLED,
            wakeup_events: 1,
            ..Attributes::default()
        };
        const ANY_PROCESS: libc::c_long = -1;
        const NO_GROUP: libc::c_long = -1;
        // SAFETY: the structure has the size it says and lives until the call returns.
        let event = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                ANY_PROCESS,
                libc::c_long::from(processor),
                NO_GROUP,
                FD_CLOEXEC,
            )
        };
        let event = match i32::try_from(event) {
            // SAFETY: the kernel gave this descriptor to us and nobody else has it.
            Ok(fd) if fd >= 0 => unsafe { OwnedFd::from_raw_fd(fd) },
            _ => return Err(io::Error::last_os_error()),
        };
        // SAFETY: a new mapping at a place of the kernel's choice.
        let pages = unsafe {
            mmap(
                std::ptr::null_mut(),
                2 * PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &event,
                0,
            )
        }?;
        let pages = NonNull::new(pages.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let ring = Self { event, pages };
        ring.control(IOC_SET_FILTER, FILTER.as_ptr() as libc::c_ulong)?;
        ring.control(IOC_ENABLE, 0)?;
        Ok(ring)
    }

    fn control(&self, request: libc::c_ulong, argument: libc::c_ulong) -> io::Result<()> {
        // SAFETY: the one pointer that is passed here is to a constant text that ends in zero.
        match unsafe { libc::ioctl(self.event.as_raw_fd(), request, argument) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// A number that the kernel and we share.
    fn shared(&self, at: usize) -> &AtomicU64 {
        // SAFETY: within the first page, which is mapped as long as `self` lives; aligned to eight bytes.
        unsafe { &*self.pages.as_ptr().add(at).cast() }
    }

    /// A word of the page of records; places go on beyond its end and begin anew.
    fn word(&self, place: u64) -> u32 {
        let offset = usize::try_from(place).unwrap_or(0) % PAGE;
        // SAFETY: within the second page; records and their members are aligned to their size. The kernel writes a record before it
        // moves the head past it, and nothing where the tail has not been.
        unsafe {
            self.pages
                .as_ptr()
                .add(PAGE + offset)
                .cast::<u32>()
                .read_volatile()
        }
    }

    fn drain(&mut self, heard: &mut impl FnMut(Listener)) {
        let head = self.shared(HEAD).load(Ordering::Acquire);
        let mut tail = self.shared(TAIL).load(Ordering::Relaxed);
        while tail < head {
            // Kind; then 16 bits that do not matter and the length; then, in a sample, process and thread.
            let (kind, length) = (self.word(tail), self.word(tail + 4) >> 16);
            heard(match kind {
                RECORD_SAMPLE => Listener::Process(self.word(tail + 8)),
                _ => Listener::Unknown,
            });
            tail += u64::from(length.max(8));
        }
        self.shared(TAIL).store(tail, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        assert_eq!(processors("0-1\n"), [0, 1]);
        assert_eq!(processors("0,2-4,9"), [0, 2, 3, 4, 9]);
        assert!(processors("").is_empty());
    }

    #[test]
    fn a_word_from_another_thread_ends_the_wait() {
        let (mut listening, waker) = Listening::new().unwrap();
        let thread = std::thread::spawn(move || waker.wake());
        listening.wait(None, |_| {});
        thread.join().unwrap();
    }

    #[test]
    fn a_listener_is_heard_of() {
        let (mut listening, _waker) = Listening::new().unwrap();
        if !listening.has_events() {
            eprintln!("SKIP this host gives no tracepoints");
            return;
        }
        let _listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let us = Listener::Process(std::process::id());
        let mut heard = false;
        while !heard {
            listening.wait(Some(Duration::from_secs(20)), |who| heard |= who == us);
        }
    }
}
