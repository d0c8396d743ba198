//! Control groups on this host's kernel, whatever its layout. Needs root; says so and passes without.
#![allow(missing_docs, clippy::print_stderr)]

use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lauf_sandbox::cgroup::{Cgroup, CgroupRoot, Hierarchy, Limits};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

/// Runs the story with a folder of its own, and removes the folder however the story ends.
fn with_root(name: &str, story: impl FnOnce(&CgroupRoot)) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let hierarchy = Hierarchy::detect().unwrap();
    eprintln!("{}", hierarchy.describe());
    let name = format!("{name}-{}", std::process::id());
    let root = hierarchy.root(&name).unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(&root)));
    for group in root.leftovers() {
        group.kill_all().unwrap();
        remove(&group);
    }
    root.remove().unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn remove(group: &Cgroup) {
    loop {
        match group.destroy() {
            Ok(()) => return,
            Err(error) if error.is_busy() => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Starts a program inside the group, as the keeper does it for v1, and through the folder for v2.
fn start(group: &Cgroup, program: &str, args: &[&str]) -> Child {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    // The pointer outlives the fork, for `spawn` returns only after the child's exec.
    let group = std::ptr::from_ref(group) as usize;
    // SAFETY: entering a group makes system calls only and does not allocate.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || {
            let group = &*(group as *const Cgroup);
            group.enter_unified_self()?;
            group.enter_self()
        });
    }
    command.spawn().unwrap()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..5000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("never: {what}");
}

#[test]
fn groups_come_and_go_and_are_found_again() {
    with_root("hostkit-a", |root| {
        let one = root.create("one").unwrap();
        root.create("one").expect("adopts what exists");
        root.create("two").unwrap();
        assert!(root.create("../evil").is_err());
        let names: Vec<_> = root
            .leftovers()
            .iter()
            .map(|g| g.name().to_owned())
            .collect();
        assert_eq!(names, ["one", "two"]);
        one.destroy().unwrap();
        one.destroy().expect("gone already");
        assert_eq!(root.leftovers().len(), 1);
    });
}

#[test]
fn a_group_with_processes_is_busy_until_they_are_killed() {
    with_root("hostkit-b", |root| {
        let group = root.create("a").unwrap();
        group
            .set_limits(&Limits {
                cpu_millis: 1000,
                memory_bytes: 64 << 20,
                pids_max: 20,
            })
            .unwrap();
        assert!(group.is_empty());
        // A shell with children, so that killing the first one is not enough.
        let mut child = start(
            &group,
            "sh",
            &["-c", "sleep 1000 & sleep 1000 & sleep 1000"],
        );
        until("three sleeps", || !group.is_empty());
        assert!(group.destroy().unwrap_err().is_busy());
        group.freeze().unwrap();
        until("frozen", || group.is_frozen().unwrap());
        group.kill_all().expect("frozen ones too");
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        until("empty", || group.is_empty());
        remove(&group);
    });
}

#[test]
fn frozen_processes_do_not_run_and_thawed_ones_go_on() {
    with_root("hostkit-c", |root| {
        let group = root.create("a").unwrap();
        let mut child = start(&group, "sh", &["-c", "while :; do :; done"]);
        until("it runs", || group.usage().cpu > Duration::from_millis(20));
        group.freeze().unwrap();
        until("frozen", || group.is_frozen().unwrap());
        // What it did last may be accounted a moment later.
        let mut at = Duration::ZERO;
        until("it stands still", || {
            let before = std::mem::replace(&mut at, group.usage().cpu);
            std::thread::sleep(Duration::from_millis(50));
            before == group.usage().cpu
        });
        group.thaw().unwrap();
        until("it runs again", || {
            group.usage().cpu > at + Duration::from_millis(20)
        });
        group.kill_all().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn the_cpu_limit_throttles_and_says_so() {
    with_root("hostkit-d", |root| {
        let group = root.create("a").unwrap();
        group
            .set_limits(&Limits {
                cpu_millis: 100,
                ..Limits::default()
            })
            .unwrap();
        let mut child = start(&group, "sh", &["-c", "while :; do :; done"]);
        until("throttled", || {
            group.usage().throttled > Duration::from_millis(200)
        });
        group.kill_all().unwrap();
        child.wait().unwrap();
        let usage = group.usage();
        // One tenth of a CPU: for each 10 ms it ran, it stood for about 90.
        assert!(usage.cpu < usage.throttled, "{usage:?}");
    });
}

#[test]
fn the_task_limit_stops_a_fork_bomb() {
    with_root("hostkit-e", |root| {
        let group = root.create("a").unwrap();
        group
            .set_limits(&Limits {
                pids_max: 5,
                ..Limits::default()
            })
            .unwrap();
        let mut child = start(
            &group,
            "sh",
            &[
                "-c",
                "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo forked all",
            ],
        );
        child.wait().unwrap();
        // What it did fork holds the pipe open.
        group.kill_all().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    });
}

#[test]
fn the_memory_limit_kills_and_is_reported() {
    with_root("hostkit-f", |root| {
        let group = root.create("a").unwrap();
        group
            .set_limits(&Limits {
                memory_bytes: 32 << 20,
                ..Limits::default()
            })
            .unwrap();
        let event = match group.memory_events() {
            Some(file) => {
                let watcher = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
                inotify::add_watch(&watcher, file, inotify::WatchFlags::MODIFY).unwrap();
                watcher
            }
            None => group.oom_event().unwrap(),
        };
        assert_eq!(group.oom_kills(), 0);
        let mut child = start(
            &group,
            "dd",
            &["if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"],
        );
        let mut fds = [PollFd::new(&event, PollFlags::IN)];
        let limit = Timespec {
            tv_sec: 20,
            tv_nsec: 0,
        };
        assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "an event");
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        until("counted", || group.oom_kills() == 1);
        let mut buffer = [0u8; 4096];
        rustix::io::read(event.as_fd(), &mut buffer).expect("drained by a read");
        let usage = group.usage();
        assert!(
            usage.memory_peak_bytes > 20 << 20 && usage.memory_peak_bytes <= 32 << 20,
            "{usage:?}"
        );
        // Limits can be changed in both directions while it exists.
        group
            .set_limits(&Limits {
                memory_bytes: 64 << 20,
                ..Limits::default()
            })
            .unwrap();
        group
            .set_limits(&Limits {
                memory_bytes: 16 << 20,
                ..Limits::default()
            })
            .unwrap();
        group.set_limits(&Limits::default()).unwrap();
    });
}

#[test]
fn memory_held_in_tmpfs_counts() {
    with_root("hostkit-g", |root| {
        let group = root.create("a").unwrap();
        group
            .set_limits(&Limits {
                memory_bytes: 16 << 20,
                ..Limits::default()
            })
            .unwrap();
        let script =
            "mount -t tmpfs none /mnt && head -c 67108864 /dev/zero > /mnt/x; echo survived";
        let child = start(&group, "unshare", &["-m", "sh", "-c", script]);
        child.wait_with_output().unwrap();
        assert!(group.oom_kills() > 0);
    });
}

#[test]
fn the_v2_folder_takes_clones() {
    with_root("hostkit-h", |root| {
        let group = root.create("a").unwrap();
        let Some(fd) = group.clone_into_fd() else {
            return eprintln!("no v2 hierarchy here");
        };
        let mut child = start(&group, "sleep", &["1000"]);
        assert!(rustix::fs::fstat(&fd).is_ok());
        let own = std::fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
        assert!(
            own.lines()
                .any(|l| l.starts_with("0::") && l.ends_with("/a")),
            "{own}"
        );
        group.kill_all().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn the_devices_of_the_host_are_out_of_reach_on_v1() {
    if Hierarchy::detect().is_ok_and(|h| h.kind() == "v2") {
        return eprintln!("skipped: on v2 there is no devices controller");
    }
    with_root("hostkit-i", |root| {
        let group = root.create("a").unwrap();
        root.confine_self().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "cd {} && mknod zero c 1 5 && head -c1 zero >/dev/null && echo zero; mknod kmsg c 1 11 && echo made; mknod disk b 259 0 && echo made",
            folder.path().display()
        );
        let output = start(&group, "sh", &["-c", &script])
            .wait_with_output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "zero\n");
    });
}

/// Not a test of anything but speed: `cargo test -p lauf-sandbox --test hostkit_cgroup -- --ignored --nocapture costs`.
#[test]
#[ignore = "prints a measurement"]
#[allow(clippy::disallowed_methods)]
fn costs() {
    with_root("hostkit-z", |root| {
        let mut create = Vec::new();
        let mut groups = Vec::new();
        for i in 0..500 {
            let start = std::time::Instant::now();
            let group = root.create(&format!("g{i}")).unwrap();
            group
                .set_limits(&Limits {
                    cpu_millis: 1000,
                    memory_bytes: 512 << 20,
                    pids_max: 1000,
                })
                .unwrap();
            create.push(start.elapsed());
            groups.push(group);
        }
        create.sort();
        eprintln!(
            "create + limits n=500 min {:?} p50 {:?} p99 {:?}",
            create[0], create[250], create[495]
        );
        let mut child = start(&groups[0], "sleep", &["1000"]);
        let (mut freeze, mut thaw) = (Vec::new(), Vec::new());
        for _ in 0..200 {
            let start = std::time::Instant::now();
            groups[0].freeze().unwrap();
            freeze.push(start.elapsed());
            until("frozen", || groups[0].is_frozen().unwrap());
            let start = std::time::Instant::now();
            groups[0].thaw().unwrap();
            thaw.push(start.elapsed());
        }
        freeze.sort();
        thaw.sort();
        eprintln!(
            "freeze min {:?} p50 {:?}; thaw min {:?} p50 {:?}",
            freeze[0], freeze[100], thaw[0], thaw[100]
        );
        groups[0].kill_all().unwrap();
        child.wait().unwrap();
    });
}
