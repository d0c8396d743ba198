//! Images from files: OCI layouts (a folder, or a tar of one) and `docker save` archives.
//!
//! A tar is read into numbered temporary files, so its names are never names on this disk.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::TempDir;

use crate::bundle::{Bundle, BundleBlob, BundleImage};
use crate::config::Limits;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{ImageError, IoContext};
use crate::manifest::{ConfigFile, Descriptor, Document, Index, Manifest, media};
use crate::tape::{Kind, TarReader};
use crate::unpack::decompress;

const MAX_ENTRIES: usize = 100_000;
const MAX_LINKS: usize = 8;
/// What to give instead of a file that is no image.
const ACCEPTED: &str = "give an OCI layout (a folder with an index.json, or a tar of one) or the \
    file that `docker save` writes, as they are or compressed with gzip or zstd";

/// Reads all images of an OCI layout (folder, `.tar`, `.tar.gz`, `.tar.zst`) or a `docker save` file.
/// Blocks.
///
/// # Errors
/// `Unsupported` when the file is neither, `Corrupt` when something it names is missing or not what
/// its digest says, `TooLarge` beyond `limits`.
pub fn import(path: &Path, limits: &Limits) -> Result<Bundle, ImageError> {
    let shown = path.display().to_string();
    let source = if path.is_dir() {
        Source::Folder(path.to_owned())
    } else {
        Source::unpack(path, limits)?
    };
    let mut reader = Reader {
        shown,
        source,
        limits,
        blobs: Vec::new(),
        seen: HashSet::new(),
    };
    let images = if let Some(index) = reader.source.find("index.json") {
        reader.oci(&index)?
    } else if let Some(manifest) = reader.source.find("manifest.json") {
        reader.docker(&manifest)?
    } else {
        let why = match &reader.source {
            Source::Folder(_) => format!(
                "the folder holds no index.json; {ACCEPTED}. An image of the folder's own files is \
                 made by `lauf image pack`"
            ),
            Source::Archive { .. } => format!(
                "it is a tar, but holds neither an index.json nor a manifest.json, so it may be a \
                 file system alone, such as `docker export` writes; {ACCEPTED}"
            ),
        };
        return Err(ImageError::unsupported(&reader.shown, why));
    };
    let dir = match reader.source {
        Source::Archive { dir, .. } => Some(dir),
        Source::Folder(_) => None,
    };
    Ok(Bundle {
        images,
        blobs: reader.blobs,
        mounts: Vec::new(),
        dir,
    })
}

enum Source {
    Folder(PathBuf),
    Archive {
        dir: TempDir,
        files: HashMap<String, PathBuf>,
        links: HashMap<String, String>,
    },
}

impl Source {
    fn unpack(path: &Path, limits: &Limits) -> Result<Self, ImageError> {
        let file = File::open(path).doing("open", path)?;
        let shown = path.display().to_string();
        let mut file = BufReader::with_capacity(256 * 1024, file);
        let known = known_form(file.fill_buf().doing("read", path)?);
        let plain = decompress(&shown, file)?;
        let dir = TempDir::new().map_err(|e| ImageError::storage("make a temporary folder", e))?;
        let (mut files, mut links) = (HashMap::new(), HashMap::new());
        // One byte more than allowed tells "too much" from "just enough".
        let mut tar = TarReader::new(plain.take(limits.max_image_unpacked.saturating_add(1)));
        let bad = |e: &dyn std::fmt::Display| {
            ImageError::unsupported(
                &shown,
                format!("it is a tar that is cut short or damaged: {e}"),
            )
        };
        let no_tar = || {
            let form = known.unwrap_or("no tar");
            ImageError::unsupported(&shown, format!("it is {form}; {ACCEPTED}"))
        };
        let mut first = true;
        loop {
            let entry = match tar.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) if first && known.is_some() => return Err(no_tar()),
                Ok(None) => break,
                Err(_) if first => return Err(no_tar()),
                Err(error) => return Err(bad(&error)),
            };
            first = false;
            if files.len() + links.len() >= MAX_ENTRIES {
                return Err(ImageError::TooLarge {
                    what: shown,
                    found: format!("more than {MAX_ENTRIES} files"),
                    limit: format!("{MAX_ENTRIES} files"),
                });
            }
            let Some(name) = clean(&entry.path) else {
                continue;
            };
            match entry.kind {
                Kind::File => {
                    let target = dir.path().join(files.len().to_string());
                    let mut out = File::create(&target).doing("create", &target)?;
                    io::copy(&mut tar, &mut out).map_err(|e| bad(&e))?;
                    files.insert(name, target);
                }
                // `docker save` links a layer that several images share.
                Kind::Symlink | Kind::HardLink => {
                    let folder = match (entry.kind, name.rsplit_once('/')) {
                        (Kind::Symlink, Some((folder, _))) => folder,
                        _ => "",
                    };
                    let mut target = folder.as_bytes().to_vec();
                    target.push(b'/');
                    target.extend_from_slice(&entry.link);
                    if let Some(target) = clean(&target) {
                        links.insert(name, target);
                    }
                }
                _ => {}
            }
        }
        if tar.into_inner().limit() == 0 {
            return Err(ImageError::TooLarge {
                what: shown,
                found: "more bytes".to_owned(),
                limit: format!("{} bytes", limits.max_image_unpacked),
            });
        }
        Ok(Self::Archive { dir, files, links })
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        match self {
            // Only names made by us reach this: fixed ones, and digests.
            Self::Folder(dir) => Some(dir.join(name)).filter(|path| path.is_file()),
            Self::Archive { files, links, .. } => {
                let mut name = name;
                for _ in 0..MAX_LINKS {
                    if let Some(path) = files.get(name) {
                        return Some(path.clone());
                    }
                    name = links.get(name)?;
                }
                None
            }
        }
    }
}

/// What a file that begins so is, when it is one of those that people give by mistake.
fn known_form(head: &[u8]) -> Option<&'static str> {
    const FORMS: [(&[u8], &str); 6] = [
        (b"\x7fELF", "a program"),
        (b"PK\x03\x04", "a zip file"),
        (b"BZh", "compressed with bzip2"),
        (b"\xfd7zXZ", "compressed with xz"),
        (b"{", "JSON"),
        (b"FROM ", "a Dockerfile"),
    ];
    if head.is_empty() {
        return Some("empty");
    }
    let form = FORMS.iter().find(|(magic, _)| head.starts_with(magic));
    form.map(|(_, form)| *form)
}

/// A name without `.`, with `..` resolved by text; `None` when it leads out or is not UTF-8.
fn clean(name: &[u8]) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in std::str::from_utf8(name).ok()?.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/")).filter(|name| !name.is_empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

struct Reader<'a> {
    shown: String,
    source: Source,
    limits: &'a Limits,
    blobs: Vec<BundleBlob>,
    seen: HashSet<Digest>,
}

impl Reader<'_> {
    fn small(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        let max = self.limits.max_manifest;
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(max + 1).read_to_end(&mut bytes))
            .doing("read", path)?;
        if bytes.len() as u64 > max {
            return Err(ImageError::TooLarge {
                what: format!("A document in {}", self.shown),
                found: format!("more than {max} bytes"),
                limit: format!("{max} bytes"),
            });
        }
        Ok(bytes)
    }

    fn blob_path(&self, digest: &Digest) -> Result<PathBuf, ImageError> {
        let name = format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex());
        self.source.find(&name).ok_or_else(|| {
            ImageError::corrupt(
                digest,
                format!("{} names it, but does not hold it", self.shown),
            )
        })
    }

    fn oci(&mut self, index: &Path) -> Result<Vec<BundleImage>, ImageError> {
        let bytes = self.small(index)?;
        let index: Index = serde_json::from_slice(&bytes).map_err(|e| {
            ImageError::unsupported(&self.shown, format!("its index.json is not valid: {e}"))
        })?;
        let mut images = Vec::new();
        for entry in &index.manifests {
            let mut manifests = Vec::new();
            self.document(entry, &mut manifests, 0)?;
            // A bare `org.opencontainers.image.ref.name` is a tag, not a name.
            let full = entry.annotations.get("io.containerd.image.name");
            let short = entry
                .annotations
                .get("org.opencontainers.image.ref.name")
                .filter(|name| name.contains([':', '/']));
            images.push(BundleImage {
                names: full.or(short).cloned().into_iter().collect(),
                digest: entry.digest.clone(),
                manifests,
            });
        }
        Ok(images)
    }

    fn document(
        &mut self,
        entry: &Descriptor,
        into: &mut Vec<(Digest, String, Vec<u8>)>,
        depth: usize,
    ) -> Result<(), ImageError> {
        if depth > 3 {
            return Err(ImageError::unsupported(
                &self.shown,
                "its indexes are nested too deep",
            ));
        }
        let bytes = self.small(&self.blob_path(&entry.digest)?)?;
        let mut hasher = Hasher::new(entry.digest.algorithm());
        hasher.update(&bytes);
        if hasher.finish() != entry.digest {
            return Err(ImageError::corrupt(
                &entry.digest,
                "the file holds other content",
            ));
        }
        let document = Document::parse(&self.shown, &bytes)?;
        match &document {
            Document::Index(index) => {
                for child in &index.manifests {
                    self.document(child, into, depth + 1)?;
                }
            }
            Document::Manifest(manifest) => {
                for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                    if blob.urls.is_empty() && self.seen.insert(blob.digest.clone()) {
                        let path = self.blob_path(&blob.digest)?;
                        self.blobs.push(BundleBlob {
                            digest: blob.digest.clone(),
                            size: blob.size,
                            path,
                        });
                    }
                }
            }
        }
        into.push((
            entry.digest.clone(),
            document.media_type().to_owned(),
            bytes,
        ));
        Ok(())
    }

    fn docker(&mut self, manifest: &Path) -> Result<Vec<BundleImage>, ImageError> {
        let bytes = self.small(manifest)?;
        let list: Vec<DockerImage> = serde_json::from_slice(&bytes).map_err(|e| {
            ImageError::unsupported(&self.shown, format!("its manifest.json is not valid: {e}"))
        })?;
        list.into_iter()
            .map(|image| self.docker_image(image))
            .collect()
    }

    fn docker_image(&mut self, image: DockerImage) -> Result<BundleImage, ImageError> {
        let find = |source: &Source, name: &str| {
            clean(name.as_bytes())
                .and_then(|name| source.find(&name))
                .ok_or_else(|| {
                    ImageError::unsupported(
                        &self.shown,
                        format!("it names {name}, but does not hold it"),
                    )
                })
        };
        let config_path = find(&self.source, &image.config)?;
        let paths = image
            .layers
            .iter()
            .map(|name| find(&self.source, name))
            .collect::<Result<Vec<_>, _>>()?;
        let bytes = self.small(&config_path)?;
        let config: ConfigFile = serde_json::from_slice(&bytes).map_err(|e| {
            ImageError::unsupported(&self.shown, format!("its image config is not valid: {e}"))
        })?;
        if config.rootfs.diff_ids.len() != paths.len() {
            return Err(ImageError::unsupported(
                &self.shown,
                "its config names another number of layers",
            ));
        }
        let config_digest = Digest::of(&bytes);
        let config_blob = Descriptor::new(media::OCI_CONFIG, config_digest, bytes.len() as u64);
        self.add(&config_blob, config_path);
        let mut layers = Vec::new();
        for path in paths {
            let layer = describe_layer(&path)?;
            self.add(&layer, path);
            layers.push(layer);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::OCI_MANIFEST.to_owned(),
            artifact_type: None,
            config: config_blob,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        };
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|e| ImageError::unsupported(&self.shown, e.to_string()))?;
        let digest = Digest::of(&bytes);
        Ok(BundleImage {
            names: image.repo_tags.unwrap_or_default(),
            digest: digest.clone(),
            manifests: vec![(digest, media::OCI_MANIFEST.to_owned(), bytes)],
        })
    }

    fn add(&mut self, blob: &Descriptor, path: PathBuf) {
        if self.seen.insert(blob.digest.clone()) {
            self.blobs.push(BundleBlob {
                digest: blob.digest.clone(),
                size: blob.size,
                path,
            });
        }
    }
}

fn describe_layer(path: &Path) -> Result<Descriptor, ImageError> {
    let mut file = File::open(path).doing("open", path)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0_u8; 256 * 1024];
    let (mut size, mut media_type) = (0_u64, media::OCI_LAYER);
    loop {
        let got = file.read(&mut buffer).doing("read", path)?;
        if got == 0 {
            break;
        }
        if size == 0 && buffer.starts_with(&[0x1f, 0x8b]) {
            media_type = media::OCI_LAYER_GZIP;
        } else if size == 0 && buffer.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            media_type = media::OCI_LAYER_ZSTD;
        }
        hasher.update(&buffer[..got]);
        size += got as u64;
    }
    Ok(Descriptor::new(media_type, hasher.finish(), size))
}
