//! A container from start to exit, under the runtime that is to be used: what no single probe can show.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Finding;
use crate::zygote::Kind;
use crate::{
    ContainerSpec, ExitStatus, InstanceId, KeeperClient, KeeperConfig, KeeperEvent, KeeperSettings,
    Runtime,
};

/// What the program in the container ends with: nothing else does.
const ANSWER: u8 = 42;
/// gVisor needs a second; nothing needs this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a container with a program of a few bytes, in a folder of its own that is gone afterwards, and sees it end. `exe` and `args`
/// lead to [`crate::keeper_main`], as in [`KeeperConfig`].
pub async fn trial(exe: PathBuf, args: Vec<String>, runtime: &Runtime) -> Finding {
    const NAME: &str = "runtime";
    let begun = crate::clock::monotonic();
    match run(exe, args, runtime).await {
        Ok(()) => {
            let took = (crate::clock::monotonic() - begun).as_millis();
            Finding::ok(
                NAME,
                format!("{runtime}: a container was started and ended, all in {took} ms"),
            )
        }
        Err(text) => Finding::missing(NAME, format!("{runtime}: {text}"), remedy(runtime)),
    }
}

/// What to do about a runtime that does not start containers.
#[must_use]
pub fn remedy(runtime: &Runtime) -> &'static str {
    let Runtime::Oci { path, .. } = runtime else {
        return "mend what is missing above";
    };
    match Kind::of(path) {
        Ok(Kind::Runsc) => {
            "apt install -t bookworm-backports runsc (one of 2022 is too old), or another platform: --runtime-args=--platform=ptrace; or: --runtime own"
        }
        Ok(Kind::Runc | Kind::Crun) => "a newer version of it, or: --runtime own",
        Err(_) => "the path of an OCI runtime, or: --runtime own",
    }
}

async fn run(exe: PathBuf, args: Vec<String>, runtime: &Runtime) -> Result<(), String> {
    let dir = Folder::make().map_err(no_folder)?;
    let settings = KeeperSettings {
        pool_size: 1,
        runtime: runtime.clone(),
        layer_dirs: vec![dir.0.clone()],
        ..KeeperSettings::new(dir.0.join("keeper"))
    };
    let spec = spec(&dir.0, settings.uid_base)?;
    let config = KeeperConfig {
        exe,
        args,
        settings,
    };
    let (client, mut events) = KeeperClient::connect_or_spawn(config)
        .await
        .map_err(|e| e.to_string())?;
    let told = tokio::time::timeout(PATIENCE, tell(&client, &mut events, spec)).await;
    let ended = client.shutdown().await;
    told.map_err(|_| format!("the container did not end within {} s", PATIENCE.as_secs()))??;
    ended.map_err(|e| format!("cleaning up: {e}"))
}

async fn tell(
    client: &KeeperClient,
    events: &mut tokio::sync::mpsc::Receiver<KeeperEvent>,
    spec: ContainerSpec,
) -> Result<(), String> {
    client.start(spec).await.map_err(|e| e.to_string())?;
    while let Some(event) = events.recv().await {
        match event {
            KeeperEvent::Exited(exited) if exited.status == ExitStatus::Code(ANSWER.into()) => {
                return Ok(());
            }
            KeeperEvent::Exited(exited) => {
                return Err(format!(
                    "the container ended with {:?}, not with code {ANSWER}",
                    exited.status
                ));
            }
            KeeperEvent::Oom(_) | KeeperEvent::LogsAdvanced | KeeperEvent::Gone => {}
        }
    }
    Err("the keeper ended".to_owned())
}

/// A container that ends at once, with its image in a new folder in `dir`, for a keeper that is there already: when its start succeeds,
/// the runtime works. Removing the folder is the caller's.
///
/// # Errors
/// A line for the user, when the folder cannot be made.
pub fn spec(dir: &Path, uid_base: u32) -> Result<ContainerSpec, String> {
    let name = format!("trial-{:x}", crate::clock::wall_nanos());
    let layer = dir.join(&name);
    make_layer(&layer, uid_base).map_err(no_folder)?;
    let id = InstanceId::new(name).map_err(|e| e.to_string())?;
    let mut spec = ContainerSpec::new(id, vec![layer], vec!["/answer".to_owned()]);
    // As a service's instance has it.
    spec.memory_bytes = 512 << 20;
    spec.cpu_millis = 1000;
    spec.pids_max = 8192;
    Ok(spec)
}

fn no_folder(error: io::Error) -> String {
    format!("the folder for the trial: {error}")
}

fn make_layer(layer: &Path, owner: u32) -> io::Result<()> {
    fs::create_dir(layer)?;
    let program = layer.join("answer");
    fs::write(&program, answer())?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    for path in [layer, &program] {
        lchown(path, Some(owner), Some(owner))?;
    }
    Ok(())
}

/// A program that ends with [`ANSWER`]: the headers of an executable (System V ABI, "Object Files") with one segment, and
/// `exit(ANSWER)`.
fn answer() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u16 = 64 + 56;
    #[cfg(target_arch = "x86_64")]
    let (machine, code) = (
        62_u16,
        // mov edi, ANSWER; mov eax, 60; syscall
        [0xbf, ANSWER, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05],
    );
    #[cfg(target_arch = "aarch64")]
    let (machine, code) = (
        183_u16,
        // mov x0, ANSWER; mov x8, 93; svc 0
        [
            (ANSWER << 5),
            ANSWER >> 3,
            0x80,
            0xd2,
            0xa8,
            0x0b,
            0x80,
            0xd2,
            0x01,
            0,
            0,
            0xd4,
        ],
    );
    let size = u64::from(HEADERS) + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let half = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
    let word = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
    let long = |file: &mut Vec<u8>, value: u64| file.extend(value.to_le_bytes());
    // An executable, its entry behind the headers; program headers at 64, no sections.
    half(&mut file, 2);
    half(&mut file, machine);
    word(&mut file, 1);
    long(&mut file, BASE + u64::from(HEADERS));
    long(&mut file, 64);
    long(&mut file, 0);
    word(&mut file, 0);
    for value in [64, 56, 1, 64, 0, 0] {
        half(&mut file, value);
    }
    // Loaded whole, to be read and executed.
    word(&mut file, 1);
    word(&mut file, 5);
    for value in [0, BASE, BASE, size, size, 0x1000] {
        long(&mut file, value);
    }
    file.extend(code);
    file
}

/// A folder that is gone when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Self> {
        let unique = crate::clock::wall_nanos();
        let name = format!("lauf-doctor-{}-{unique:x}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is a few kilobytes in a folder for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_answers() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        fs::create_dir(&layer).unwrap();
        let program = layer.join("answer");
        fs::write(&program, answer()).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let status = std::process::Command::new(&program).status().unwrap();
        assert_eq!(status.code(), Some(ANSWER.into()));
    }
}
