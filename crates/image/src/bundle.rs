//! Images in a temporary folder, on their way into our store or to a registry.
//!
//! [`crate::pack_directory`] and [`crate::import`] make bundles; [`Images::store_bundle`] takes one in,
//! [`RegistryClient::push`] sends one to a running server.

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use crate::config::{Credentials, ImagesConfig, RegistryConfig};
use crate::digest::Digest;
use crate::error::{ImageError, IoContext};
use crate::manifest::{ConfigFile, Descriptor, Document, Platform};
use crate::reference::Reference;
use crate::remote::{Remote, RemoteRepo, is_loopback};
use crate::resolve::ResolvedImage;
use crate::store::blocking;
use crate::{Images, resolve};

/// One or more images as files.
#[derive(Debug)]
pub struct Bundle {
    /// The images, in the order found.
    pub images: Vec<BundleImage>,
    /// Configs and layers that the bundle holds.
    pub(crate) blobs: Vec<BundleBlob>,
    /// Layers that are in the target already, in this repository.
    pub(crate) mounts: Vec<(String, Digest, u64)>,
    /// Keeps the files; `None` when they lie in a folder of the user's.
    pub(crate) dir: Option<TempDir>,
}

/// One image (or index) of a bundle.
#[derive(Clone, Debug)]
pub struct BundleImage {
    /// The names the image had where it came from; empty when it had none.
    pub names: Vec<String>,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// Manifests, those an index names before the index itself, which is the last.
    pub(crate) manifests: Vec<(Digest, String, Vec<u8>)>,
}

#[derive(Clone, Debug)]
pub(crate) struct BundleBlob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) path: PathBuf,
}

/// An image to build on: its layers stay where they are.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// Its config, the start of the new one.
    pub config: ConfigFile,
    pub(crate) layers: Vec<Descriptor>,
    /// The repository that holds the layers.
    pub(crate) repo: String,
}

impl Bundle {
    /// Bytes of all configs and layers.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).sum()
    }

    /// The folder that holds the files while the bundle lives, for those that need it.
    #[must_use]
    pub fn folder(&self) -> Option<&std::path::Path> {
        self.dir.as_ref().map(TempDir::path)
    }
}

impl Images {
    /// Takes image number `index` of a bundle into our own repository `name` stands for, and tags it.
    ///
    /// # Errors
    /// `Corrupt` when a file is not what its digest says, `Storage` when the disk fails.
    pub async fn store_bundle(
        &self,
        bundle: &Arc<Bundle>,
        index: usize,
        name: &Reference,
    ) -> Result<ResolvedImage, ImageError> {
        let repo = self.own_repository(name)?;
        let (images, bundle, name) = (self.clone(), bundle.clone(), name.clone());
        blocking(move || {
            let store = &images.0.store;
            let image = bundle.images.get(index).ok_or_else(|| {
                ImageError::unsupported(&name, "the bundle holds no image of that number")
            })?;
            for blob in &bundle.blobs {
                if !store.touch(&blob.digest) {
                    let mut writer = store.blob_writer(blob.digest.algorithm())?;
                    let mut file = std::fs::File::open(&blob.path).doing("open", &blob.path)?;
                    writer.copy_from(&mut file).doing("copy", &blob.path)?;
                    store.commit(writer, &blob.digest)?;
                }
                store.link_blob(&repo, &blob.digest)?;
            }
            for (_, digest, _) in &bundle.mounts {
                if !store.link_blob(&repo, digest)? {
                    return Err(ImageError::corrupt(
                        digest,
                        "the base image's layer is gone",
                    ));
                }
            }
            for (digest, media_type, bytes) in &image.manifests {
                store.put_bytes_as(digest, bytes)?;
                store.link_manifest(&repo, digest, media_type)?;
            }
            store.set_tag(&repo, name.tag_or_default(), &image.digest)?;
            let reference = name.with_digest(image.digest.clone());
            Ok(ResolvedImage {
                digest: image.digest.clone(),
                reference,
            })
        })
        .await?
    }

    /// An image of ours to build on; it is pulled first when it is elsewhere.
    ///
    /// # Errors
    /// Those of [`Images::resolve`].
    pub async fn base_image(&self, reference: &Reference) -> Result<BaseImage, ImageError> {
        let resolved = self.resolve(reference).await?;
        let places = self.places(&resolved.reference);
        let manifest = self.image_manifest(&places, &resolved).await?;
        let config = self.image_config(&places, &manifest).await?;
        for layer in &manifest.layers {
            self.bring_blob(&places, layer).await?;
        }
        let repo = resolved.reference.path;
        Ok(BaseImage {
            config,
            layers: manifest.layers,
            repo,
        })
    }

    /// The repository of ours that a name is pushed to.
    fn own_repository(&self, name: &Reference) -> Result<String, ImageError> {
        repository_for(name, &self.0.config.own_hosts)
    }
}

/// The repository a name means on the server that `own_hosts` lead to.
fn repository_for(name: &Reference, own_hosts: &[String]) -> Result<String, ImageError> {
    let names = resolve::own_repositories(name, own_hosts);
    names.into_iter().next().ok_or_else(|| no_room_for(name))
}

fn no_room_for(name: &Reference) -> ImageError {
    ImageError::unsupported(
        name,
        "this server cannot hold names of a host with a port; leave the host out",
    )
}

/// A client of one registry, for the command line: it talks to the running server.
pub struct RegistryClient {
    remote: Remote,
    host: String,
    own_hosts: Vec<String>,
    max_manifest: u64,
}

impl std::fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryClient")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl RegistryClient {
    /// A client for the registry at `endpoint`: `http://HOST:PORT`, `https://HOST`, or a host alone
    /// (HTTP on loopback, else HTTPS).
    ///
    /// # Errors
    /// `Storage` when the HTTP client cannot be set up.
    pub fn new(endpoint: &str, credentials: Option<Credentials>) -> Result<Self, ImageError> {
        let bare = endpoint.trim_end_matches('/');
        let (insecure, host) = match (bare.strip_prefix("http://"), bare.strip_prefix("https://")) {
            (Some(host), _) => (true, host),
            (None, Some(host)) => (false, host),
            (None, None) => (is_loopback(bare), bare),
        };
        let mut config = ImagesConfig::new("", 0);
        config.registries = vec![RegistryConfig {
            host: host.to_owned(),
            endpoint: None,
            insecure,
            credentials,
        }];
        let mut own_hosts = vec![host.to_owned()];
        if is_loopback(host)
            && let Some((_, port)) = host.rsplit_once(':')
        {
            own_hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(|h| format!("{h}:{port}")));
        }
        let max_manifest = config.limits.max_manifest;
        let remote = Remote::new(Arc::new(config))?;
        Ok(Self {
            remote,
            host: host.to_owned(),
            own_hosts,
            max_manifest,
        })
    }

    /// The repositories of that registry that a name may mean, in the order in which a deploy looks
    /// at them.
    ///
    /// # Errors
    /// `Unsupported` when it can mean none.
    pub fn repositories(&self, name: &Reference) -> Result<Vec<String>, ImageError> {
        let names = resolve::own_repositories(name, &self.own_hosts);
        if names.is_empty() {
            return Err(no_room_for(name));
        }
        Ok(names)
    }

    fn at(&self, path: String) -> RemoteRepo {
        RemoteRepo {
            host: self.host.clone(),
            path,
        }
    }

    /// Sends image number `index` of a bundle and tags it with `name`.
    ///
    /// # Errors
    /// `Unauthorized`, `Unreachable`, or what the registry does not like.
    pub async fn push(
        &self,
        bundle: &Bundle,
        index: usize,
        name: &Reference,
    ) -> Result<ResolvedImage, ImageError> {
        let repo = self.at(repository_for(name, &self.own_hosts)?);
        let image = bundle.images.get(index).ok_or_else(|| {
            ImageError::unsupported(name, "the bundle holds no image of that number")
        })?;
        for blob in &bundle.blobs {
            self.remote
                .push_blob(&repo, &blob.digest, blob.path.clone(), blob.size)
                .await?;
        }
        for (from, digest, _) in &bundle.mounts {
            self.remote.mount_blob(&repo, from, digest).await?;
        }
        for (digest, media_type, bytes) in &image.manifests {
            let reference = if *digest == image.digest {
                name.tag_or_default().to_owned()
            } else {
                digest.to_string()
            };
            self.remote
                .push_manifest(&repo, &reference, media_type, bytes)
                .await?;
        }
        let reference = name.with_digest(image.digest.clone());
        Ok(ResolvedImage {
            digest: image.digest.clone(),
            reference,
        })
    }

    /// An image of that registry to build on.
    ///
    /// # Errors
    /// `NotFound`, `WrongPlatform`, `Unauthorized`, `Unreachable`.
    pub async fn base_image(&self, name: &Reference) -> Result<BaseImage, ImageError> {
        for path in self.repositories(name)? {
            if let Some(image) = self.base_image_in(name, self.at(path)).await? {
                return Ok(image);
            }
        }
        Err(ImageError::NotFound {
            image: name.to_string(),
            asked: self.host.clone(),
        })
    }

    async fn base_image_in(
        &self,
        name: &Reference,
        repo: RemoteRepo,
    ) -> Result<Option<BaseImage>, ImageError> {
        let wanted = Platform::host();
        let mut reference = match &name.digest {
            Some(digest) => digest.to_string(),
            None => name.tag_or_default().to_owned(),
        };
        for _ in 0..3 {
            let Some(found) = self.remote.manifest(&repo, &reference).await? else {
                return Ok(None);
            };
            match Document::parse(name, &found.bytes)? {
                Document::Index(index) => {
                    reference = index.select(&name.to_string(), &wanted)?.digest.to_string();
                }
                Document::Manifest(manifest) => {
                    let bytes = self
                        .remote
                        .small_blob(&repo, &manifest.config.digest, self.max_manifest)
                        .await?;
                    let config: ConfigFile = serde_json::from_slice(&bytes).map_err(|e| {
                        ImageError::unsupported(name, format!("its config is not valid: {e}"))
                    })?;
                    resolve::check_platform(&name.to_string(), &config, &wanted)?;
                    return Ok(Some(BaseImage {
                        config,
                        layers: manifest.layers,
                        repo: repo.path,
                    }));
                }
            }
        }
        Err(ImageError::unsupported(
            name,
            "its indexes are nested too deep",
        ))
    }
}
