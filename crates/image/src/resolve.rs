//! From the name a user wrote to one manifest for this machine.
//!
//! | written | asked, in order |
//! | --- | --- |
//! | `hello`, `team/hello` | our repository of that name; our `docker.io/library/hello`; the short-name registries |
//! | a name under one of our own hosts | our repository of that path |
//! | `us-docker.pkg.dev/p/r/i`, `gcr.io/p/i`, any other host | our repository `host/path` (`docker push OURS/us-docker.pkg.dev/p/r/i`), then that registry |
//!
//! A name with a host never falls back to one without: `docker.io/library/hello` is Docker Hub's
//! unless it was pushed here under that whole name.

use std::sync::Arc;

use crate::Images;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{ConfigFile, Descriptor, Document, Manifest, Platform};
use crate::reference::{Reference, is_repository};
use crate::remote::RemoteRepo;
use crate::store::blocking;

/// An image fixed to one manifest for this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResolvedImage {
    /// The manifest's digest.
    pub digest: Digest,
    /// The name with that digest, e.g. `us-docker.pkg.dev/p/r/i@sha256:…`.
    pub reference: Reference,
}

impl std::fmt::Display for ResolvedImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reference.fmt(f)
    }
}

impl std::str::FromStr for ResolvedImage {
    type Err = ImageError;

    /// Reads back what `Display` wrote: a name with a digest.
    fn from_str(text: &str) -> Result<Self, ImageError> {
        let reference: Reference = text.parse()?;
        match reference.digest.clone() {
            Some(digest) => Ok(Self { digest, reference }),
            None => Err(ImageError::unsupported(
                text,
                "a resolved image has a digest: NAME@sha256:…",
            )),
        }
    }
}

/// Where an image may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In our repository of that name.
    Own(String),
    /// On another registry.
    Remote(RemoteRepo),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own(_) => f.write_str("this server"),
            Self::Remote(repo) => f.write_str(&repo.host),
        }
    }
}

/// Whether a host is Google's Artifact Registry or Container Registry.
pub(crate) fn is_google_registry(host: &str) -> bool {
    host == "gcr.io" || host.ends_with(".gcr.io") || host.ends_with("-docker.pkg.dev")
}

/// Docker Hub under the one of its names that we use.
fn canonical(host: &str) -> &str {
    match host {
        "index.docker.io" => "docker.io",
        host => host,
    }
}

/// The path of a repository on a registry: Docker Hub keeps short names under `library`.
fn path_at(host: &str, path: &str) -> String {
    if host == "docker.io" && !path.contains('/') {
        format!("library/{path}")
    } else {
        path.to_owned()
    }
}

/// The repositories of ours that a name may mean, in the order in which they are looked at. What is
/// pushed under the name goes to the first.
pub(crate) fn own_repositories(reference: &Reference, own_hosts: &[String]) -> Vec<String> {
    let path = &reference.path;
    let under = |host: &str| format!("{host}/{}", path_at(host, path));
    let mut names = match reference.host.as_deref() {
        None => vec![path.clone(), under("docker.io")],
        Some(host) if own_hosts.iter().any(|own| own.eq_ignore_ascii_case(host)) => {
            vec![path.clone()]
        }
        Some(host) => vec![under(canonical(host))],
    };
    names.retain(|name| is_repository(name));
    names
}

/// Where to look for `reference`, in order.
pub(crate) fn places(
    reference: &Reference,
    own_hosts: &[String],
    short_name_registries: &[String],
) -> Vec<Place> {
    let own = own_repositories(reference, own_hosts);
    let hosts = match reference.host.as_deref() {
        None => short_name_registries.iter().map(String::as_str).collect(),
        Some(host) if own_hosts.iter().any(|own| own.eq_ignore_ascii_case(host)) => vec![],
        Some(host) => vec![canonical(host)],
    };
    let remote = hosts.into_iter().map(|host| {
        Place::Remote(RemoteRepo {
            host: host.to_owned(),
            path: path_at(host, &reference.path),
        })
    });
    own.into_iter().map(Place::Own).chain(remote).collect()
}

impl Images {
    /// Finds the manifest for this machine that `reference` stands for now.
    ///
    /// # Errors
    /// `NotFound`, `WrongPlatform`, `Unauthorized`, `Unreachable`, or what is wrong with the manifest.
    pub async fn resolve(&self, reference: &Reference) -> Result<ResolvedImage, ImageError> {
        let places = self.places(reference);
        let wanted = match &reference.digest {
            Some(digest) => digest.to_string(),
            None => reference.tag_or_default().to_owned(),
        };
        let mut asked = Vec::new();
        let mut failure: Option<ImageError> = None;
        for place in &places {
            let found = match self.fetch_document(place, &wanted).await {
                Ok(Some((digest, bytes))) => {
                    self.select(place, &reference.to_string(), digest, bytes)
                        .await
                }
                Ok(None) => {
                    let shown = place.to_string();
                    if !asked.contains(&shown) {
                        asked.push(shown);
                    }
                    continue;
                }
                Err(error) => Err(error),
            };
            match found {
                Ok(digest) => {
                    let mut fixed = reference.with_digest(digest.clone());
                    // A short name found elsewhere is written out, so that it stays that place's.
                    if let Place::Remote(repo) = place {
                        fixed.host = Some(repo.host.clone());
                        fixed.path.clone_from(&repo.path);
                    }
                    return Ok(ResolvedImage {
                        digest,
                        reference: fixed,
                    });
                }
                // A registry that does not answer hides nothing of the next one.
                Err(error @ (ImageError::Unreachable { .. } | ImageError::Unauthorized { .. })) => {
                    if reference.host.is_none()
                        && let ImageError::Unreachable { registry, why } = &error
                    {
                        asked.push(format!("{registry}, which cannot be reached: {why}"));
                    } else {
                        failure.get_or_insert(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| ImageError::NotFound {
            image: reference.to_string(),
            asked: asked.join(", "),
        }))
    }

    pub(crate) fn places(&self, reference: &Reference) -> Vec<Place> {
        let config = &self.0.config;
        places(reference, &config.own_hosts, &config.short_name_registries)
    }

    /// A manifest or index by tag or digest from one place; from elsewhere it is stored as well.
    async fn fetch_document(
        &self,
        place: &Place,
        wanted: &str,
    ) -> Result<Option<(Digest, Vec<u8>)>, ImageError> {
        let max = self.0.config.limits.max_manifest;
        let store = self.0.store.clone();
        match place {
            Place::Own(repo) => {
                let (repo, wanted) = (repo.clone(), wanted.to_owned());
                blocking(move || {
                    let digest = match wanted.parse::<Digest>() {
                        Ok(digest) => store.manifest_type(&repo, &digest).map(|_| digest),
                        Err(_) => store.tag(&repo, &wanted),
                    };
                    let Some(digest) = digest else {
                        return Ok(None);
                    };
                    store.touch(&digest);
                    Ok(store.read_blob(&digest, max)?.map(|bytes| (digest, bytes)))
                })
                .await?
            }
            Place::Remote(repo) => {
                // What is fixed by digest and here already needs no registry.
                if let Ok(digest) = wanted.parse::<Digest>() {
                    let (store, digest) = (store.clone(), digest.clone());
                    let here = blocking(move || {
                        store.touch(&digest);
                        Ok::<_, ImageError>(
                            store.read_blob(&digest, max)?.map(|bytes| (digest, bytes)),
                        )
                    })
                    .await??;
                    if here.is_some() {
                        return Ok(here);
                    }
                }
                let Some(found) = self.0.remote.manifest(repo, wanted).await? else {
                    return Ok(None);
                };
                blocking(move || {
                    store.put_bytes_as(&found.digest, &found.bytes)?;
                    Ok(Some((found.digest, found.bytes)))
                })
                .await?
            }
        }
    }

    /// Goes from what a tag points to down to the manifest for this machine.
    async fn select(
        &self,
        place: &Place,
        image: &str,
        mut digest: Digest,
        mut bytes: Vec<u8>,
    ) -> Result<Digest, ImageError> {
        let wanted = Platform::host();
        // An index may name indexes; nobody nests them deeper than this.
        for _ in 0..3 {
            match Document::parse(&image, &bytes)? {
                Document::Manifest(manifest) => {
                    let config = self
                        .image_config(std::slice::from_ref(place), &manifest)
                        .await?;
                    check_platform(image, &config, &wanted)?;
                    return Ok(digest);
                }
                Document::Index(index) => {
                    let entry: Descriptor = index.select(image, &wanted)?.clone();
                    let name = entry.digest.to_string();
                    let next = self.fetch_document(place, &name).await?;
                    (digest, bytes) = next.ok_or_else(|| ImageError::NotFound {
                        image: format!("{image} ({name}, named by its index)"),
                        asked: place.to_string(),
                    })?;
                }
            }
        }
        Err(ImageError::unsupported(
            image,
            "its indexes are nested too deep",
        ))
    }

    /// The manifest of that digest, from the store or from where the image is.
    pub(crate) async fn image_manifest(
        &self,
        places: &[Place],
        image: &ResolvedImage,
    ) -> Result<Manifest, ImageError> {
        let max = self.0.config.limits.max_manifest;
        let (store, digest) = (self.0.store.clone(), image.digest.clone());
        let here = blocking(move || {
            store.touch(&digest);
            store.read_blob(&digest, max)
        })
        .await??;
        let mut found = here;
        let mut failure = None;
        for place in places {
            if found.is_some() {
                break;
            }
            match self.fetch_document(place, &image.digest.to_string()).await {
                Ok(document) => found = document.map(|(_, bytes)| bytes),
                Err(error) => failure = Some(error),
            }
        }
        let Some(bytes) = found else {
            return Err(failure.unwrap_or_else(|| not_found(image, places)));
        };
        match Document::parse(image, &bytes)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(ImageError::unsupported(
                image,
                "the digest names an index; resolve it first",
            )),
        }
    }

    /// The config a manifest names, from the store or from where the image is.
    pub(crate) async fn image_config(
        &self,
        places: &[Place],
        manifest: &Manifest,
    ) -> Result<ConfigFile, ImageError> {
        let max = self.0.config.limits.max_manifest;
        let digest = &manifest.config.digest;
        if manifest.config.size > max {
            return Err(ImageError::TooLarge {
                what: format!("The image config {digest}"),
                found: format!("{} bytes", manifest.config.size),
                limit: format!("{max} bytes"),
            });
        }
        self.bring_blob(places, &manifest.config).await?;
        let (store, wanted) = (self.0.store.clone(), digest.clone());
        let bytes = blocking(move || store.read_blob(&wanted, max))
            .await??
            .ok_or_else(|| ImageError::corrupt(digest, "it vanished while it was read"))?;
        serde_json::from_slice(&bytes).map_err(|e| {
            ImageError::unsupported(
                digest,
                format!("its config is not an image config ({e}); artifacts cannot be run"),
            )
        })
    }

    /// Makes sure that a blob is in the store.
    pub(crate) async fn bring_blob(
        &self,
        places: &[Place],
        blob: &Descriptor,
    ) -> Result<(), ImageError> {
        let (store, digest) = (self.0.store.clone(), blob.digest.clone());
        let here = blocking(move || {
            store.touch(&digest);
            store.blob_size(&digest)
        })
        .await?;
        match here {
            Some(size) if size == blob.size => return Ok(()),
            Some(size) => {
                return Err(ImageError::corrupt(
                    &blob.digest,
                    format!("it has {size} bytes, the manifest says {}", blob.size),
                ));
            }
            None => {}
        }
        let limit = self.0.config.limits.max_blob;
        if blob.size > limit {
            return Err(ImageError::TooLarge {
                what: format!("The blob {}", blob.digest),
                found: format!("{} bytes", blob.size),
                limit: format!("{limit} bytes"),
            });
        }
        let mut failure = None;
        for place in places {
            let Place::Remote(repo) = place else { continue };
            match self.fetch_once(repo, blob).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| {
            ImageError::corrupt(
                &blob.digest,
                "the image names it, but no registry asked has it",
            )
        }))
    }

    /// Downloads a blob; callers that want the same one at the same time share the download.
    async fn fetch_once(&self, repo: &RemoteRepo, blob: &Descriptor) -> Result<bool, ImageError> {
        let inner = Arc::clone(&self.0);
        let (repo, blob) = (repo.clone(), blob.clone());
        let key = (repo.clone(), blob.digest.clone());
        self.0
            .downloads
            .run(key, async move {
                let _turn = inner.download_turns.acquire().await;
                if inner.store.blob_size(&blob.digest) == Some(blob.size) {
                    return Ok(true);
                }
                inner
                    .remote
                    .blob(&inner.store, &repo, &blob.digest, blob.size)
                    .await
            })
            .await
    }
}

pub(crate) fn check_platform(
    image: &str,
    config: &ConfigFile,
    wanted: &Platform,
) -> Result<(), ImageError> {
    let has = Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        variant: None,
    };
    let fits = (has.os.is_empty() || has.os == wanted.os)
        && (has.architecture.is_empty() || has.architecture == wanted.architecture);
    if fits {
        return Ok(());
    }
    Err(ImageError::WrongPlatform {
        image: image.to_owned(),
        wanted: wanted.to_string(),
        has: has.to_string(),
    })
}

pub(crate) fn not_found(image: &ResolvedImage, places: &[Place]) -> ImageError {
    let mut asked: Vec<String> = places.iter().map(ToString::to_string).collect();
    asked.dedup();
    ImageError::NotFound {
        image: image.to_string(),
        asked: asked.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_where_a_user_expects() {
        let own = ["localhost:8080".to_owned()];
        let short = ["docker.io".to_owned()];
        let show = |text: &str| {
            let reference: Reference = text.parse().unwrap();
            places(&reference, &own, &short)
                .iter()
                .map(|place| match place {
                    Place::Own(name) => format!("own {name}"),
                    Place::Remote(repo) => repo.to_string(),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            show("hello"),
            [
                "own hello",
                "own docker.io/library/hello",
                "docker.io/library/hello"
            ]
        );
        assert_eq!(show("localhost:8080/hello"), ["own hello"]);
        assert_eq!(
            show("docker.io/library/hello"),
            ["own docker.io/library/hello", "docker.io/library/hello"]
        );
        assert_eq!(
            show("docker.io/hello"),
            show("index.docker.io/library/hello")
        );
        assert_eq!(
            show("us-docker.pkg.dev/p/r/i"),
            ["own us-docker.pkg.dev/p/r/i", "us-docker.pkg.dev/p/r/i"]
        );
        assert_eq!(show("localhost:5000/x"), ["localhost:5000/x"]);
    }
}
