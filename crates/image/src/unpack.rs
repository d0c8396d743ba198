//! Turning a layer's tar into a folder that overlayfs can use as a lower layer. This is a security
//! boundary: the tar comes from strangers and is written with root's rights.
//!
//! Laws:
//! - Nothing is read or written outside the target folder. Every lookup goes through `openat2` from
//!   the folder's descriptor with `RESOLVE_BENEATH` or `RESOLVE_IN_ROOT`; the last part of a name is
//!   only used with calls that do not follow links.
//! - Bytes, entries, name lengths and depth are bounded while streaming, never after.
//! - Owners are shifted by the user namespace's base, so no file on disk belongs to a host user and a
//!   setuid file gives nobody on the host anything.
//! - Whiteouts (layer.md, "Whiteouts") become what an overlay mounted by real root understands: a
//!   character device 0:0, or `trusted.overlay.opaque=y` on a folder. Extended attributes of the tar
//!   are kept only as `user.*` (without overlay's own) and `security.capability`.
//! - Device nodes are left out: instances get a `/dev` of their own.
//!
//! Folders that an entry needs and the layer does not hold are made with mode 0755 and owner root,
//! as Docker's overlay driver does.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::ImageError;
use crate::tape::{Entry, Kind, TarError, TarReader};

const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;
/// The deepest folder nesting accepted; also bounds the descriptors a recursive removal holds.
const MAX_DEPTH: usize = 256;
/// The most a compressed byte may become, once past a size where ratios mean something. gzip cannot
/// pass 1032; zstd can, and an image of zeros is no image.
const MAX_RATIO: u64 = 5_000;
const RATIO_FROM: u64 = 256 << 20;
const OPAQUE: &str = "trusted.overlay.opaque";
/// The user namespace of an instance maps this many ids; others become `nobody` (65534).
const ID_COUNT: u64 = 65_536;
const NOBODY: u32 = 65_534;

/// What bounds one layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerLimits {
    pub(crate) max_bytes: u64,
    pub(crate) max_entries: u64,
    /// The compressed blob's size, for the ratio.
    pub(crate) compressed: u64,
}

/// What unpacking found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// The digest of the uncompressed tar.
    pub(crate) diff_id: Digest,
    /// Bytes of file content written.
    pub(crate) bytes: u64,
    /// Whether the layer hides everything below it.
    pub(crate) opaque_root: bool,
    /// Device nodes that were left out.
    pub(crate) skipped_devices: u64,
}

/// Unpacks the (possibly compressed) `blob` into the empty folder `root`. `layer` is for messages.
pub(crate) fn unpack(
    layer: &str,
    blob: impl Read,
    root: &OwnedFd,
    uid_base: u32,
    limits: LayerLimits,
) -> Result<Unpacked, ImageError> {
    let plain = decompress(layer, BufReader::with_capacity(128 * 1024, blob))?;
    let metered = Metered {
        inner: plain,
        hasher: Hasher::new(Algorithm::Sha256),
        seen: 0,
        limits,
        passed: None,
    };
    let mut tar = TarReader::new(metered);
    let mut unpacker = Unpacker {
        layer,
        root,
        uid_base,
        entries: 0,
        bytes: 0,
        parent: None,
        dir_times: Vec::new(),
        opaque_root: false,
        skipped_devices: 0,
    };
    unpacker.own_root()?;
    let outcome = unpacker.run(&mut tar, limits.max_entries);
    let mut metered = tar.into_inner();
    // A passed limit surfaces as an I/O error somewhere deep; say what it really was.
    let too_large = |metered: &mut Metered<_>| metered.passed.take().map(|p| p.error(layer));
    if let Err(error) = outcome {
        return Err(too_large(&mut metered).unwrap_or(error));
    }
    if let Err(error) = io::copy(&mut metered, &mut io::sink()) {
        return Err(too_large(&mut metered).unwrap_or_else(|| unreadable(layer, &error)));
    }
    unpacker.finish_times()?;
    Ok(Unpacked {
        diff_id: metered.hasher.finish(),
        bytes: unpacker.bytes,
        opaque_root: unpacker.opaque_root,
        skipped_devices: unpacker.skipped_devices,
    })
}

fn unreadable(layer: &str, error: &dyn std::fmt::Display) -> ImageError {
    ImageError::unsupported(
        format!("layer {layer}"),
        format!("its content cannot be read: {error}. Push or pull the image again."),
    )
}

/// Tells gzip, zstd and plain tar apart by their first bytes, as every engine does: media types lie.
pub(crate) fn decompress<'a>(
    layer: &str,
    mut blob: impl BufRead + 'a,
) -> Result<Box<dyn Read + 'a>, ImageError> {
    let head = blob.fill_buf().map_err(|e| unreadable(layer, &e))?;
    if head.starts_with(&[0x1f, 0x8b]) {
        let reader = flate2::bufread::MultiGzDecoder::new(blob);
        return Ok(Box::new(BufReader::with_capacity(128 * 1024, reader)));
    }
    // A zstd frame, or a skippable one before it.
    let skippable = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18];
    if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || skippable {
        let reader =
            zstd::stream::read::Decoder::with_buffer(blob).map_err(|e| unreadable(layer, &e))?;
        return Ok(Box::new(BufReader::with_capacity(128 * 1024, reader)));
    }
    Ok(Box::new(blob))
}

enum Passed {
    Size(u64),
    Ratio(u64),
}

impl Passed {
    fn error(&self, layer: &str) -> ImageError {
        match self {
            Self::Size(limit) => ImageError::TooLarge {
                what: format!("Layer {layer}, unpacked,"),
                found: format!("more than {limit} bytes"),
                limit: format!("{limit} bytes"),
            },
            Self::Ratio(compressed) => ImageError::TooLarge {
                what: format!("Layer {layer}, unpacked,"),
                found: format!("more than {MAX_RATIO} times its {compressed} compressed bytes"),
                limit: format!("{MAX_RATIO} times"),
            },
        }
    }
}

/// Hashes and counts the uncompressed stream, and ends it at the limits.
struct Metered<R> {
    inner: R,
    hasher: Hasher,
    seen: u64,
    limits: LayerLimits,
    passed: Option<Passed>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..got]);
        self.seen += got as u64;
        if self.seen > self.limits.max_bytes {
            self.passed = Some(Passed::Size(self.limits.max_bytes));
        } else if self.seen > RATIO_FROM && self.seen / MAX_RATIO > self.limits.compressed {
            self.passed = Some(Passed::Ratio(self.limits.compressed));
        }
        if self.passed.is_some() {
            return Err(io::Error::other("limit passed"));
        }
        Ok(got)
    }
}

struct Unpacker<'a> {
    layer: &'a str,
    root: &'a OwnedFd,
    uid_base: u32,
    entries: u64,
    bytes: u64,
    /// The folder used last: entries of a folder stand together.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Folders get their times last, when nothing is put into them any more.
    dir_times: Vec<(Vec<u8>, i64)>,
    opaque_root: bool,
    skipped_devices: u64,
}

fn open_dir(at: impl AsFd, path: &[u8], resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    retry(|| {
        rustix::fs::openat2(
            at.as_fd(),
            path,
            flags,
            Mode::empty(),
            resolve | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
        )
    })
}

/// `openat2` answers EAGAIN when a rename races with `..`; nobody renames here, but the call may.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 0..64 {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    call()
}

const STRICT: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

impl Unpacker<'_> {
    fn run(&mut self, tar: &mut TarReader<impl Read>, max_entries: u64) -> Result<(), ImageError> {
        loop {
            let entry = match tar.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(()),
                Err(TarError::Io(e)) => return Err(unreadable(self.layer, &e)),
                Err(e) => return Err(unreadable(self.layer, &e)),
            };
            self.entries += 1;
            if self.entries > max_entries {
                return Err(ImageError::TooLarge {
                    what: format!("Layer {}", self.layer),
                    found: format!("more than {max_entries} files"),
                    limit: format!("{max_entries} files"),
                });
            }
            self.apply(&entry, tar)?;
        }
    }

    fn apply(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<(), ImageError> {
        let parts = self.parts(&entry.path, &entry.path)?;
        let Some((name, folders)) = parts.split_last() else {
            if entry.kind != Kind::Directory {
                return Err(self.refuse(&entry.path, "only a folder can be the image's root"));
            }
            let root = open_dir(self.root, b".", STRICT).map_err(|e| self.io(entry, e))?;
            return self.dress_dir(&root, entry, b".");
        };
        let folder = self.folder(folders, entry)?;
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(&folder, folders, hidden, entry);
        }
        match entry.kind {
            Kind::Directory => self.directory(&folder, name, entry, &parts),
            Kind::File => {
                self.clear(&folder, name, entry)?;
                self.file(&folder, name, entry, data)
            }
            Kind::Symlink => self.symlink(&folder, name, entry),
            Kind::HardLink => self.hard_link(&folder, name, entry),
            Kind::Fifo => {
                self.clear(&folder, name, entry)?;
                rustix::fs::mknodat(&*folder, *name, FileType::Fifo, Mode::RUSR, 0)
                    .and_then(|()| self.own(&folder, name, entry))
                    .and_then(|()| {
                        rustix::fs::chmodat(
                            &*folder,
                            *name,
                            Mode::from_raw_mode(entry.mode & 0o777),
                            AtFlags::empty(),
                        )
                    })
                    .map_err(|e| self.io(entry, e))
            }
            Kind::CharDevice | Kind::BlockDevice => {
                self.skipped_devices += 1;
                Ok(())
            }
        }
    }

    // === names ===

    /// The parts of a name, none of them `..`; leading slashes and `.` say nothing.
    fn parts<'n>(&self, name: &'n [u8], entry: &[u8]) -> Result<Vec<&'n [u8]>, ImageError> {
        if name.len() > MAX_PATH {
            return Err(self.refuse(entry, "its name is longer than 4096 bytes"));
        }
        if name.contains(&0) {
            return Err(self.refuse(entry, "its name holds a NUL byte"));
        }
        let mut parts = Vec::new();
        for part in name.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(self.refuse(entry, "its name holds '..'")),
                _ if part.len() > MAX_NAME => {
                    return Err(self.refuse(entry, "a part of its name is longer than 255 bytes"));
                }
                _ => parts.push(part),
            }
        }
        if parts.len() > MAX_DEPTH {
            return Err(self.refuse(entry, "it lies more than 256 folders deep"));
        }
        Ok(parts)
    }

    /// The folder of that name, made where it is missing.
    fn folder(&mut self, parts: &[&[u8]], entry: &Entry) -> Result<Rc<OwnedFd>, ImageError> {
        let path = if parts.is_empty() {
            b".".to_vec()
        } else {
            parts.join(&b'/')
        };
        if let Some((cached, fd)) = &self.parent
            && *cached == path
        {
            return Ok(fd.clone());
        }
        let fd = match open_dir(self.root, &path, STRICT) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => self.walk(parts, entry)?,
            Err(e) => return Err(self.io(entry, e)),
        };
        let fd = Rc::new(fd);
        self.parent = Some((path, fd.clone()));
        Ok(fd)
    }

    /// The slow way: part by part, making folders and following links inside the root.
    fn walk(&mut self, parts: &[&[u8]], entry: &Entry) -> Result<OwnedFd, ImageError> {
        let mut at = open_dir(self.root, b".", STRICT).map_err(|e| self.io(entry, e))?;
        for (i, part) in parts.iter().enumerate() {
            let next = match open_dir(&at, part, STRICT) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => self.implied_dir(&at, part, entry)?,
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    let stat = rustix::fs::statat(&at, *part, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|e| self.io(entry, e))?;
                    if is_whiteout(&stat) {
                        rustix::fs::unlinkat(&at, *part, AtFlags::empty())
                            .map_err(|e| self.io(entry, e))?;
                        let fd = self.implied_dir(&at, part, entry)?;
                        set_opaque(&fd).map_err(|e| self.io(entry, e))?;
                        fd
                    } else if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                        // As in a chroot: the link is followed, but never out of the root.
                        let mut through = parts[..=i].join(&b'/');
                        through.push(b'/');
                        let fd = self.open_in_root(&through).map_err(|_| {
                            self.refuse(
                                &entry.path,
                                "its folder is a symbolic link that leads to no folder of this layer",
                            )
                        })?;
                        // Links would otherwise stack folders deeper than names can be.
                        if depth_of(&fd).is_none_or(|depth| depth > MAX_DEPTH) {
                            return Err(self.refuse(&entry.path, "it lies too many folders deep"));
                        }
                        fd
                    } else {
                        return Err(self.refuse(&entry.path, "its folder is not a folder"));
                    }
                }
                Err(e) => return Err(self.io(entry, e)),
            };
            at = next;
        }
        Ok(at)
    }

    fn open_in_root(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        retry(|| rustix::fs::openat2(self.root, path, flags, Mode::empty(), resolve))
    }

    fn implied_dir(&self, at: &OwnedFd, part: &[u8], entry: &Entry) -> Result<OwnedFd, ImageError> {
        let make = || -> Result<OwnedFd, Errno> {
            rustix::fs::mkdirat(at, part, Mode::from_raw_mode(0o755))?;
            let fd = open_dir(at, part, STRICT)?;
            rustix::fs::fchown(&fd, Some(self.uid(0)), Some(self.gid(0)))?;
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))?;
            Ok(fd)
        };
        make().map_err(|e| self.io(entry, e))
    }

    // === the kinds of entries ===

    fn directory(
        &mut self,
        folder: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        parts: &[&[u8]],
    ) -> Result<(), ImageError> {
        let mut opaque = false;
        match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            Ok(stat) => {
                opaque = is_whiteout(&stat);
                self.clear(folder, name, entry)?;
                rustix::fs::mkdirat(folder, name, Mode::RWXU).map_err(|e| self.io(entry, e))?;
            }
            Err(Errno::NOENT) => {
                rustix::fs::mkdirat(folder, name, Mode::RWXU).map_err(|e| self.io(entry, e))?;
            }
            Err(e) => return Err(self.io(entry, e)),
        }
        let fd = open_dir(folder, name, STRICT).map_err(|e| self.io(entry, e))?;
        if opaque {
            set_opaque(&fd).map_err(|e| self.io(entry, e))?;
        }
        self.dress_dir(&fd, entry, &parts.join(&b'/'))
    }

    fn dress_dir(&mut self, fd: &OwnedFd, entry: &Entry, path: &[u8]) -> Result<(), ImageError> {
        self.dress(fd, entry).map_err(|e| self.io(entry, e))?;
        self.dir_times.push((path.to_vec(), entry.mtime));
        Ok(())
    }

    fn file(
        &mut self,
        folder: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        data: &mut dyn Read,
    ) -> Result<(), ImageError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| self.io(entry, e))?;
        let mut file = std::fs::File::from(fd);
        let mut left = entry.size;
        let mut buffer = vec![0_u8; usize::try_from(left.min(128 * 1024)).unwrap_or(1)];
        while left > 0 {
            let got = data
                .read(&mut buffer)
                .map_err(|e| unreadable(self.layer, &e))?;
            io::Write::write_all(&mut file, &buffer[..got])
                .map_err(|e| ImageError::storage(self.writing(entry), e))?;
            left -= got as u64;
        }
        self.bytes += entry.size;
        self.dress(&file, entry)
            .and_then(|()| rustix::fs::futimens(&file, &times(entry.mtime)))
            .map_err(|e| self.io(entry, e))
    }

    fn symlink(&mut self, folder: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), ImageError> {
        if entry.link.is_empty() || entry.link.len() >= MAX_PATH || entry.link.contains(&0) {
            return Err(self.refuse(
                &entry.path,
                "its link target is empty, too long or holds NUL",
            ));
        }
        self.clear(folder, name, entry)?;
        // The target is only text here: whoever follows it later does so inside the instance's root.
        rustix::fs::symlinkat(entry.link.as_slice(), folder, name)
            .and_then(|()| self.own(folder, name, entry))
            .and_then(|()| {
                let times = times(entry.mtime);
                rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            })
            .map_err(|e| self.io(entry, e))
    }

    fn hard_link(
        &mut self,
        folder: &OwnedFd,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), ImageError> {
        let parts = self.parts(&entry.link, &entry.path)?;
        let Some((target, folders)) = parts.split_last() else {
            return Err(self.refuse(&entry.path, "it is a hard link to nothing"));
        };
        let mut path = folders.join(&b'/');
        path.extend_from_slice(b"/.");
        let missing = "it is a hard link to a file that this layer does not hold";
        let from = self
            .open_in_root(&path)
            .map_err(|_| self.refuse(&entry.path, missing))?;
        let stat = rustix::fs::statat(&from, *target, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|_| self.refuse(&entry.path, missing))?;
        if is_whiteout(&stat) || FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(self.refuse(
                &entry.path,
                "it is a hard link to something that is no file",
            ));
        }
        match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if there.st_ino == stat.st_ino && there.st_dev == stat.st_dev => {
                return Ok(());
            }
            _ => self.clear(folder, name, entry)?,
        }
        rustix::fs::linkat(&from, *target, folder, name, AtFlags::empty())
            .map_err(|_| self.refuse(&entry.path, missing))
    }

    fn whiteout(
        &mut self,
        folder: &OwnedFd,
        folders: &[&[u8]],
        hidden: &[u8],
        entry: &Entry,
    ) -> Result<(), ImageError> {
        if hidden == b".wh..opq" {
            if folders.is_empty() {
                // overlayfs does not look at the mark on a layer's root: the mount leaves out what is
                // below instead.
                self.opaque_root = true;
                return Ok(());
            }
            return set_opaque(folder).map_err(|e| self.io(entry, e));
        }
        // Other names of this form are aufs bookkeeping.
        if hidden.starts_with(b".wh.") {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(self.refuse(&entry.path, "it hides no name"));
        }
        match rustix::fs::statat(folder, hidden, AtFlags::SYMLINK_NOFOLLOW) {
            // A whiteout speaks of the layers below; what this layer holds stays.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let fd = open_dir(folder, hidden, STRICT).map_err(|e| self.io(entry, e))?;
                set_opaque(&fd).map_err(|e| self.io(entry, e))
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                rustix::fs::mknodat(folder, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(|e| self.io(entry, e))
            }
            Err(e) => Err(self.io(entry, e)),
        }
    }

    // === owners, modes, attributes, times ===

    fn uid(&self, id: u64) -> Uid {
        Uid::from_raw(self.shift(id))
    }

    fn gid(&self, id: u64) -> Gid {
        Gid::from_raw(self.shift(id))
    }

    fn shift(&self, id: u64) -> u32 {
        let id = if id < ID_COUNT {
            u32::try_from(id).unwrap_or(NOBODY)
        } else {
            NOBODY
        };
        self.uid_base + id
    }

    fn own_root(&self) -> Result<(), ImageError> {
        rustix::fs::fchown(self.root, Some(self.uid(0)), Some(self.gid(0)))
            .and_then(|()| rustix::fs::fchmod(self.root, Mode::from_raw_mode(0o755)))
            .map_err(|e| {
                ImageError::storage("give a layer's folder to its owner (this needs root)", e)
            })
    }

    fn own(&self, folder: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Errno> {
        let (uid, gid) = (Some(self.uid(entry.uid)), Some(self.gid(entry.gid)));
        rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Owner first, because it clears setuid bits and capabilities.
    fn dress(&self, fd: impl AsFd, entry: &Entry) -> Result<(), Errno> {
        let fd = fd.as_fd();
        rustix::fs::fchown(fd, Some(self.uid(entry.uid)), Some(self.gid(entry.gid)))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode & 0o7777))?;
        for (name, value) in &entry.xattrs {
            let Ok(name) = std::str::from_utf8(name) else {
                continue;
            };
            let value = if name == "security.capability" {
                namespaced_capability(value, self.uid_base)
            } else if name.starts_with("user.") && !name.starts_with("user.overlay.") {
                value.clone()
            } else {
                continue;
            };
            match rustix::fs::fsetxattr(fd, name, &value, XattrFlags::empty()) {
                // A file system without attributes, or one whose limits are lower, loses them.
                Ok(())
                | Err(
                    Errno::OPNOTSUPP
                    | Errno::NOSPC
                    | Errno::RANGE
                    | Errno::TOOBIG
                    | Errno::INVAL
                    | Errno::PERM,
                ) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn finish_times(&self) -> Result<(), ImageError> {
        // Backwards: when a name came twice, the last word is set first and stays by being newest.
        let mut done = std::collections::HashSet::new();
        for (path, mtime) in self.dir_times.iter().rev() {
            if !done.insert(path.as_slice()) {
                continue;
            }
            // The folder may have been replaced by a later entry: then it has no time to set.
            if let Ok(fd) = open_dir(self.root, path, STRICT) {
                rustix::fs::futimens(&fd, &times(*mtime))
                    .map_err(|e| ImageError::storage("set a folder's time", e))?;
            }
        }
        Ok(())
    }

    // === what is there already ===

    /// Removes what stands at `name`, whatever it is.
    fn clear(&mut self, folder: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), ImageError> {
        match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
            Ok(()) => {
                // It may have been a link on the way to the folder used last.
                self.parent = None;
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {
                self.parent = None;
                remove_tree(folder.as_fd(), name).map_err(|e| self.io(entry, e))
            }
            Err(e) => Err(self.io(entry, e)),
        }
    }

    // === words ===

    fn writing(&self, entry: &Entry) -> String {
        format!(
            "write '{}' of layer {}",
            entry.path.escape_ascii(),
            self.layer
        )
    }

    fn io(&self, entry: &Entry, errno: Errno) -> ImageError {
        ImageError::storage(self.writing(entry), errno)
    }

    fn refuse(&self, path: &[u8], why: &str) -> ImageError {
        let shown = &path[..path.len().min(300)];
        ImageError::UnsafeEntry {
            layer: self.layer.to_owned(),
            path: shown.escape_ascii().to_string(),
            why: why.to_owned(),
        }
    }
}

/// How deep a folder lies in the host's tree.
fn depth_of(fd: &OwnedFd) -> Option<usize> {
    use std::os::fd::AsRawFd;
    let path =
        rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new()).ok()?;
    Some(path.as_bytes().iter().filter(|b| **b == b'/').count())
}

fn times(mtime: i64) -> Timestamps {
    let at = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: at,
        last_modification: at,
    }
}

pub(crate) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn set_opaque(fd: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::fsetxattr(fd, OPAQUE, b"y", XattrFlags::empty())
}

pub(crate) fn is_opaque(fd: &OwnedFd) -> bool {
    let mut value = [0_u8; 4];
    rustix::fs::fgetxattr(fd, OPAQUE, &mut value[..]).is_ok_and(|n| n == 1 && value[0] == b'y')
}

/// File capabilities count inside a user namespace only when they name its root (capabilities(7),
/// "Namespaced file capabilities"): version 2 becomes version 3.
fn namespaced_capability(value: &[u8], uid_base: u32) -> Vec<u8> {
    const VERSION_2: u32 = 0x0200_0000;
    const VERSION_3: u32 = 0x0300_0000;
    let Some(magic) = value.first_chunk::<4>().map(|b| u32::from_le_bytes(*b)) else {
        return value.to_vec();
    };
    if magic & 0xff00_0000 != VERSION_2 || value.len() != 20 || uid_base == 0 {
        return value.to_vec();
    }
    let mut out = Vec::with_capacity(24);
    out.extend_from_slice(&((magic & 0x00ff_ffff) | VERSION_3).to_le_bytes());
    out.extend_from_slice(&value[4..]);
    out.extend_from_slice(&uid_base.to_le_bytes());
    out
}

/// Removes a folder and all below it, following nothing. Depth is bounded by what was unpacked.
fn remove_tree(at: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e),
    }
    let fd = open_dir(at, name, STRICT)?;
    let mut names = Vec::new();
    for found in rustix::fs::Dir::read_from(&fd)? {
        let found = found?;
        let bytes = found.file_name().to_bytes();
        if bytes != b"." && bytes != b".." {
            names.push(bytes.to_vec());
        }
    }
    for below in names {
        remove_tree(fd.as_fd(), &below)?;
    }
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}
