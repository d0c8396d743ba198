//! A container that tries to get out, under Lauf and under runc with the settings that `runc spec` writes: nowhere may Lauf allow what
//! runc denies. Needs root, runc and a C compiler; says so and passes without. Prints the whole table.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::lchown;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use lauf_sandbox::spool::{Position, SpoolReader};
use lauf_sandbox::{
    ContainerSpec, InstanceId, KeeperArgs, KeeperClient, KeeperConfig, KeeperEvent, KeeperSettings,
    keeper_main,
};

const UID_BASE: u32 = 2_200_000;
const MEMORY: u64 = 128 << 20;
const PIDS: u32 = 200;

/// Probes whose answer is a matter of taste, not of holding: each with the reason why Lauf may allow more than runc's spec.
const TOLERATED: [(&str, &str); 1] = [(
    "set a file capability",
    "as Docker: it counts in the container's own user namespace only, and no_new_privs voids it (see `gain by a file capability`)",
)];

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "keeper") {
        return match KeeperArgs::parse(args) {
            Ok(args) => keeper_main(args),
            Err(text) => {
                eprintln!("{text}");
                ExitCode::FAILURE
            }
        };
    }
    if std::env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let compiler = ["musl-gcc", "gcc"].into_iter().find(|c| there(c));
    let (Some(compiler), true, true) = (
        compiler,
        rustix::process::geteuid().is_root(),
        there("runc"),
    ) else {
        println!(
            "SKIP: the hostile container needs root, runc and a C compiler; NOTHING WAS TESTED"
        );
        return ExitCode::SUCCESS;
    };
    judge(compiler)
}

fn judge(compiler: &str) -> ExitCode {
    let dir = tempfile::Builder::new()
        .prefix("hostkit-hostile")
        .tempdir()
        .unwrap();
    for (tree, base) in [("layer", UID_BASE), ("bundle/rootfs", 0)] {
        build(&dir.path().join(tree), compiler, base);
    }
    // What is outside, to be reached for: a port, an abstract socket, a process.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let name = format!("hostkit-hostile-{}", std::process::id());
    let _socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let mut outside = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let words = ["/hostile".to_owned(), port, name, outside.id().to_string()];

    let ours = under_lauf(dir.path(), &words);
    let theirs = under_runc(&dir.path().join("bundle"), &words, None);
    // The back end that calls an OCI runtime gives it our filter in OCI form: it must load, and hold what the filter is for.
    let profile = lauf_sandbox::seccomp::oci_json();
    let filtered = under_runc(&dir.path().join("bundle"), &words, Some(profile));
    outside.kill().unwrap();
    outside.wait().unwrap();
    for name in [
        "bpf",
        "keyctl",
        "unshare user",
        "setns",
        "vsock",
        "inject terminal input",
        "end",
    ] {
        let verdict = filtered.get(name).map_or("no answer", String::as_str);
        assert!(
            verdict.starts_with("denied"),
            "{name} under runc with our filter: {verdict}"
        );
    }
    compare(&ours, &theirs)
}

type Verdicts = BTreeMap<String, String>;

fn compare(ours: &Verdicts, theirs: &Verdicts) -> ExitCode {
    let mut weaker = Vec::new();
    println!("{:<36} {:<12} {:<12}", "attempt", "lauf", "runc");
    for (name, runc) in theirs {
        let lauf = ours.get(name).map_or("no answer", String::as_str);
        let worse = !lauf.starts_with("denied") && runc.starts_with("denied");
        let excuse = TOLERATED
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, why)| *why);
        let note = match (worse, excuse) {
            (true, None) => "<-- WEAKER",
            (true, Some(why)) => why,
            (false, _) if lauf.starts_with("denied") && runc.starts_with("allowed") => "stricter",
            (false, _) => "",
        };
        println!("{name:<36} {lauf:<12} {runc:<12} {note}");
        if worse && excuse.is_none() {
            weaker.push(name.as_str());
        }
    }
    let complete = ours.contains_key("end") && theirs.contains_key("end");
    if !complete {
        println!("one of the containers did not come to its end");
    }
    println!("{} attempts; weaker than runc: {weaker:?}", theirs.len());
    println!(
        "{} passed, {} failed, 0 skipped",
        theirs.len() - weaker.len(),
        weaker.len()
    );
    if weaker.is_empty() && complete && theirs.len() > 100 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The smallest image: one static program, and the folders that mounts go onto.
fn build(root: &Path, compiler: &str, base: u32) {
    for folder in ["tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("hostile-marker"), "").unwrap();
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/hostkit_hostile/hostile.c"
    );
    let made = Command::new(compiler)
        .args(["-w", "-O1", "-static", "-o"])
        .arg(root.join("hostile"))
        .arg(source)
        .status();
    assert!(
        made.unwrap().success(),
        "{compiler} could not compile the hostile program"
    );
    for path in ["", "tmp", "proc", "sys", "dev", "hostile", "hostile-marker"] {
        lchown(root.join(path), Some(base), Some(base)).unwrap();
    }
}

fn verdicts(text: &str) -> Verdicts {
    text.lines()
        .filter_map(|line| line.rsplit_once(": "))
        .map(|(name, verdict)| (name.to_owned(), verdict.trim().to_owned()))
        .collect()
}

fn under_lauf(dir: &Path, words: &[String]) -> Verdicts {
    let mut settings = KeeperSettings::new(dir.join("state"));
    settings.pool_size = 1;
    settings.uid_base = UID_BASE;
    settings.layer_dirs = vec![dir.to_owned()];
    let config = KeeperConfig {
        exe: std::env::current_exe().unwrap(),
        args: vec!["keeper".to_owned()],
        settings,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, mut events) = KeeperClient::connect_or_spawn(config).await.unwrap();
        let mut reader = SpoolReader::open(client.spool_dir(), Position::default());
        let id = InstanceId::new(format!("hostile-{}", std::process::id())).unwrap();
        let mut spec = ContainerSpec::new(id, vec![dir.join("layer")], words.to_vec());
        (spec.memory_bytes, spec.pids_max, spec.cpu_millis) = (MEMORY, PIDS, 1000);
        let _started = client.start(spec).await.unwrap();
        let mut text = String::new();
        loop {
            let event = tokio::time::timeout(Duration::from_secs(120), events.recv()).await;
            let ended = match event.expect("the container goes on for ever") {
                Some(KeeperEvent::Exited(_)) | None => true,
                Some(_) => false,
            };
            for entry in reader.read(16 << 20).unwrap() {
                text.push_str(&String::from_utf8_lossy(&entry.bytes));
                text.push('\n');
            }
            if ended {
                break;
            }
        }
        client.shutdown().await.unwrap();
        verdicts(&text)
    })
}

fn under_runc(bundle: &Path, words: &[String], seccomp: Option<serde_json::Value>) -> Verdicts {
    let file = bundle.join("config.json");
    let _ = fs::remove_file(&file);
    let spec = Command::new("runc")
        .arg("spec")
        .current_dir(bundle)
        .status()
        .unwrap();
    assert!(spec.success());
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    // As it is, but for what the program needs to run to its end: arguments, no terminal, a file system to write to, the same limits.
    config["process"]["args"] = words.into();
    config["process"]["terminal"] = false.into();
    config["root"]["readonly"] = false.into();
    config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": MEMORY });
    config["linux"]["resources"]["pids"] = serde_json::json!({ "limit": PIDS });
    if let Some(seccomp) = seccomp {
        config["linux"]["seccomp"] = seccomp;
    }
    fs::write(&file, config.to_string()).unwrap();
    let id = format!("hostkit-hostile-{}", std::process::id());
    let output = Command::new("runc")
        .arg("--root")
        .arg(bundle.join("state"))
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(id)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !text.is_empty(),
        "runc: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    verdicts(&text)
}
