//! Taking away what nothing needs any more.
//!
//! Marks from the roots (tags, manifests, kept digests), then sweeps. Content touched within the grace
//! period is passed over, which is what makes this safe beside pushes: a client that was told a blob
//! is here has that long to push the manifest.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use crate::Images;
use crate::digest::{Algorithm, Digest};
use crate::error::{ImageError, IoContext};
use crate::manifest::{ConfigFile, Document};
use crate::prepare::layers_dir;
use crate::store::{Store, blocking};

/// What garbage collection may take.
#[derive(Clone, Copy, Debug)]
pub struct GarbagePolicy {
    /// Content touched within this time stays, whatever points to it.
    pub grace: Duration,
    /// Manifests that no tag, index or subject leads to go after this time; `None` keeps them.
    pub untagged_after: Option<Duration>,
    /// Uploads nobody went on with go after this time.
    pub uploads_after: Duration,
}

impl Default for GarbagePolicy {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self {
            grace: hour,
            untagged_after: None,
            uploads_after: hour * 24,
        }
    }
}

/// What a collection took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GarbageStats {
    /// Blobs deleted.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Untagged manifests deleted.
    pub manifests: u64,
    /// Unpacked layers deleted.
    pub layers: u64,
    /// Uploads given up.
    pub uploads: u64,
}

impl Images {
    /// Deletes blobs that no tag, manifest or digest in `keep` needs, stale uploads, and unpacked
    /// layers of images neither in `keep` nor in use.
    ///
    /// # Errors
    /// `Storage` when the disk fails; what was deleted until then stays deleted.
    pub async fn collect_garbage(
        &self,
        keep: &HashSet<Digest>,
        policy: GarbagePolicy,
    ) -> Result<GarbageStats, ImageError> {
        let (images, keep) = (self.clone(), keep.clone());
        blocking(move || images.collect_now(&keep, policy)).await?
    }

    fn collect_now(
        &self,
        keep: &HashSet<Digest>,
        policy: GarbagePolicy,
    ) -> Result<GarbageStats, ImageError> {
        let store = &self.0.store;
        let mut stats = GarbageStats {
            uploads: self.0.uploads.expire(store, policy.uploads_after),
            ..GarbageStats::default()
        };
        let mut marks = Marks {
            store,
            max: self.0.config.limits.max_manifest,
            marked: HashSet::new(),
            diff_ids: HashSet::new(),
        };
        for digest in keep {
            marks.mark(digest, true)?;
        }
        let repos = store.repos()?;
        for repo in &repos {
            for tag in store.tags(repo)? {
                if let Some(digest) = store.tag(repo, &tag) {
                    marks.mark(&digest, false)?;
                }
            }
        }
        for repo in &repos {
            stats.manifests += marks.untagged(repo, policy.untagged_after)?;
        }
        for repo in &repos {
            for (digest, age) in store.blob_links(repo)? {
                // A client that was told of the blob touched it, not the link.
                let touched = store.blob_age(&digest).unwrap_or(Duration::MAX);
                if !marks.marked.contains(&digest) && age.min(touched) >= policy.grace {
                    store.unlink_blob(repo, &digest)?;
                }
            }
        }
        for digest in store.blobs().doing("read", store.dir())? {
            if marks.marked.contains(&digest) {
                continue;
            }
            let size = store.blob_size(&digest).unwrap_or(0);
            if store
                .delete_old_blob(&digest, policy.grace)
                .unwrap_or(false)
            {
                stats.blobs += 1;
                stats.bytes += size;
            }
        }
        self.0.ready.retain(|digest| keep.contains(digest));
        stats.layers = self.sweep_layers(&marks.diff_ids)?;
        Ok(stats)
    }

    fn sweep_layers(&self, needed: &HashSet<Digest>) -> Result<u64, ImageError> {
        let store = &self.0.store;
        let mut gone = 0;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = layers_dir(store, self.0.config.uid_base).join(algorithm.as_str());
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let text = format!("{}:{}", algorithm.as_str(), name.to_string_lossy());
                let Ok(digest) = text.parse::<Digest>() else {
                    continue;
                };
                if needed.contains(&digest) {
                    continue;
                }
                // Out of sight while nobody can begin to use it; deleting takes longer.
                let tmp = store.tmp_path();
                let moved = self
                    .0
                    .leases
                    .if_unused(&digest, || fs::rename(entry.path(), &tmp).is_ok());
                if moved == Some(true) {
                    fs::remove_dir_all(&tmp).doing("delete", &tmp)?;
                    gone += 1;
                }
            }
        }
        Ok(gone)
    }
}

struct Marks<'a> {
    store: &'a Store,
    max: u64,
    marked: HashSet<Digest>,
    /// Uncompressed digests of the layers of kept images.
    diff_ids: HashSet<Digest>,
}

impl Marks<'_> {
    /// Marks a manifest and all it names; `unpacked` also keeps its unpacked layers.
    fn mark(&mut self, digest: &Digest, unpacked: bool) -> Result<(), ImageError> {
        if !self.marked.insert(digest.clone()) {
            return Ok(());
        }
        // What cannot be read as a manifest names nothing; deleting more because of it would be wrong
        // only for content that is lost anyway.
        let Ok(Some(bytes)) = self.store.read_blob(digest, self.max) else {
            return Ok(());
        };
        match Document::parse(digest, &bytes) {
            Ok(Document::Manifest(manifest)) => {
                if unpacked
                    && let Ok(Some(bytes)) = self.store.read_blob(&manifest.config.digest, self.max)
                    && let Ok(config) = serde_json::from_slice::<ConfigFile>(&bytes)
                {
                    self.diff_ids.extend(config.rootfs.diff_ids);
                }
                self.marked.insert(manifest.config.digest);
                self.marked
                    .extend(manifest.layers.into_iter().map(|l| l.digest));
            }
            Ok(Document::Index(index)) => {
                for entry in index.manifests {
                    self.mark(&entry.digest, unpacked)?;
                }
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Marks what stays of a repository's manifests that no tag led to, and unlinks the rest.
    fn untagged(&mut self, repo: &str, after: Option<Duration>) -> Result<u64, ImageError> {
        let mut open: Vec<Digest> = self.store.manifests(repo)?;
        // Signatures and the like stay as long as what they speak of.
        loop {
            open.retain(|digest| !self.marked.contains(digest));
            let mut found = Vec::new();
            for digest in &open {
                let Ok(Some(bytes)) = self.store.read_blob(digest, self.max) else {
                    continue;
                };
                if let Ok(document) = Document::parse(digest, &bytes)
                    && document
                        .subject()
                        .is_some_and(|s| self.marked.contains(&s.digest))
                {
                    found.push(digest.clone());
                }
            }
            if found.is_empty() {
                break;
            }
            for digest in found {
                self.mark(&digest, false)?;
            }
        }
        let mut gone = 0;
        for digest in open {
            let age = self.store.manifest_age(repo, &digest).unwrap_or_default();
            if after.is_some_and(|after| age >= after) {
                self.store.unlink_manifest(repo, &digest)?;
                gone += 1;
            } else {
                self.mark(&digest, false)?;
            }
        }
        Ok(gone)
    }
}
