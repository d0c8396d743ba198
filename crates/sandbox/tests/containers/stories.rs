//! The stories. Each starts with a fresh keeper, and ends with it shut down and nothing left on the host.

use std::fs;
use std::io::{Read, Write};
use std::time::Duration;

use lauf_sandbox::spool::Stream;
use lauf_sandbox::{FailReason, StartError};

use crate::backends::Kind;
use crate::harness::{Story, World, code};
use crate::host;

macro_rules! stories {
    ($($name:ident),* $(,)?) => {
        pub fn all() -> Vec<(&'static str, Story)> {
            vec![$((stringify!($name), |world| Box::pin($name(world)))),*]
        }
    };
}

stories! {
    hello_and_its_lines,
    exit_codes_and_signals,
    commands_that_cannot_run,
    working_directories,
    users_and_their_homes,
    memory_is_limited,
    a_worker_killed_for_memory_is_reported,
    files_count_as_memory,
    processes_are_limited,
    a_fork_bomb_is_contained,
    stopping_politely_and_not,
    a_flood_without_newline,
    the_last_line_needs_no_newline,
    many_lines_in_order,
    freeze_and_thaw,
    a_way_in_through_the_namespace,
    adoption_after_a_restart_of_the_server,
    a_start_that_outlives_who_asked_for_it,
    death_of_the_keeper,
    what_a_hostile_root_finds,
    what_the_image_sees_of_its_spec,
    an_image_full_of_traps,
    many_layers,
    the_way_out,
    all_together_have_a_limit,
    nothing_leaks_over_many_starts,
}

/// Why a runtime cannot tell a story, by its nature.
pub fn impossible(kind: Kind, story: &str) -> Option<&'static str> {
    match (kind, story) {
        (Kind::Runsc, "a_worker_killed_for_memory_is_reported") => {
            Some("to the host all processes of a gVisor sandbox are one: none dies of memory alone")
        }
        _ => None,
    }
}

async fn hello_and_its_lines(w: &mut World) {
    let spec = w.probe(&[]);
    let id = spec.id.clone();
    let (exit, lines) = w.run(spec).await;
    assert_eq!(code(&exit), 0);
    assert_eq!(lines, ["hello"]);
    assert_eq!(w.said(&id, Stream::Stderr)[0].bytes, b"problem");
    assert!(!exit.oom);
    assert!(exit.memory_peak_bytes > 0);
}

async fn exit_codes_and_signals(w: &mut World) {
    for wanted in [0, 1, 42, 255] {
        let (exit, _) = w.run(w.probe(&["exit", &wanted.to_string()])).await;
        assert_eq!(code(&exit), wanted);
    }
    let (exit, _) = w.run(w.probe(&["crash"])).await;
    assert_eq!(code(&exit), -libc_sig("SEGV"));
}

fn libc_sig(name: &str) -> i32 {
    match name {
        "SEGV" => 11,
        "TERM" => 15,
        _ => 9,
    }
}

async fn commands_that_cannot_run(w: &mut World) {
    let (reason, text) = w.fails(w.command(&["no-such-thing"])).await;
    assert_eq!(reason, FailReason::CommandNotFound, "{text}");
    assert!(
        text.contains("no-such-thing") && text.contains("PATH"),
        "{text}"
    );
    let (reason, text) = w.fails(w.command(&["/no/such/file"])).await;
    assert_eq!(reason, FailReason::CommandNotFound, "{text}");
    let (reason, text) = w.fails(w.command(&["/data.txt"])).await;
    assert_eq!(reason, FailReason::NotExecutable, "{text}");
    for (command, wanted) in [
        ("/garbage", FailReason::NotExecutable),
        ("/script-without-interpreter", FailReason::CommandNotFound),
    ] {
        let spec = w.command(&[command]);
        let id = spec.id.clone();
        match w.client().start(spec).await {
            Err(StartError::Failed { reason, text }) => assert_eq!(reason, wanted, "{text}"),
            // Some runtimes find these out too late to refuse; there, they are exits.
            Ok(_) if !w.own() => assert_ne!(code(&w.exit_of(&id).await), 0),
            other => panic!("{other:?}"),
        }
    }
    let mut spec = w.probe(&[]);
    spec.layers = vec!["/no/such/layer".into()];
    let (reason, text) = w.fails(spec).await;
    assert_eq!(reason, FailReason::Mount, "{text}");
    // The names are free again.
    let mut spec = w.command(&["no-such-thing"]);
    w.fails(spec.clone()).await;
    spec.args = vec!["/probe".into()];
    w.run(spec).await;
}

async fn working_directories(w: &mut World) {
    let mut spec = w.probe(&["cwd"]);
    spec.cwd = "/made/for/it".into();
    let (_, lines) = w.run(spec).await;
    assert_eq!(lines, ["/made/for/it"]);
    let mut spec = w.probe(&["cwd"]);
    spec.cwd = "/data.txt".into();
    let (reason, text) = w.fails(spec).await;
    assert_eq!(reason, FailReason::BadCwd, "{text}");
    assert!(text.contains("/data.txt"), "{text}");
}

async fn users_and_their_homes(w: &mut World) {
    let mut spec = w.probe(&["id"]);
    (spec.uid, spec.gid) = (1000, 1000);
    let (_, lines) = w.run(spec).await;
    assert_eq!(lines, ["1000:1000 home=/home/user"]);
    let mut spec = w.command(&["sh", "-c", "echo again > /dev/stdout; id -G; touch /tmp/mine && echo may; touch /etc/x || echo may not"]);
    (spec.uid, spec.gid) = (1000, 1000);
    spec.additional_gids = vec![1000, 44];
    let (_, lines) = w.run(spec).await;
    assert_eq!(lines, ["again", "1000 44", "may", "may not"]);
}

async fn memory_is_limited(w: &mut World) {
    let (exit, lines) = w.run(w.probe(&["eat", "20"])).await;
    assert_eq!((code(&exit), lines), (0, vec!["ate".to_owned()]));
    assert!(
        exit.memory_peak_bytes > 20 << 20 && exit.memory_peak_bytes <= 65 << 20,
        "{}",
        exit.memory_peak_bytes
    );
    let (exit, _) = w.run(w.probe(&["eat", "200"])).await;
    assert_eq!(code(&exit), -9);
    assert!(exit.oom);
}

async fn a_worker_killed_for_memory_is_reported(w: &mut World) {
    let spec = w.probe(&["child-eats", "200"]);
    let id = spec.id.clone();
    w.start(spec).await;
    w.oom_of(&id).await;
    w.until_says(&id, "child killed").await;
    w.client().kill(&id).await.unwrap();
    assert!(w.exit_of(&id).await.oom);
}

async fn files_count_as_memory(w: &mut World) {
    let (exit, lines) = w.run(w.probe(&["write-file", "30"])).await;
    assert_eq!((code(&exit), lines), (0, vec!["wrote all".to_owned()]));
    assert!(exit.memory_peak_bytes > 30 << 20);
    let (exit, lines) = w.run(w.probe(&["write-file", "200"])).await;
    // The limit is met as a full disk or as the killer, never as the host's memory.
    assert!(
        exit.oom || lines.iter().any(|l| l.starts_with("stopped")),
        "{exit:?} {lines:?}"
    );
    assert!(exit.memory_peak_bytes <= 65 << 20);
}

async fn processes_are_limited(w: &mut World) {
    let spec = w.probe(&["forks"]);
    let id = spec.id.clone();
    w.start(spec).await;
    if w.gvisor() {
        // The limit is that of the kernel in the sandbox, which cannot go on when it meets it.
        assert_ne!(code(&w.exit_of(&id).await), 0);
        return;
    }
    w.until_says(&id, "made 63").await;
    w.client().kill(&id).await.unwrap();
    assert_eq!(code(&w.exit_of(&id).await), -9);
}

async fn a_fork_bomb_is_contained(w: &mut World) {
    let bomb = w.probe(&["bomb"]);
    let id = bomb.id.clone();
    w.start(bomb).await;
    let (exit, _) = w.run(w.probe(&[])).await;
    assert_eq!(code(&exit), 0);
    let killed = w.client().kill(&id).await;
    let exit = w.exit_of(&id).await;
    // What failed forks leave to the kernel to free counts as well, and may meet the limit of the memory first.
    assert!(
        killed.is_ok() || exit.oom || w.gvisor(),
        "{killed:?} {exit:?}"
    );
}

async fn stopping_politely_and_not(w: &mut World) {
    let spec = w.probe(&["handle-term"]);
    let id = spec.id.clone();
    w.start(spec).await;
    w.until_says(&id, "ready").await;
    w.client().signal(&id, 15).await.unwrap();
    assert_eq!(code(&w.exit_of(&id).await), 7);
    assert_eq!(w.lines(&id), ["ready", "got term"]);

    let spec = w.probe(&["ignore-term"]);
    let id = spec.id.clone();
    w.start(spec).await;
    w.until_says(&id, "ready").await;
    w.client().signal(&id, 15).await.unwrap();
    assert!(
        w.client()
            .stats(None)
            .await
            .unwrap()
            .iter()
            .any(|(other, _)| *other == id),
        "it lives on"
    );
    w.client().kill(&id).await.unwrap();
    assert_eq!(code(&w.exit_of(&id).await), -9);

    // No handler at all: it dies as outside of a container.
    let spec = w.probe(&["sleep"]);
    let id = spec.id.clone();
    w.start(spec).await;
    w.client().signal(&id, 15).await.unwrap();
    assert_eq!(code(&w.exit_of(&id).await), -15);
    assert!(w.client().signal(&id, 15).await.is_err());
}

async fn a_flood_without_newline(w: &mut World) {
    let spec = w.probe(&["spam", "50"]);
    let id = spec.id.clone();
    let (exit, _) = w.run(spec).await;
    assert_eq!(code(&exit), 0);
    let said = w.said(&id, Stream::Stdout);
    assert_eq!(said.iter().map(|e| e.bytes.len()).sum::<usize>(), 50 << 20);
    assert!(said.iter().all(|e| e.bytes.len() <= 256 << 10));
    assert!(said[0].cut && !said[0].continues && said[1].continues);
}

async fn the_last_line_needs_no_newline(w: &mut World) {
    let (_, lines) = w.run(w.probe(&["partial"])).await;
    assert_eq!(lines, ["no newline"]);
}

async fn many_lines_in_order(w: &mut World) {
    let (_, lines) = w.run(w.probe(&["count", "20000"])).await;
    assert_eq!(lines.len(), 20_000);
    assert!(
        lines
            .iter()
            .enumerate()
            .all(|(i, line)| *line == format!("line {i}"))
    );
}

async fn freeze_and_thaw(w: &mut World) {
    let spec = w.probe(&["tick"]);
    let id = spec.id.clone();
    w.start(spec).await;
    w.until_says(&id, "tick 3").await;
    w.client().freeze(&id).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = w.lines(&id).len();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(w.lines(&id).len(), before);
    assert!(w.client().list().await.unwrap()[0].info.frozen);
    w.client().thaw(&id).await.unwrap();
    w.until_says(&id, &format!("tick {}", before + 3)).await;
    w.client().freeze(&id).await.unwrap();
    w.client().kill(&id).await.unwrap();
    assert_eq!(code(&w.exit_of(&id).await), -9);
}

async fn a_way_in_through_the_namespace(w: &mut World) {
    let mut spec = w.probe(&["serve", "80"]);
    (spec.uid, spec.gid) = (1000, 1000);
    let id = spec.id.clone();
    let started = w.start(spec).await;
    w.until_says(&id, "listening").await;
    let mut stream = started.netns.connect(80).unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok"), "{answer}");
    assert_eq!(
        started.netns.connect(81).unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    w.client().kill(&id).await.unwrap();
    w.exit_of(&id).await;
}

async fn adoption_after_a_restart_of_the_server(w: &mut World) {
    let mut stays = w.probe(&["serve", "8080"]);
    stays.labels.insert("revision".into(), "hello-00001".into());
    let goes = w.probe(&["handle-term"]);
    let (stays_id, goes_id) = (stays.id.clone(), goes.id.clone());
    w.start(stays).await;
    let going = w.start(goes).await;
    w.until_says(&goes_id, "ready").await;
    w.until_says(&stays_id, "listening").await;
    w.client = None;
    // While no server is there.
    assert!(
        std::process::Command::new("kill")
            .arg(going.info.pid.to_string())
            .status()
            .unwrap()
            .success()
    );
    w.reconnect().await;
    let mut adopted = w.client().list().await.unwrap();
    adopted.retain(|a| a.info.id != goes_id);
    assert_eq!(adopted.len(), 1);
    assert_eq!(adopted[0].info.id, stays_id);
    assert_eq!(adopted[0].info.labels["revision"], "hello-00001");
    adopted[0].netns.connect(8080).unwrap();
    assert_eq!(code(&w.exit_of(&goes_id).await), 7);
    assert_eq!(w.lines(&goes_id), ["ready", "got term"]);
    w.client().kill(&stays_id).await.unwrap();
    w.exit_of(&stays_id).await;
}

async fn a_start_that_outlives_who_asked_for_it(w: &mut World) {
    let mut spec = w.probe(&["serve", "8080"]);
    spec.outlives_asker = true;
    let id = spec.id.clone();
    // Asked for, and gone before the answer.
    let unheard = tokio::time::timeout(Duration::ZERO, w.client().start(spec.clone())).await;
    assert!(unheard.is_err(), "too quick to tell anything");
    // What is answered after it says that it has arrived.
    w.client().list().await.unwrap();
    w.reconnect().await;
    let started = async {
        while w.client().list().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, started).await.unwrap();
    // Asked for again, it is there already, and once.
    let (reason, text) = w.fails(spec).await;
    assert_eq!(reason, FailReason::IdInUse, "{text}");
    // Lists that are asked for at the same time are all answered, each with all there is.
    let list = || w.client().list();
    for listed in <[_; 3]>::from(tokio::join!(list(), list(), list())) {
        let ids: Vec<_> = listed.unwrap().into_iter().map(|l| l.info.id).collect();
        assert_eq!(ids, std::slice::from_ref(&id));
    }
    w.client().kill(&id).await.unwrap();
    w.exit_of(&id).await;
}

async fn death_of_the_keeper(w: &mut World) {
    let specs: Vec<_> = (0..3).map(|_| w.probe(&["ignore-term"])).collect();
    let mut pids = Vec::new();
    for spec in specs {
        pids.push(w.start(spec).await.info.pid);
    }
    let keeper = w.client().keeper_pid();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &keeper.to_string()])
            .status()
            .unwrap()
            .success()
    );
    w.gone().await;
    assert!(w.client().is_gone());
    assert!(w.client().start(w.probe(&[])).await.is_err());
    w.reconnect().await;
    // The new keeper serves only after the old one's instances are gone.
    assert!(
        pids.iter()
            .all(|pid| !fs::exists(format!("/proc/{pid}/exe")).unwrap_or(false))
    );
    assert!(w.client().list().await.unwrap().is_empty());
    assert_eq!(w.run(w.probe(&[])).await.1, ["hello"]);
}

async fn all_together_have_a_limit(w: &mut World) {
    // A keeper with less memory for all in the place of the one there is; each instance may have most of it.
    w.client.take().unwrap().shutdown().await.unwrap();
    // A kernel of one's own takes its part.
    let (all, each, eats) = if w.gvisor() {
        (1280, 1200, 600)
    } else {
        (320, 300, 140)
    };
    w.settings.memory_max = Some(all << 20);
    w.settings.max_instances = Some(4);
    w.reconnect().await;
    let mut eaters = Vec::new();
    for _ in 0..2 {
        let mut spec = w.probe(&["eat-and-stay", &eats.to_string()]);
        spec.memory_bytes = each << 20;
        let id = spec.id.clone();
        w.start(spec).await;
        w.until_says(&id, "ate").await;
        eaters.push(id);
    }
    let (reason, text) = w.fails(w.probe(&[])).await;
    assert_eq!(reason, FailReason::NoRoom, "{text}");
    assert!(text.contains("that all may use together"), "{text}");
    // Who ends makes room for others.
    let first = eaters.remove(0);
    w.client().kill(&first).await.unwrap();
    w.exit_of(&first).await;
    // Then as many small ones as there may be, and no more.
    for _ in 0..3 {
        let spec = w.probe(&["sleep"]);
        eaters.push(spec.id.clone());
        w.start(spec).await;
    }
    let (reason, text) = w.fails(w.probe(&[])).await;
    assert_eq!(reason, FailReason::NoRoom, "{text}");
    assert!(text.contains("4 instances run on this machine"), "{text}");
    for id in eaters {
        w.client().kill(&id).await.unwrap();
        w.exit_of(&id).await;
    }
    if w.gvisor() {
        return;
    }
    // Both grow beyond what there is for both: one is ended, though within its own limit, and the other goes on.
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut spec = w.probe(&["eat-and-stay", "240"]);
        spec.memory_bytes = 300 << 20;
        ids.push(spec.id.clone());
        w.start(spec).await;
    }
    let ended = w.any_exit().await;
    assert!(ended.oom, "{ended:?}");
    assert!(ended.memory_peak_bytes < 290 << 20, "{ended:?}");
    ids.retain(|id| *id != ended.id);
    w.until_says(&ids[0], "ate").await;
    w.client().kill(&ids[0]).await.unwrap();
    w.exit_of(&ids[0]).await;
}

async fn nothing_leaks_over_many_starts(w: &mut World) {
    let mut before = (0, 0);
    // Other runtimes take long, and a leak shows as well.
    for round in 0..if w.own() { 200 } else { 60 } {
        w.run(w.probe(&[])).await;
        if round == 20 {
            w.client().configure(4).await.unwrap();
            before = settled(w).await;
        }
    }
    let after = settled(w).await;
    // The pool may be one item ahead or behind.
    let (files, namespaces) = before;
    assert!(
        after.0 <= files + 12 && after.1 <= namespaces + 3,
        "{files} descriptors and {namespaces} namespaces have become {after:?}"
    );
}

/// The keeper's descriptors and its instances' network namespaces once its pool is full again: nothing
/// else happens to it then.
async fn settled(w: &World) -> (usize, usize) {
    let seen = || {
        (
            host::open_files(w.client().keeper_pid()),
            host::network_namespaces(&w.settings.host_name()).len(),
        )
    };
    let mut last = seen();
    let mut times = 0;
    while times < 25 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = seen();
        times = if now == last { times + 1 } else { 0 };
        last = now;
    }
    last
}

/// Looks, as root in the container, for everything that would be a way out.
async fn what_a_hostile_root_finds(w: &mut World) {
    let script = r#"
grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
mount -t tmpfs x /tmp 2>/dev/null && echo BAD mount
mount -o remount,rw /proc/sys 2>/dev/null && echo BAD remount
(echo x > /proc/sys/kernel/hostname) 2>/dev/null && echo BAD sysctl
(echo 1 > /proc/sys/net/ipv4/ip_forward) 2>/dev/null && echo BAD net sysctl
(echo b > /proc/sysrq-trigger) 2>/dev/null && echo BAD sysrq
(echo x > /proc/sys/kernel/core_pattern) 2>/dev/null && echo BAD core pattern
test -s /proc/kcore && head -c 1 /proc/kcore | grep -q . && echo BAD kcore
test -n "$(cat /proc/keys 2>/dev/null)" && echo BAD keys
test -n "$(cat /proc/timer_list 2>/dev/null)" && echo BAD timers
test -n "$(ls /sys/firmware 2>/dev/null)" && echo BAD firmware
touch /sys/x 2>/dev/null && echo BAD sys
for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/x 2>/dev/null && echo BAD cgroup $d; done
busybox mknod /tmp/disk b 254 0 2>/dev/null && echo BAD block device
busybox mknod /tmp/kmsg c 1 11 2>/dev/null && echo BAD character device
busybox chroot / /bin/true 2>/dev/null
busybox unshare -m true 2>/dev/null && echo BAD unshare
busybox unshare -U true 2>/dev/null && echo BAD user namespace
busybox nsenter -t 1 -n true 2>/dev/null && echo BAD nsenter
busybox ip link set lo down 2>/dev/null && echo BAD link
busybox hostname other 2>/dev/null && echo BAD hostname
busybox dmesg 2>/dev/null | grep -q . && echo BAD dmesg
busybox swapoff -a 2>/dev/null; busybox date -s 2000.01.01-00:00 2>&1 | grep -q "can't set" || echo BAD date
ls /proc/self/fd | grep -vE '^[0123]$' | sed s/^/BAD\ fd\ /
for p in /proc/[0-9]*; do echo process ${p#/proc/}; done | grep -vE 'process (1|[3-9]|[1-9][0-9]+)$'
echo end
"#;
    let mut script = script.replace("| sed", "| busybox sed");
    if !w.own() {
        // runc leaves the folder above the groups writable: a tmpfs of the container's, and no cgroup.
        script = script.replace("/sys/fs/cgroup /sys", "/sys");
    }
    let mut spec = w.script(&script);
    spec.pids_max = 200;
    let (exit, lines) = w.run(spec).await;
    assert_eq!(code(&exit), 0, "{lines:?}");
    // gVisor's own kernel has user namespaces, device nodes that lead nowhere, and jokes for a log; filters are for the host's.
    let harmless = [
        "BAD block device",
        "BAD character device",
        "BAD user namespace",
        "BAD dmesg",
    ];
    let bad = |line: &&String| {
        line.starts_with("BAD") && !(w.gvisor() && harmless.contains(&line.as_str()))
    };
    assert_eq!(lines.iter().find(bad), None, "{lines:#?}");
    assert_eq!(lines.last().unwrap(), "end");
    let all = [
        "CapInh:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ];
    for wanted in &all[..if w.gvisor() { 1 } else { 4 }] {
        assert!(lines.iter().any(|l| l == *wanted), "{wanted} in {lines:#?}");
    }
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(
            lines
                .iter()
                .any(|l| *l == format!("{set}:\t00000000000001fb")),
            "{set} in {lines:#?}"
        );
    }
    let mut spec = w.script(
        "grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status; (echo > /data.txt) 2>/dev/null && echo BAD",
    );
    (spec.uid, spec.gid) = (1000, 1000);
    let (_, lines) = w.run(spec).await;
    assert_eq!(lines.len(), if w.gvisor() { 2 } else { 3 }, "{lines:?}");
    assert!(
        lines.iter().all(|l| l.ends_with("0000000000000000")),
        "{lines:?}"
    );
}

async fn what_the_image_sees_of_its_spec(w: &mut World) {
    let script = r#"
busybox hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf; echo $GREETING; echo $PATH; stat -c '%u:%g %a' / /etc/hosts /tmp
LIMIT
echo x > /dev/shm/a && echo x > /dev/null && head -c 4 /dev/urandom | busybox wc -c && echo x > /bin/new && echo writable
"#;
    // gVisor is a machine with so much memory; elsewhere it is the cgroup that says it.
    let limit = if w.gvisor() {
        "busybox awk '/^MemTotal/ { print $2 * 1024 }' /proc/meminfo"
    } else {
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
    };
    let mut spec = w.script(&script.replace("LIMIT", limit));
    spec.hostname = "localhost".into();
    spec.hosts = Some("127.0.0.1 localhost\n".into());
    spec.resolv_conf = Some("nameserver 10.0.0.1\n".into());
    spec.env = vec![("GREETING".into(), "a = b $x".into())];
    let (_, lines) = w.run(spec).await;
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let wanted = [
        "localhost",
        "localhost",
        "127.0.0.1 localhost",
        "nameserver 10.0.0.1",
        "a = b $x",
        path,
        "0:0 755",
        "0:0 644",
        "0:0 1777",
        "67108864",
        "4",
        "writable",
    ];
    assert_eq!(lines, wanted);
    // The layer is as it was.
    assert!(!w.layer.join("bin/new").exists() && !w.layer.join("etc/hosts").exists());
}

async fn an_image_full_of_traps(w: &mut World) {
    let victim = w.dir.join("victim");
    fs::create_dir_all(&victim).unwrap();
    fn trap(w: &World, name: &str, link: &str, target: &str) -> lauf_sandbox::ContainerSpec {
        let layer = w.dir.join(format!("trap-{name}-{:?}", w.kind));
        fs::create_dir_all(&layer).unwrap();
        let _ = std::os::unix::fs::symlink(target, layer.join(link));
        host::shift(&layer);
        let mut spec = w.probe(&[]);
        spec.layers = vec![w.layer.clone(), layer];
        spec.hosts = Some("trap".into());
        spec
    }
    // A link out of the image leads nowhere: the host's directory stays empty.
    let mut outside = trap(w, "etc", "elsewhere", victim.to_str().unwrap());
    outside.cwd = "/elsewhere/deep".into();
    leads_nowhere(w, outside).await;
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    let mut magic = trap(w, "magic", "door", "/proc/self/fd/3");
    magic.cwd = "/door/x".into();
    leads_nowhere(w, magic).await;
    for mount_point in ["proc", "dev", "sys"] {
        let mut spec = trap(w, mount_point, mount_point, "/tmp");
        spec.args = w
            .script(&format!("readlink /{mount_point}; ls /tmp; echo end"))
            .args;
        let id = spec.id.clone();
        match w.client().start(spec).await {
            Ok(_) if w.own() => {
                w.exit_of(&id).await;
                assert_eq!(w.lines(&id), ["end"]);
            }
            // Other runtimes refuse some links, and follow others inside of the image.
            Ok(_) => drop(w.exit_of(&id).await),
            Err(StartError::Failed { reason, text }) if !w.own() => {
                assert_eq!(reason, FailReason::Mount, "{text}");
                assert!(text.contains(mount_point), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The working directory of the spec is no place of the host.
async fn leads_nowhere(w: &mut World, spec: lauf_sandbox::ContainerSpec) {
    if w.own() || w.kind == Kind::Runc {
        let (reason, text) = w.fails(spec).await;
        assert_eq!(reason, FailReason::BadCwd, "{text}");
        return;
    }
    // Other runtimes make the directory where the link leads inside of the image.
    let id = spec.id.clone();
    match w.client().start(spec).await {
        Err(StartError::Failed { reason, text }) => {
            assert_eq!(reason, FailReason::BadCwd, "{text}");
        }
        Ok(_) => drop(w.exit_of(&id).await),
        other => panic!("{other:?}"),
    }
}

async fn many_layers(w: &mut World) {
    let mut layers = vec![w.layer.clone()];
    for number in 0..124 {
        let long = format!("layer-with-a-name-as-long-as-a-digest-{number:064}");
        let layer = w.dir.join("many").join(long);
        fs::create_dir_all(layer.join("f")).unwrap();
        fs::write(layer.join("f").join(number.to_string()), "").unwrap();
        fs::write(layer.join("top"), number.to_string()).unwrap();
        host::shift(&layer);
        layers.push(layer);
    }
    let mut spec = w.script("ls /f | busybox wc -l; cat /top");
    spec.layers = layers;
    let (_, lines) = w.run(spec).await;
    assert_eq!(lines, ["124", "123"]);
}

async fn the_way_out(w: &mut World) {
    // A keeper with egress in the place of the one there is.
    w.client.take().unwrap().shutdown().await.unwrap();
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let closed = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    w.settings.network = Some(lauf_sandbox::settings::Egress {
        name: host::network_name(),
        subnet: None,
        private: Vec::new(),
        allow_host_ports: vec![port],
        dns_port: None,
        metadata_port: None,
    });
    w.reconnect().await;
    let gateway = w.client().gateways()[0];
    let sleeper = w.probe(&["serve", "8080"]);
    let other = w.start(sleeper).await;
    let shut = closed.local_addr().unwrap().port();
    let neighbour = other.info.ip.unwrap();
    let script = format!(
        "echo GET | busybox nc -w 2 {gateway} {port}; busybox nc -w 1 {gateway} {shut} </dev/null && echo BAD; busybox nc -w 1 {neighbour} 8080 </dev/null && echo BAD; echo end"
    );
    let answer = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.write_all(b"hello from outside\n").unwrap();
        peer.ip()
    });
    let spec = w.script(&script);
    let id = spec.id.clone();
    let started = w.start(spec).await;
    w.exit_of(&id).await;
    assert_eq!(w.lines(&id), ["hello from outside", "end"]);
    assert_eq!(
        answer.join().unwrap(),
        std::net::IpAddr::V4(started.info.ip.unwrap())
    );
    w.client().kill(&other.info.id).await.unwrap();
    w.exit_of(&other.info.id).await;
}
