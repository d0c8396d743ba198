//! From a resolved image to folders an overlay can be mounted from.
//!
//! Each layer is unpacked once, under the digest of its uncompressed tar: into a temporary folder,
//! checked, then renamed, so a process killed at any point leaves either nothing or a whole layer. It
//! is flushed afterwards; what a crash of the machine may have damaged is unpacked anew. Images that are ready stay in memory; looking one up again is a hash lookup.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};

use crate::Images;
use crate::digest::Digest;
use crate::error::{ImageError, IoContext};
use crate::flush::Flusher;
use crate::manifest::{Descriptor, Platform, RunConfig};
use crate::resolve::{Place, ResolvedImage, check_platform};
use crate::store::{Store, blocking};
use crate::unpack::{LayerLimits, unpack};

/// Layers of one image that are brought at the same time.
const PARALLEL_LAYERS: usize = 3;

/// An image on disk, ready to be mounted. While one is held, garbage collection leaves its layers.
#[derive(Debug)]
pub struct PreparedImage {
    /// The manifest's digest.
    pub digest: Digest,
    /// The layers' folders, lowest first; overlayfs wants them the other way round. Never empty, and
    /// no folder stands twice.
    pub layers: Vec<PathBuf>,
    /// How the image is run.
    pub config: RunConfig,
    /// Bytes of file content in all layers.
    pub size_bytes: u64,
    _leases: Vec<Lease>,
}

/// What is written beside an unpacked layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LayerMeta {
    bytes: u64,
    #[serde(default)]
    opaque_root: bool,
    /// The boot of the machine in which it was written, until it is on the disk; see [`crate::flush`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
}

impl LayerMeta {
    /// The same, of a layer that has been flushed.
    pub(crate) fn on_disk(self) -> Self {
        Self { boot: None, ..self }
    }
}

/// Layers in use, so that garbage collection leaves them.
#[derive(Debug, Default)]
pub(crate) struct Leases(Arc<Mutex<HashMap<Digest, usize>>>);

/// Keeps one layer on disk.
#[derive(Debug)]
struct Lease {
    digest: Digest,
    leases: Arc<Mutex<HashMap<Digest, usize>>>,
}

impl Leases {
    fn take(&self, digest: &Digest) -> Lease {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *table.entry(digest.clone()).or_default() += 1;
        Lease {
            digest: digest.clone(),
            leases: self.0.clone(),
        }
    }

    /// Runs `work` for a layer nobody uses, and lets nobody begin to use it meanwhile.
    pub(crate) fn if_unused<T>(&self, digest: &Digest, work: impl FnOnce() -> T) -> Option<T> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!table.contains_key(digest)).then(work)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut table = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = table.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.digest);
            }
        }
    }
}

/// Images that are ready, the most recently used ones.
#[derive(Default)]
pub(crate) struct Ready(Mutex<ReadyTable>);

#[derive(Default)]
struct ReadyTable {
    images: HashMap<Digest, (Arc<PreparedImage>, u64)>,
    clock: u64,
}

impl Ready {
    fn get(&self, digest: &Digest) -> Option<Arc<PreparedImage>> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.clock += 1;
        let clock = table.clock;
        let (image, used) = table.images.get_mut(digest)?;
        *used = clock;
        Some(image.clone())
    }

    fn put(&self, image: Arc<PreparedImage>, max: usize) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.clock += 1;
        let clock = table.clock;
        if table.images.len() >= max
            && let Some(oldest) = table
                .images
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(d, _)| d.clone())
        {
            table.images.remove(&oldest);
        }
        table.images.insert(image.digest.clone(), (image, clock));
    }

    pub(crate) fn retain(&self, keep: impl Fn(&Digest) -> bool) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.images.retain(|digest, _| keep(digest));
    }
}

pub(crate) fn layers_dir(store: &Store, uid_base: u32) -> PathBuf {
    store.dir().join("layers").join(uid_base.to_string())
}

fn layer_dir(store: &Store, uid_base: u32, diff_id: &Digest) -> PathBuf {
    layers_dir(store, uid_base)
        .join(diff_id.algorithm().as_str())
        .join(diff_id.hex())
}

impl Images {
    /// Brings an image onto the disk, ready to be mounted: pulls what is missing, checks digests and
    /// sizes, unpacks each layer once. Callers that want the same image share the work; an image that
    /// is ready costs a lookup.
    ///
    /// # Errors
    /// Every variant of [`ImageError`] but `InvalidReference` and `UnknownUser`.
    pub async fn prepare(&self, image: &ResolvedImage) -> Result<Arc<PreparedImage>, ImageError> {
        if let Some(ready) = self.0.ready.get(&image.digest) {
            return Ok(ready);
        }
        let (images, wanted) = (self.clone(), image.clone());
        self.0
            .preparations
            .run(image.digest.clone(), async move {
                let prepared = Arc::new(images.prepare_now(&wanted).await?);
                images
                    .0
                    .ready
                    .put(prepared.clone(), images.0.config.limits.max_prepared);
                Ok(prepared)
            })
            .await
    }

    async fn prepare_now(&self, image: &ResolvedImage) -> Result<PreparedImage, ImageError> {
        let limits = self.0.config.limits;
        let places = self.places(&image.reference);
        let manifest = self.image_manifest(&places, image).await?;
        if manifest.layers.len() > limits.max_layers {
            return Err(ImageError::TooLarge {
                what: format!("Image '{image}'"),
                found: format!("{} layers", manifest.layers.len()),
                limit: format!("{} layers", limits.max_layers),
            });
        }
        let config = self.image_config(&places, &manifest).await?;
        check_platform(&image.to_string(), &config, &Platform::host())?;
        let diff_ids = config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(ImageError::corrupt(
                &manifest.config.digest,
                format!(
                    "the config names {} layers, the manifest {}",
                    diff_ids.len(),
                    manifest.layers.len()
                ),
            ));
        }
        let work = diff_ids
            .into_iter()
            .zip(manifest.layers)
            .map(|(diff_id, layer)| {
                let places = places.clone();
                async move {
                    let lease = self.0.leases.take(&diff_id);
                    let meta = self.ensure_layer(&places, &layer, &diff_id).await?;
                    Ok::<_, ImageError>((diff_id, meta, lease))
                }
            });
        let layers: Vec<(Digest, LayerMeta, Lease)> = futures_util::stream::iter(work)
            .buffered(PARALLEL_LAYERS)
            .try_collect()
            .await?;
        let size_bytes: u64 = layers.iter().map(|(_, meta, _)| meta.bytes).sum();
        if size_bytes > limits.max_image_unpacked {
            return Err(ImageError::TooLarge {
                what: format!("Image '{image}', unpacked,"),
                found: format!("{size_bytes} bytes"),
                limit: format!("{} bytes", limits.max_image_unpacked),
            });
        }
        // From the top down: a layer that hides everything ends the stack, and of a layer that stands
        // twice (overlayfs refuses that) the upper one already says all the lower one would.
        let mut folders: Vec<PathBuf> = Vec::new();
        let mut leases = Vec::new();
        let mut covered = false;
        for (diff_id, meta, lease) in layers.into_iter().rev() {
            let folder = layer_dir(&self.0.store, self.0.config.uid_base, &diff_id).join("fs");
            if covered || folders.contains(&folder) {
                continue;
            }
            folders.push(folder);
            leases.push(lease);
            covered = meta.opaque_root;
        }
        folders.reverse();
        if folders.is_empty() {
            folders.push(self.empty_layer().await?);
        }
        Ok(PreparedImage {
            digest: image.digest.clone(),
            layers: folders,
            config: config.config,
            size_bytes,
            _leases: leases,
        })
    }

    async fn ensure_layer(
        &self,
        places: &[Place],
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<LayerMeta, ImageError> {
        let dir = layer_dir(&self.0.store, self.0.config.uid_base, diff_id);
        let flusher = self.0.flusher.clone();
        if let Some(meta) = blocking(move || read_meta(&dir, &flusher)).await? {
            return Ok(meta);
        }
        let (images, places) = (self.clone(), places.to_vec());
        let (layer, diff_id) = (layer.clone(), diff_id.clone());
        self.0
            .unpackings
            .run(diff_id.clone(), async move {
                images.bring_blob(&places, &layer).await?;
                let _turn = images.0.unpack_turns.acquire().await;
                let inner = images.0.clone();
                blocking(move || {
                    let target = layer_dir(&inner.store, inner.config.uid_base, &diff_id);
                    // Another run may have finished between the look and this turn.
                    if let Some(meta) = read_meta(&target, &inner.flusher) {
                        return Ok(meta);
                    }
                    let limits = LayerLimits {
                        max_bytes: inner.config.limits.max_layer_unpacked,
                        max_entries: inner.config.limits.max_files,
                        compressed: layer.size,
                    };
                    unpack_layer(
                        &inner.store,
                        &inner.flusher,
                        &layer.digest,
                        &diff_id,
                        &target,
                        inner.config.uid_base,
                        limits,
                    )
                })
                .await?
            })
            .await
    }

    /// The folder for an image without layers.
    async fn empty_layer(&self) -> Result<PathBuf, ImageError> {
        let path = layers_dir(&self.0.store, self.0.config.uid_base).join("empty");
        let uid_base = self.0.config.uid_base;
        blocking(move || {
            fs::create_dir_all(&path)
                .and_then(|()| std::os::unix::fs::chown(&path, Some(uid_base), Some(uid_base)))
                .doing("create", &path)?;
            Ok(path)
        })
        .await?
    }
}

/// What is written beside a layer that is there and as it was written.
fn read_meta(dir: &Path, flusher: &Arc<Flusher>) -> Option<LayerMeta> {
    let meta: LayerMeta = serde_json::from_slice(&fs::read(dir.join("meta.json")).ok()?).ok()?;
    if !flusher.trusts(meta.boot.as_deref()) {
        return None;
    }
    if meta.boot.is_some() {
        flusher.later(dir.to_owned());
    }
    Some(meta)
}

fn unpack_layer(
    store: &Store,
    flusher: &Arc<Flusher>,
    blob: &Digest,
    diff_id: &Digest,
    target: &Path,
    uid_base: u32,
    limits: LayerLimits,
) -> Result<LayerMeta, ImageError> {
    let source = store.blob_path(blob);
    let file = File::open(&source).doing("open", &source)?;
    let tmp = Tmp(store.tmp_path());
    let root_path = tmp.0.join("fs");
    fs::create_dir_all(&root_path).doing("create", &root_path)?;
    let root: OwnedFd = File::open(&root_path).doing("open", &root_path)?.into();
    let unpacked = unpack(&blob.to_string(), file, &root, uid_base, limits)?;
    if unpacked.diff_id != *diff_id {
        return Err(ImageError::corrupt(
            blob,
            format!(
                "unpacked it has digest {}, the image's config says {diff_id}",
                unpacked.diff_id
            ),
        ));
    }
    if unpacked.skipped_devices > 0 {
        tracing::info!(
            layer = %blob,
            devices = unpacked.skipped_devices,
            "device nodes of a layer are left out; instances get a /dev of their own"
        );
    }
    let meta = LayerMeta {
        bytes: unpacked.bytes,
        opaque_root: unpacked.opaque_root,
        boot: flusher.mark().doing("write", &tmp.0)?,
    };
    let meta_path = tmp.0.join("meta.json");
    let text = serde_json::to_vec(&meta).doing("write", &meta_path)?;
    fs::write(&meta_path, text).doing("write", &meta_path)?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).doing("create", parent)?;
    }
    if target.exists() {
        // What a crash of the machine left of it. Nobody uses it: instances did not survive either.
        let damaged = Tmp(store.tmp_path());
        fs::rename(target, &damaged.0).doing("replace", target)?;
    }
    fs::rename(&tmp.0, target).doing("create", target)?;
    if meta.boot.is_some() {
        flusher.later(target.to_owned());
    }
    Ok(meta)
}

/// A temporary folder that goes away unless it was renamed.
struct Tmp(PathBuf);

impl Drop for Tmp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
