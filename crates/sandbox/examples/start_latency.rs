//! Prints how long starts take, beside nothing else: `cargo run --release -p lauf-sandbox --example start_latency` as root.
//!
//! `LAYER` names a directory whose `/bin/true`-like static program is given by `COMMAND`; without them a busybox of the host is
//! used. `EGRESS=1` attaches every instance to a bridge.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measuring tool"
)]

use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lauf_sandbox::settings::Egress;
use lauf_sandbox::{
    ContainerSpec, InstanceId, KeeperClient, KeeperConfig, KeeperEvent, KeeperSettings,
};

const UID_BASE: u32 = 2_000_000;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "keeper") {
        return lauf_sandbox::KeeperArgs::parse(args)
            .map_or(ExitCode::FAILURE, lauf_sandbox::keeper_main);
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(measure());
    ExitCode::SUCCESS
}

fn layer(dir: &Path) -> PathBuf {
    if let Some(layer) = std::env::var_os("LAYER") {
        return layer.into();
    }
    let layer = dir.join("layer");
    std::fs::create_dir_all(&layer).unwrap();
    std::fs::copy("/usr/bin/busybox", layer.join("busybox"))
        .expect("apt install busybox-static, or set LAYER");
    for path in [layer.clone(), layer.join("busybox")] {
        lchown(path, Some(UID_BASE), Some(UID_BASE)).unwrap();
    }
    layer
}

fn spec(number: u32, layer: &Path) -> ContainerSpec {
    let command = std::env::var("COMMAND").unwrap_or_else(|_| "/busybox sleep 1000".to_owned());
    let words = command.split(' ').map(str::to_owned).collect();
    let id = InstanceId::new(format!("m{number}")).unwrap();
    let mut spec = ContainerSpec::new(id, vec![layer.to_owned()], words);
    (spec.memory_bytes, spec.pids_max, spec.cpu_millis) = (128 << 20, 128, 1000);
    (spec.uid, spec.gid) = (1000, 1000);
    spec
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_micros();
    println!(
        "{what:<34} min {:>6}  p50 {:>6}  p90 {:>6}  p99 {:>6}  max {:>6} us",
        at(0),
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

async fn measure() {
    let dir = tempfile::Builder::new()
        .prefix("lauf-latency")
        .tempdir()
        .unwrap();
    let layer = layer(dir.path());
    let mut settings = KeeperSettings::new(dir.path().join("state"));
    settings.uid_base = UID_BASE;
    settings.layer_dirs = vec![layer.clone()];
    if std::env::var_os("EGRESS").is_some() {
        settings.network = Some(Egress {
            name: "lsbx".to_owned(),
            subnet: None,
            private: Vec::new(),
            allow_host_ports: Vec::new(),
            dns_port: None,
            metadata_port: None,
        });
    }
    let config = KeeperConfig {
        exe: std::env::current_exe().unwrap(),
        args: vec!["keeper".to_owned()],
        settings,
    };
    let (client, mut events) = KeeperClient::connect_or_spawn(config).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!("load {}", load.trim());

    // One at a time, from a filled pool.
    let mut number = 0;
    let (mut seen, mut total, mut rootfs, mut confine, mut hand) =
        (vec![], vec![], vec![], vec![], vec![]);
    let mut fresh = 0;
    for _ in 0..300 {
        number += 1;
        let begun = Instant::now();
        let started = client.start(spec(number, &layer)).await.unwrap();
        seen.push(begun.elapsed());
        total.push(started.phases.total);
        rootfs.push(started.phases.rootfs);
        confine.push(started.phases.confine);
        hand.push(started.phases.hand_over);
        fresh += u32::from(!started.phases.pooled);
        client.kill(&started.info.id).await.unwrap();
        exit(&client, &mut events).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("300 starts one at a time, {fresh} without a waiting zygote");
    show("client: start to exec done", seen);
    show("keeper: start to exec done", total);
    show("  limits and spec handed over", hand);
    show("  image mounted", rootfs);
    show("  confined", confine);

    // As fast as it goes: start, kill, exit, again.
    let begun = Instant::now();
    let rounds = 400;
    let in_flight = 4;
    let mut done = 0;
    let mut running = tokio::task::JoinSet::new();
    let client = std::sync::Arc::new(client);
    while done < rounds {
        while running.len() < in_flight {
            number += 1;
            let (client, spec) = (std::sync::Arc::clone(&client), spec(number, &layer));
            running.spawn(async move {
                let started = client.start(spec).await.unwrap();
                client.kill(&started.info.id).await.unwrap();
            });
        }
        running.join_next().await.unwrap().unwrap();
        done += 1;
        while let Ok(event) = events.try_recv() {
            if let KeeperEvent::Exited(exit) = event {
                client.forget(&exit.id).unwrap();
            }
        }
    }
    println!(
        "{:.0} starts and kills a second, {in_flight} in flight",
        f64::from(rounds) / begun.elapsed().as_secs_f64()
    );
    while running.join_next().await.is_some() {}
    std::sync::Arc::into_inner(client)
        .unwrap()
        .shutdown()
        .await
        .unwrap();
}

async fn exit(client: &KeeperClient, events: &mut tokio::sync::mpsc::Receiver<KeeperEvent>) {
    loop {
        if let Some(KeeperEvent::Exited(exit)) = events.recv().await {
            client.forget(&exit.id).unwrap();
            return;
        }
    }
}
