//! A NATS server of the test's own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server that syncs each message to the disk before it acknowledges it. It ends with this value.
pub(crate) struct Nats {
    program: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl Nats {
    /// Starts one, if there is a program for it: the one that `LAUF_NATS_SERVER` names, or `nats-server`.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = program() else {
            eprintln!(
                "skipped: there is no nats-server 2.10 or later; cargo xtask test fetches one, or set LAUF_NATS_SERVER"
            );
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        let mut nats = Self {
            program,
            dir: tempfile::tempdir().unwrap(),
            port,
            process: None,
        };
        nats.run();
        Some(nats)
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends the server with SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it, and waits until it listens.
    pub(crate) fn run(&mut self) {
        let config = self.dir.path().join("nats.conf");
        let said = format!(
            "listen: \"127.0.0.1:{}\"\njetstream {{\n  store_dir: \"{}\"\n  sync_interval: always\n}}\n",
            self.port,
            self.dir.path().join("store").display()
        );
        fs::write(&config, said).unwrap();
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        let process = Command::new(&self.program)
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        for _ in 0..1_500 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let log = fs::read_to_string(self.dir.path().join("log"));
        panic!("nats-server does not listen: {}", log.unwrap_or_default());
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> Option<PathBuf> {
    let named = std::env::var_os("LAUF_NATS_SERVER").filter(|name| !name.is_empty());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("nats-server"));
    named
        .map(PathBuf::from)
        .into_iter()
        .chain(on_path)
        .find(|program| will_do(program))
}

/// Older ones cannot be told to sync each message.
fn will_do(program: &Path) -> bool {
    let Ok(said) = Command::new(program).arg("--version").output() else {
        return false;
    };
    let said = String::from_utf8_lossy(&said.stdout);
    let version = said.trim().rsplit('v').next().unwrap_or_default();
    let mut numbers = version
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(2), Some(10))
}
