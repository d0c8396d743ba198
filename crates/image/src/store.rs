//! The folder on disk: blobs by digest, and which repository knows which of them.
//!
//! ```text
//! blobs/<algorithm>/<hex>                       content, written once, verified before it appears
//! repos/<repository>/_blobs/<algorithm>/<hex>    empty: the repository may serve this blob
//! repos/<repository>/_manifests/<algorithm>/<hex>   the media type it was pushed with
//! repos/<repository>/_tags/<tag>                a digest
//! repos/<repository>/_referrers/<algorithm>/<hex>/<algorithm>-<hex>   who refers to the first
//! uploads/<id>/{repo,data}                      unfinished uploads; they survive a restart
//! layers/<uid base>/<algorithm>/<hex>/{fs,meta.json}   unpacked layers by diff id
//! tmp/                                          whatever a killed process left; emptied at start
//! ```
//!
//! Laws: a file appears under its final name only when it is whole (write, fsync, rename, fsync of
//! the folder), so a process may be killed at any point. A blob is touched whenever something
//! begins to rely on it, and garbage collection passes over blobs touched lately; the `gate` makes
//! "touch" and "look at the time, then delete" exclude each other.
//!
//! Everything here blocks; callers in async code go through `spawn_blocking`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::time::{Duration, SystemTime};

use crate::digest::{Algorithm, Digest, Hasher, to_hex};
use crate::error::{ImageError, IoContext};

/// The blob store and the repositories' books.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    gate: RwLock<()>,
    /// Held open for its lock: two processes must not own one folder.
    _lock: File,
}

/// The one place where this crate asks for the time of day: file times are compared with it.
#[expect(
    clippy::disallowed_methods,
    reason = "file times come from the kernel's clock, so their age does too"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

pub(crate) fn random_id() -> String {
    let mut bytes = [0_u8; 16];
    // The kernel's generator does not fail after boot; zeros would only make a name collide, which
    // create_new notices.
    let _ = getrandom::fill(&mut bytes);
    to_hex(&bytes)
}

impl Store {
    pub(crate) fn open(dir: &Path) -> Result<Self, ImageError> {
        use std::os::unix::fs::DirBuilderExt;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(dir).doing("create", dir)?;
        let lock_path = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&lock_path)
            .doing("open", &lock_path)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
            |e| {
                ImageError::storage(
                    format!(
                        "lock {} (is another server using this folder?)",
                        dir.display()
                    ),
                    e,
                )
            },
        )?;
        for name in [
            "blobs/sha256",
            "blobs/sha512",
            "repos",
            "uploads",
            "layers",
            "tmp",
        ] {
            let path = dir.join(name);
            builder.create(&path).doing("create", &path)?;
        }
        let store = Self {
            dir: dir.to_owned(),
            gate: RwLock::new(()),
            _lock: lock,
        };
        store.empty_tmp()?;
        Ok(store)
    }

    /// Throws away what a killed process left, without making the start wait for it.
    fn empty_tmp(&self) -> Result<(), ImageError> {
        let tmp = self.dir.join("tmp");
        if fs::read_dir(&tmp).doing("read", &tmp)?.next().is_none() {
            return Ok(());
        }
        let old = self.dir.join(format!("tmp.{}", random_id()));
        fs::rename(&tmp, &old).doing("rename", &tmp)?;
        fs::create_dir(&tmp).doing("create", &tmp)?;
        let dir = self.dir.clone();
        std::thread::spawn(move || {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with("tmp.")
                    && let Err(error) = fs::remove_dir_all(entry.path())
                {
                    tracing::warn!(%error, path = %entry.path().display(), "left-over files stay");
                }
            }
        });
        Ok(())
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn tmp_path(&self) -> PathBuf {
        self.dir.join("tmp").join(random_id())
    }

    pub(crate) fn uploads_dir(&self) -> PathBuf {
        self.dir.join("uploads")
    }

    // === blobs ===

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir
            .join("blobs")
            .join(digest.algorithm().as_str())
            .join(digest.hex())
    }

    /// The blob's length in bytes, if it is here.
    pub(crate) fn blob_size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.blob_path(digest)).ok().map(|m| m.len())
    }

    /// How long ago something last relied on the blob.
    pub(crate) fn blob_age(&self, digest: &Digest) -> Option<Duration> {
        fs::metadata(self.blob_path(digest)).ok().map(|m| age(&m))
    }

    /// Says that something begins to rely on the blob; false when it is not here.
    pub(crate) fn touch(&self, digest: &Digest) -> bool {
        let _gate = self
            .gate
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        File::open(self.blob_path(digest))
            .and_then(|f| f.set_modified(now()))
            .is_ok()
    }

    /// Deletes the blob unless something touched it within `grace`.
    pub(crate) fn delete_old_blob(&self, digest: &Digest, grace: Duration) -> io::Result<bool> {
        let _gate = self
            .gate
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let path = self.blob_path(digest);
        if age(&fs::metadata(&path)?) < grace {
            return Ok(false);
        }
        fs::remove_file(path)?;
        Ok(true)
    }

    /// All blobs, for garbage collection.
    pub(crate) fn blobs(&self) -> io::Result<Vec<Digest>> {
        let mut all = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = self.dir.join("blobs").join(algorithm.as_str());
            for entry in fs::read_dir(dir)? {
                let name = entry?.file_name();
                let text = format!("{}:{}", algorithm.as_str(), name.to_string_lossy());
                all.extend(text.parse::<Digest>().ok());
            }
        }
        Ok(all)
    }

    /// Reads a small blob (manifest, config) whole; `None` when it is not here.
    pub(crate) fn read_blob(
        &self,
        digest: &Digest,
        max: u64,
    ) -> Result<Option<Vec<u8>>, ImageError> {
        let path = self.blob_path(digest);
        let size = match fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(ImageError::storage(format!("read {}", path.display()), e)),
        };
        if size > max {
            return Err(ImageError::TooLarge {
                what: format!("The document {digest}"),
                found: format!("{size} bytes"),
                limit: format!("{max} bytes"),
            });
        }
        let bytes = fs::read(&path).doing("read", &path)?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        if hasher.finish() != *digest {
            return Err(ImageError::corrupt(digest, "the file on disk was changed"));
        }
        Ok(Some(bytes))
    }

    /// A writer for content whose digest is `algorithm`'s.
    pub(crate) fn blob_writer(&self, algorithm: Algorithm) -> Result<BlobWriter, ImageError> {
        let path = self.tmp_path();
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)
            .doing("create", &path)?;
        Ok(BlobWriter {
            file,
            path,
            hasher: Hasher::new(algorithm),
            len: 0,
            keep: false,
        })
    }

    /// Stores small content under a digest, which must be its own.
    pub(crate) fn put_bytes_as(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        if self.touch(digest) {
            return Ok(());
        }
        let mut writer = self.blob_writer(digest.algorithm())?;
        writer
            .write(bytes)
            .map_err(|e| ImageError::storage("write a blob", e))?;
        self.commit(writer, digest)
    }

    /// Gives the written content its name, if it is what `expected` says.
    pub(crate) fn commit(
        &self,
        mut writer: BlobWriter,
        expected: &Digest,
    ) -> Result<(), ImageError> {
        let actual = writer
            .digest(expected.algorithm())
            .doing("read", &writer.path)?;
        if actual != *expected {
            return Err(ImageError::corrupt(
                expected,
                format!("its content has digest {actual}"),
            ));
        }
        writer.file.sync_all().doing("write", &writer.path)?;
        let target = self.blob_path(expected);
        {
            let _gate = self
                .gate
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            fs::rename(&writer.path, &target).doing("create", &target)?;
            // The age of a long upload must not count against its blob.
            let _ = writer.file.set_modified(now());
        }
        writer.keep = true;
        sync_parent(&target).doing("create", &target)
    }

    // === repositories ===

    pub(crate) fn repo_dir(&self, repo: &str) -> PathBuf {
        self.dir.join("repos").join(repo)
    }

    fn entry(&self, repo: &str, book: &str, digest: &Digest) -> PathBuf {
        self.repo_dir(repo)
            .join(book)
            .join(digest.algorithm().as_str())
            .join(digest.hex())
    }

    /// Lets the repository serve a blob; false when the blob is not here.
    pub(crate) fn link_blob(&self, repo: &str, digest: &Digest) -> Result<bool, ImageError> {
        if !self.touch(digest) {
            return Ok(false);
        }
        let path = self.entry(repo, "_blobs", digest);
        if path.exists() {
            return Ok(true);
        }
        make_parent(&path).doing("create", &path)?;
        File::create(&path).doing("create", &path)?;
        Ok(true)
    }

    /// The blob's length, if the repository may serve it.
    pub(crate) fn linked_size(&self, repo: &str, digest: &Digest) -> Option<u64> {
        self.entry(repo, "_blobs", digest)
            .exists()
            .then(|| self.blob_size(digest))
            .flatten()
    }

    /// Takes the blob from the repository; false when it did not have it.
    pub(crate) fn unlink_blob(&self, repo: &str, digest: &Digest) -> Result<bool, ImageError> {
        remove_file(&self.entry(repo, "_blobs", digest))
    }

    /// Books a manifest with its media type; the content is stored already.
    pub(crate) fn link_manifest(
        &self,
        repo: &str,
        digest: &Digest,
        media_type: &str,
    ) -> Result<(), ImageError> {
        let path = self.entry(repo, "_manifests", digest);
        self.write_atomically(&path, media_type.as_bytes())
    }

    /// The media type the manifest was pushed with, if the repository has it.
    pub(crate) fn manifest_type(&self, repo: &str, digest: &Digest) -> Option<String> {
        fs::read_to_string(self.entry(repo, "_manifests", digest)).ok()
    }

    /// Takes a manifest and the tags on it from the repository; false when it did not have it.
    pub(crate) fn unlink_manifest(&self, repo: &str, digest: &Digest) -> Result<bool, ImageError> {
        for tag in self.tags(repo)? {
            if self.tag(repo, &tag).as_ref() == Some(digest) {
                self.delete_tag(repo, &tag)?;
            }
        }
        remove_file(&self.entry(repo, "_manifests", digest))
    }

    pub(crate) fn manifests(&self, repo: &str) -> Result<Vec<Digest>, ImageError> {
        let mut all = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = self
                .repo_dir(repo)
                .join("_manifests")
                .join(algorithm.as_str());
            for name in names(&dir)? {
                all.extend(
                    format!("{}:{name}", algorithm.as_str())
                        .parse::<Digest>()
                        .ok(),
                );
            }
        }
        Ok(all)
    }

    pub(crate) fn manifest_age(&self, repo: &str, digest: &Digest) -> Option<Duration> {
        fs::metadata(self.entry(repo, "_manifests", digest))
            .ok()
            .map(|m| age(&m))
    }

    pub(crate) fn set_tag(&self, repo: &str, tag: &str, digest: &Digest) -> Result<(), ImageError> {
        let path = self.repo_dir(repo).join("_tags").join(tag);
        self.write_atomically(&path, digest.to_string().as_bytes())
    }

    pub(crate) fn tag(&self, repo: &str, tag: &str) -> Option<Digest> {
        fs::read_to_string(self.repo_dir(repo).join("_tags").join(tag))
            .ok()?
            .parse()
            .ok()
    }

    pub(crate) fn delete_tag(&self, repo: &str, tag: &str) -> Result<bool, ImageError> {
        remove_file(&self.repo_dir(repo).join("_tags").join(tag))
    }

    /// The repository's tags in lexical order.
    pub(crate) fn tags(&self, repo: &str) -> Result<Vec<String>, ImageError> {
        let mut tags = names(&self.repo_dir(repo).join("_tags"))?;
        tags.sort_unstable();
        Ok(tags)
    }

    /// Whether anything was ever pushed there.
    pub(crate) fn repo_exists(&self, repo: &str) -> bool {
        let dir = self.repo_dir(repo);
        ["_tags", "_manifests", "_blobs"]
            .iter()
            .any(|book| dir.join(book).exists())
    }

    /// All repositories that hold a manifest, in lexical order.
    pub(crate) fn repos(&self) -> Result<Vec<String>, ImageError> {
        let mut found = Vec::new();
        let mut open = vec![String::new()];
        while let Some(at) = open.pop() {
            for name in names(&self.repo_dir(&at))? {
                let path = if at.is_empty() {
                    name.clone()
                } else {
                    format!("{at}/{name}")
                };
                if name == "_manifests" {
                    found.push(at.clone());
                } else if !name.starts_with('_') {
                    open.push(path);
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Every blob link of a repository with its age, for garbage collection.
    pub(crate) fn blob_links(&self, repo: &str) -> Result<Vec<(Digest, Duration)>, ImageError> {
        let mut all = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = self.repo_dir(repo).join("_blobs").join(algorithm.as_str());
            for name in names(&dir)? {
                let Ok(digest) = format!("{}:{name}", algorithm.as_str()).parse::<Digest>() else {
                    continue;
                };
                let age = fs::metadata(dir.join(&name))
                    .map(|m| age(&m))
                    .unwrap_or_default();
                all.push((digest, age));
            }
        }
        Ok(all)
    }

    fn referrers_dir(&self, repo: &str, subject: &Digest) -> PathBuf {
        self.entry(repo, "_referrers", subject)
    }

    pub(crate) fn add_referrer(
        &self,
        repo: &str,
        subject: &Digest,
        by: &Digest,
    ) -> Result<(), ImageError> {
        let name = format!("{}-{}", by.algorithm().as_str(), by.hex());
        let path = self.referrers_dir(repo, subject).join(name);
        make_parent(&path).doing("create", &path)?;
        File::create(&path).doing("create", &path)?;
        Ok(())
    }

    pub(crate) fn remove_referrer(
        &self,
        repo: &str,
        subject: &Digest,
        by: &Digest,
    ) -> Result<(), ImageError> {
        let name = format!("{}-{}", by.algorithm().as_str(), by.hex());
        remove_file(&self.referrers_dir(repo, subject).join(name)).map(|_| ())
    }

    pub(crate) fn referrers(
        &self,
        repo: &str,
        subject: &Digest,
    ) -> Result<Vec<Digest>, ImageError> {
        let mut all: Vec<Digest> = names(&self.referrers_dir(repo, subject))?
            .iter()
            .filter_map(|name| name.replacen('-', ":", 1).parse().ok())
            .collect();
        all.sort_unstable();
        Ok(all)
    }

    fn write_atomically(&self, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
        let write = || -> io::Result<()> {
            make_parent(path)?;
            let tmp = self.tmp_path();
            let mut file = OpenOptions::new().create_new(true).write(true).open(&tmp)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&tmp, path)?;
            sync_parent(path)
        };
        write().doing("write", path)
    }
}

/// Content on its way into the store; the file goes away unless it is committed.
pub(crate) struct BlobWriter {
    file: File,
    path: PathBuf,
    hasher: Hasher,
    len: u64,
    keep: bool,
}

impl BlobWriter {
    /// Takes up a file that was written before, at its end.
    pub(crate) fn resume(path: PathBuf) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let len = hash_into(&mut file, &mut hasher)?;
        Ok(Self {
            file,
            path,
            hasher,
            len,
            keep: true,
        })
    }

    /// Starts a file that stays when the process ends.
    pub(crate) fn persistent(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)?;
        Ok(Self {
            file,
            path,
            hasher: Hasher::new(Algorithm::Sha256),
            len: 0,
            keep: true,
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Writes all of `source` behind what is there.
    pub(crate) fn copy_from(&mut self, source: &mut File) -> io::Result<()> {
        use std::io::Read;
        let mut buffer = vec![0_u8; 256 * 1024];
        loop {
            match source.read(&mut buffer)? {
                0 => return Ok(()),
                got => self.write(&buffer[..got])?,
            }
        }
    }

    /// Makes a lasting file a temporary one at `path`.
    pub(crate) fn move_to(&mut self, path: PathBuf) -> io::Result<()> {
        fs::rename(&self.path, &path)?;
        self.path = path;
        self.keep = false;
        Ok(())
    }

    /// Bytes written so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    fn digest(&mut self, algorithm: Algorithm) -> io::Result<Digest> {
        if self.hasher.algorithm() != algorithm {
            let mut hasher = Hasher::new(algorithm);
            hash_into(&mut self.file, &mut hasher)?;
            self.hasher = hasher;
        }
        Ok(self.hasher.clone().finish())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn hash_into(file: &mut File, hasher: &mut Hasher) -> io::Result<u64> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0_u8; 256 * 1024];
    let mut len = 0;
    loop {
        let got = file.read(&mut buffer)?;
        if got == 0 {
            return Ok(len);
        }
        hasher.update(&buffer[..got]);
        len += got as u64;
    }
}

pub(crate) fn age(meta: &fs::Metadata) -> Duration {
    meta.modified()
        .ok()
        .and_then(|t| now().duration_since(t).ok())
        .unwrap_or_default()
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Makes a new name durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn remove_file(path: &Path) -> Result<bool, ImageError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(ImageError::storage(format!("delete {}", path.display()), e)),
    }
}

fn names(dir: &Path) -> Result<Vec<String>, ImageError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(ImageError::storage(format!("read {}", dir.display()), e)),
    };
    entries
        .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()
        .doing("read", dir)
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| ImageError::storage("finish background work", e))
}
