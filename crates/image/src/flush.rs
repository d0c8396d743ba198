//! When unpacked layers reach the disk: later, and many at once.
//!
//! A layer can be made again from its blob, so a deploy need not wait until thousands of small files are on a busy disk. A layer that
//! has not been flushed carries the id of the kernel's boot in its `meta.json`: as long as the machine is up, what was written is what
//! is read, whoever is killed. After a crash of the machine the id is another one, and the layer is unpacked anew.
//!
//! Flushing is one `syncfs` for all layers that wait, on a thread that is there only meanwhile.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::prepare::LayerMeta;
use crate::store::sync_parent;

/// Flushes layers in the background.
#[derive(Debug)]
pub(crate) struct Flusher {
    /// A folder on the file system of the layers.
    dir: PathBuf,
    /// This boot of the machine; `None` where the kernel does not say.
    boot: Option<String>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    layers: BTreeSet<PathBuf>,
    running: bool,
}

impl Flusher {
    pub(crate) fn new(dir: &Path) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        Self {
            dir: dir.to_owned(),
            boot: boot
                .map(|id| id.trim().to_owned())
                .filter(|id| !id.is_empty()),
            waiting: Mutex::default(),
        }
    }

    /// What a layer that is about to appear has to carry. Without a boot to name, everything written so far is flushed here and now.
    pub(crate) fn mark(&self) -> io::Result<Option<String>> {
        if self.boot.is_none() {
            self.flush()?;
        }
        Ok(self.boot.clone())
    }

    /// Whether a layer with this mark is as it was written.
    pub(crate) fn trusts(&self, mark: Option<&str>) -> bool {
        mark.is_none_or(|mark| self.boot.as_deref() == Some(mark))
    }

    /// Has the layer in `dir` flushed soon.
    pub(crate) fn later(self: &Arc<Self>, dir: PathBuf) {
        let mut waiting = self.waiting();
        waiting.layers.insert(dir);
        if waiting.running {
            return;
        }
        let flusher = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name("lauf-flush".into())
            .spawn(move || flusher.run());
        // Without a thread the layer keeps its mark, and is asked about again when it is next used.
        waiting.running = thread.is_ok();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let layers = {
                let mut waiting = self.waiting();
                if waiting.layers.is_empty() {
                    waiting.running = false;
                    return;
                }
                std::mem::take(&mut waiting.layers)
            };
            if let Err(error) = self.flush() {
                tracing::warn!(%error, "layers could not be flushed to the disk");
                continue;
            }
            for layer in layers {
                match take_mark(&layer) {
                    // Collected as garbage in the meantime.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        tracing::warn!(%error, layer = %layer.display(), "a layer keeps its mark")
                    }
                    Ok(()) => {}
                }
            }
        }
    }

    fn flush(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.dir)?)?)
    }
}

/// The layer is on the disk.
fn take_mark(layer: &Path) -> io::Result<()> {
    let path = layer.join("meta.json");
    let meta: LayerMeta = serde_json::from_slice(&fs::read(&path)?)?;
    let new = layer.join("meta.json.new");
    let file = File::create(&new)?;
    serde_json::to_writer(&file, &meta.on_disk())?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    sync_parent(&path)
}
