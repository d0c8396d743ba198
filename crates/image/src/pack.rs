//! An image from a folder, without Docker: `lauf image pack DIR`.
//!
//! The same folder and options give the same bytes: entries are sorted, times fixed, owners set, and
//! the compressor is deterministic. Hard links stay links, extended attributes are kept.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::bundle::{BaseImage, Bundle, BundleBlob, BundleImage};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{ImageError, IoContext};
use crate::manifest::{ConfigFile, Descriptor, Manifest, Platform, RootFs, media};
use crate::tape::{Entry, Kind, TarWriter};

/// How the layer is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Understood by every tool.
    #[default]
    Gzip,
    /// Faster and smaller; needs tools from 2021 or later.
    Zstd,
    /// None: fastest where the image stays on one machine.
    None,
}

/// What the image says besides its files.
#[derive(Clone, Debug, Default)]
pub struct PackOptions {
    /// `ENTRYPOINT`; empty keeps the base image's.
    pub entrypoint: Vec<String>,
    /// `CMD`; empty keeps the base image's.
    pub cmd: Vec<String>,
    /// `ENV`, each `NAME=value`, over the base image's.
    pub env: Vec<String>,
    /// `USER`; `None` keeps the base image's.
    pub user: Option<String>,
    /// `WORKDIR`; `None` keeps the base image's.
    pub working_dir: Option<String>,
    /// `EXPOSE`, each `8080` or `8080/tcp`.
    pub ports: Vec<String>,
    /// `LABEL`.
    pub labels: BTreeMap<String, String>,
    /// The image to build on.
    pub base: Option<BaseImage>,
    /// Where in the image the folder's content goes; `/` when empty.
    pub prefix: String,
    /// Owner and group of every entry; `None` keeps those on disk.
    pub keep_owners: bool,
    /// Keep the files' times instead of 1970, at the price of other bytes each time.
    pub keep_times: bool,
    /// The creation time written into the image, RFC 3339; 1970 when empty.
    pub created: String,
    /// How the layer is compressed.
    pub compression: Compression,
}

/// Makes an image of the content of `dir`. Blocks; the files lie in a temporary folder.
///
/// # Errors
/// `Storage` when a file cannot be read, `Unsupported` for options that make no sense.
pub fn pack_directory(dir: &Path, options: &PackOptions) -> Result<Bundle, ImageError> {
    if !dir.is_dir() {
        return Err(ImageError::unsupported(dir.display(), "it is not a folder"));
    }
    for pair in &options.env {
        if !pair.contains('=') || pair.starts_with('=') {
            return Err(ImageError::unsupported(
                dir.display(),
                format!("environment \"{pair}\" must be NAME=value"),
            ));
        }
    }
    let work = TempDir::new().map_err(|e| ImageError::storage("make a temporary folder", e))?;
    let layer_path = work.path().join("layer");
    let (diff_id, layer) = write_layer(dir, options, &layer_path)?;

    let base = options.base.as_ref();
    let mut config = base.map(|b| b.config.clone()).unwrap_or_default();
    let platform = Platform::host();
    config.architecture = platform.architecture;
    config.os = platform.os;
    dress(&mut config, options)?;
    config.rootfs = RootFs {
        kind: "layers".to_owned(),
        diff_ids: config
            .rootfs
            .diff_ids
            .into_iter()
            .chain([diff_id])
            .collect(),
    };
    let config_bytes = serde_json::to_vec(&config)
        .map_err(|e| ImageError::unsupported(dir.display(), e.to_string()))?;
    let config_blob = write_blob(work.path(), "config", &config_bytes)?;

    let mut layers: Vec<Descriptor> = base.map(|b| b.layers.clone()).unwrap_or_default();
    let media_type = match options.compression {
        Compression::Gzip => media::OCI_LAYER_GZIP,
        Compression::Zstd => media::OCI_LAYER_ZSTD,
        Compression::None => media::OCI_LAYER,
    };
    layers.push(Descriptor::new(
        media_type,
        layer.digest.clone(),
        layer.size,
    ));
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::OCI_MANIFEST.to_owned(),
        artifact_type: None,
        config: Descriptor::new(
            media::OCI_CONFIG,
            config_blob.digest.clone(),
            config_blob.size,
        ),
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest)
        .map_err(|e| ImageError::unsupported(dir.display(), e.to_string()))?;
    let digest = Digest::of(&bytes);
    Ok(Bundle {
        images: vec![BundleImage {
            names: Vec::new(),
            digest: digest.clone(),
            manifests: vec![(digest, media::OCI_MANIFEST.to_owned(), bytes)],
        }],
        blobs: vec![layer, config_blob],
        mounts: base
            .map(|b| {
                b.layers
                    .iter()
                    .map(|l| (b.repo.clone(), l.digest.clone(), l.size))
                    .collect()
            })
            .unwrap_or_default(),
        dir: Some(work),
    })
}

fn dress(config: &mut ConfigFile, options: &PackOptions) -> Result<(), ImageError> {
    let created = if options.created.is_empty() {
        "1970-01-01T00:00:00Z"
    } else {
        options.created.as_str()
    };
    config.created = Some(created.to_owned());
    config
        .history
        .push(serde_json::json!({ "created": created, "created_by": "lauf image pack" }));
    let run = &mut config.config;
    if !options.entrypoint.is_empty() {
        run.entrypoint.clone_from(&options.entrypoint);
        // The base image's arguments belonged to its entrypoint.
        run.cmd.clear();
    }
    if !options.cmd.is_empty() {
        run.cmd.clone_from(&options.cmd);
    }
    for pair in &options.env {
        let name = pair.split('=').next().unwrap_or_default();
        run.env.retain(|old| old.split('=').next() != Some(name));
        run.env.push(pair.clone());
    }
    if let Some(user) = &options.user {
        run.user.clone_from(user);
    }
    if let Some(dir) = &options.working_dir {
        if !dir.starts_with('/') {
            return Err(ImageError::unsupported(
                dir,
                "the working directory must begin with '/'",
            ));
        }
        run.working_dir.clone_from(dir);
    }
    for port in &options.ports {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let valid = number.parse::<u16>().is_ok_and(|n| n > 0)
            && matches!(protocol, "tcp" | "udp" | "sctp");
        if !valid {
            return Err(ImageError::unsupported(
                port,
                "a port is a number from 1 to 65535, optionally with /tcp or /udp",
            ));
        }
        run.exposed_ports
            .insert(format!("{number}/{protocol}"), serde_json::json!({}));
    }
    run.labels.extend(options.labels.clone());
    Ok(())
}

fn write_blob(dir: &Path, name: &str, bytes: &[u8]) -> Result<BundleBlob, ImageError> {
    let path = dir.join(name);
    fs::write(&path, bytes).doing("write", &path)?;
    Ok(BundleBlob {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        path,
    })
}

/// Counts and hashes what goes through.
struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    len: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::new(Algorithm::Sha256),
            len: 0,
        }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..done]);
        self.len += done as u64;
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

enum Compressor<W: Write> {
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
    None(W),
}

impl<W: Write> Compressor<W> {
    fn new(kind: Compression, inner: W) -> io::Result<Self> {
        Ok(match kind {
            // No name and no time in the header: the same bytes each time.
            Compression::Gzip => Self::Gzip(
                flate2::GzBuilder::new()
                    .mtime(0)
                    .write(inner, flate2::Compression::new(6)),
            ),
            Compression::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(inner, 3)?),
            Compression::None => Self::None(inner),
        })
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::None(inner) => Ok(inner),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(w) => w.write(bytes),
            Self::Zstd(w) => w.write(bytes),
            Self::None(w) => w.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(w) => w.flush(),
            Self::Zstd(w) => w.flush(),
            Self::None(w) => w.flush(),
        }
    }
}

fn write_layer(
    dir: &Path,
    options: &PackOptions,
    to: &Path,
) -> Result<(Digest, BundleBlob), ImageError> {
    let file = File::create(to).doing("create", to)?;
    let packed = Hashing::new(BufWriter::with_capacity(256 * 1024, file));
    let compressor = Compressor::new(options.compression, packed).doing("write", to)?;
    let plain = Hashing::new(BufWriter::with_capacity(64 * 1024, compressor));
    let mut tar = TarWriter::new(plain);
    let mut walk = Walk {
        options,
        links: HashMap::new(),
    };
    let mut prefix: Vec<u8> = options.prefix.trim_matches('/').as_bytes().to_vec();
    if prefix
        .split(|b| *b == b'/')
        .any(|part| part == b".." || part == b".")
    {
        return Err(ImageError::unsupported(
            &options.prefix,
            "the prefix may hold no '.' or '..'",
        ));
    }
    if !prefix.is_empty() {
        prefix.push(b'/');
    }
    walk.folder(dir, &prefix, &mut tar)?;
    let finish = || -> io::Result<(Digest, Hashing<BufWriter<File>>)> {
        let plain = tar.finish()?;
        let compressor = plain
            .inner
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        let mut packed = compressor.finish()?;
        packed.flush()?;
        Ok((plain.hasher.finish(), packed))
    };
    let (diff_id, packed) = finish().doing("write", to)?;
    let blob = BundleBlob {
        digest: packed.hasher.finish(),
        size: packed.len,
        path: to.to_owned(),
    };
    Ok((diff_id, blob))
}

struct Walk<'a> {
    options: &'a PackOptions,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Walk<'_> {
    fn folder<W: Write>(
        &mut self,
        dir: &Path,
        prefix: &[u8],
        tar: &mut TarWriter<W>,
    ) -> Result<(), ImageError> {
        // A stack instead of recursion: folders may be nested as deep as the disk allows.
        let mut open: Vec<(PathBuf, Vec<u8>)> = vec![(dir.to_owned(), prefix.to_vec())];
        while let Some((path, name)) = open.pop() {
            let meta = fs::symlink_metadata(&path).doing("read", &path)?;
            if !name.is_empty() {
                self.entry(&path, &name, &meta, tar)?;
            }
            if !meta.is_dir() {
                continue;
            }
            let mut below: Vec<_> = fs::read_dir(&path)
                .doing("read", &path)?
                .collect::<io::Result<Vec<_>>>()
                .doing("read", &path)?;
            below.sort_by_key(fs::DirEntry::file_name);
            for child in below.into_iter().rev() {
                let is_dir = child.file_type().doing("read", &child.path())?.is_dir();
                let mut child_name = name.clone();
                child_name.extend_from_slice(child.file_name().as_bytes());
                if is_dir {
                    child_name.push(b'/');
                }
                open.push((child.path(), child_name));
            }
        }
        Ok(())
    }

    fn entry<W: Write>(
        &mut self,
        path: &Path,
        name: &[u8],
        meta: &fs::Metadata,
        tar: &mut TarWriter<W>,
    ) -> Result<(), ImageError> {
        let own = |id: u32| {
            if self.options.keep_owners {
                u64::from(id)
            } else {
                0
            }
        };
        let mut entry = Entry {
            path: name.to_vec(),
            link: Vec::new(),
            kind: Kind::File,
            mode: meta.mode() & 0o7777,
            uid: own(meta.uid()),
            gid: own(meta.gid()),
            size: 0,
            mtime: if self.options.keep_times {
                meta.mtime()
            } else {
                0
            },
            xattrs: Vec::new(),
        };
        let kind = meta.file_type();
        if kind.is_symlink() {
            entry.kind = Kind::Symlink;
            entry.link = fs::read_link(path)
                .doing("read", path)?
                .as_os_str()
                .as_bytes()
                .to_vec();
        } else if kind.is_dir() {
            entry.kind = Kind::Directory;
        } else if kind.is_fifo() {
            entry.kind = Kind::Fifo;
        } else if !kind.is_file() {
            tracing::warn!(path = %path.display(), "devices and sockets are left out of the image");
            return Ok(());
        } else if meta.nlink() > 1
            && let Some(first) = self.links.get(&(meta.dev(), meta.ino()))
        {
            entry.kind = Kind::HardLink;
            entry.link.clone_from(first);
        } else {
            if meta.nlink() > 1 {
                self.links.insert((meta.dev(), meta.ino()), name.to_vec());
            }
            entry.size = meta.len();
        }
        if matches!(entry.kind, Kind::File | Kind::Directory) {
            entry.xattrs = xattrs(path);
        }
        if entry.kind == Kind::File {
            let mut file = File::open(path).doing("open", path)?;
            tar.append(&entry, &mut file).doing("pack", path)
        } else {
            tar.append(&entry, &mut io::empty()).doing("pack", path)
        }
    }
}

/// The attributes a layer may carry; a file system without any has none.
fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = vec![0_u8; 64 * 1024];
    let Ok(length) = rustix::fs::llistxattr(path, &mut list[..]) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for name in list[..length].split(|b| *b == 0) {
        let kept = name == b"security.capability" || name.starts_with(b"user.");
        if !kept {
            continue;
        }
        let mut value = vec![0_u8; 64 * 1024];
        if let Ok(length) = rustix::fs::lgetxattr(path, name, &mut value[..]) {
            value.truncate(length);
            found.push((name.to_vec(), value));
        }
    }
    found.sort_unstable();
    found
}
