//! The documents of an image: descriptors, manifests, indexes, configs.
//!
//! OCI image-spec 1.1 (manifest.md, image-index.md, config.md) and Docker's schema 2, which differ
//! only in media types. Manifests are kept and served as the bytes that were sent; these types are
//! for reading them and for writing our own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::ImageError;

/// Media types of the two families.
pub mod media {
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, no compression.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker image manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// The config of an artifact without one.
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";

    /// What a pull accepts, newest first.
    pub const ACCEPT: &[&str] = &[OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
}

/// A pointer to content: type, digest, size in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The content's media type.
    #[serde(default)]
    pub media_type: String,
    /// The content's digest.
    pub digest: Digest,
    /// The content's length in bytes.
    pub size: u64,
    /// The platform of an index entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The type of an artifact, in referrers lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Free text by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Where else the content may be fetched; layers with this are not pushed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

impl Descriptor {
    /// A descriptor with nothing but the three required fields.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
            urls: Vec::new(),
        }
    }
}

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The CPU architecture in Go's words: `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// The operating system, `linux`.
    #[serde(default)]
    pub os: String,
    /// The CPU variant, e.g. `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: None,
        }
    }

    fn runs(&self, offered: &Self) -> bool {
        self.os == offered.os && self.architecture == offered.architecture
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or_unknown = |s: &str| {
            if s.is_empty() {
                "unknown".to_owned()
            } else {
                s.to_owned()
            }
        };
        write!(
            f,
            "{}/{}",
            or_unknown(&self.os),
            or_unknown(&self.architecture)
        )?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// An image manifest of either family.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The manifest's own media type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config blob.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// What this manifest refers to (signatures, bills of material).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free text by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image index or Docker manifest list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The index's own media type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests, one a platform.
    pub manifests: Vec<Descriptor>,
    /// What this index refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free text by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Either of the two documents a tag can point to.
#[derive(Clone, Debug)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several, by platform.
    Index(Index),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u32>,
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a manifest or index, telling them apart by their content; `name` is for errors.
    pub fn parse(name: &dyn std::fmt::Display, bytes: &[u8]) -> Result<Self, ImageError> {
        let shape: Shape = serde_json::from_slice(bytes)
            .map_err(|e| ImageError::unsupported(name, format!("its manifest is not JSON: {e}")))?;
        if shape.schema_version != Some(2) {
            return Err(ImageError::unsupported(
                name,
                "its manifest has another schemaVersion than 2; push it again with a current tool",
            ));
        }
        let media_type = shape.media_type.unwrap_or_default();
        let says_index = matches!(media_type.as_str(), media::OCI_INDEX | media::DOCKER_LIST);
        let says_manifest = matches!(
            media_type.as_str(),
            media::OCI_MANIFEST | media::DOCKER_MANIFEST
        );
        // A document that is both could be read differently by different clients (CVE-2021-41190).
        if shape.manifests.is_some() && shape.config.is_some() {
            return Err(ImageError::unsupported(
                name,
                "its manifest is image and index at once",
            ));
        }
        let wrong = |e: serde_json::Error| {
            ImageError::unsupported(name, format!("its manifest is not valid: {e}"))
        };
        if says_index || (!says_manifest && shape.manifests.is_some()) {
            serde_json::from_slice(bytes)
                .map(Self::Index)
                .map_err(wrong)
        } else {
            serde_json::from_slice(bytes)
                .map(Self::Manifest)
                .map_err(wrong)
        }
    }

    /// The media type the document has by its own word, or by its shape.
    #[must_use]
    pub fn media_type(&self) -> &str {
        match self {
            Self::Manifest(m) if m.media_type.is_empty() => media::OCI_MANIFEST,
            Self::Manifest(m) => &m.media_type,
            Self::Index(i) if i.media_type.is_empty() => media::OCI_INDEX,
            Self::Index(i) => &i.media_type,
        }
    }

    /// What the document refers to.
    #[must_use]
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Manifest(m) => m.subject.as_ref(),
            Self::Index(i) => i.subject.as_ref(),
        }
    }
}

impl Index {
    /// The manifest for `wanted`; attestations and other platforms are passed over.
    pub(crate) fn select(&self, image: &str, wanted: &Platform) -> Result<&Descriptor, ImageError> {
        let offered = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| wanted.runs(p));
        if let Some(found) = self.manifests.iter().find(offered) {
            return Ok(found);
        }
        // A single entry without a platform can only be meant for whoever asks; its config tells.
        if let [only] = self.manifests.as_slice()
            && only.platform.is_none()
        {
            return Ok(only);
        }
        let mut has: Vec<String> = self
            .manifests
            .iter()
            .take(32)
            .map(|d| d.platform.clone().unwrap_or_default().to_string())
            .collect();
        has.dedup();
        Err(ImageError::WrongPlatform {
            image: image.to_owned(),
            wanted: wanted.to_string(),
            has: if has.is_empty() {
                "no platform at all".to_owned()
            } else {
                has.join(", ")
            },
        })
    }
}

/// The part of an image config that says how to run it (config.md, "config").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// `USER`, see [`crate::PreparedImage::resolve_user`].
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// `EXPOSE`, e.g. `8080/tcp`.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// `ENV`, each `NAME=value`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// `ENTRYPOINT`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// `CMD`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// `VOLUME`.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// `WORKDIR`.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// `LABEL`.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// `STOPSIGNAL`, e.g. `SIGTERM`.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub stop_signal: String,
}

/// Docker writes `null` where it means empty.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A whole image config document.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConfigFile {
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The CPU architecture in Go's words.
    #[serde(default)]
    pub architecture: String,
    /// The operating system.
    #[serde(default)]
    pub os: String,
    /// How to run it.
    #[serde(default, deserialize_with = "or_default")]
    pub config: RunConfig,
    /// The layers' uncompressed digests.
    pub rootfs: RootFs,
    /// One entry a build step.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    pub history: Vec<serde_json::Value>,
}

/// The layers' uncompressed digests, lowest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The digests of the uncompressed tars.
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_for_another_platform_says_what_it_has() {
        let digest = Digest::of(b"x");
        let entry = |arch: &str| {
            let mut d = Descriptor::new(media::OCI_MANIFEST, digest.clone(), 1);
            d.platform = Some(Platform {
                architecture: arch.into(),
                os: "linux".into(),
                variant: None,
            });
            d
        };
        let mut index = Index {
            schema_version: 2,
            media_type: String::new(),
            artifact_type: None,
            manifests: vec![entry("s390x"), entry("riscv64")],
            subject: None,
            annotations: BTreeMap::new(),
        };
        let wanted = Platform {
            architecture: "amd64".into(),
            os: "linux".into(),
            variant: None,
        };
        let error = index.select("hello", &wanted).unwrap_err().to_string();
        assert!(error.contains("linux/s390x, linux/riscv64") && error.contains("linux/amd64"));
        index.manifests.push(entry("amd64"));
        assert!(index.select("hello", &wanted).is_ok());
    }

    #[test]
    fn a_document_that_is_two_things_is_refused() {
        let both = br#"{"schemaVersion":2,"config":{},"manifests":[]}"#;
        assert!(Document::parse(&"x", both).is_err());
        assert!(Document::parse(&"x", b"[]").is_err());
        assert!(Document::parse(&"x", br#"{"schemaVersion":1}"#).is_err());
    }

    #[test]
    fn docker_nulls_are_empty() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Cmd":null,"Env":null,"Labels":null},"rootfs":{"type":"layers"}}"#;
        let config: ConfigFile = serde_json::from_str(text).unwrap();
        assert_eq!(config.config, RunConfig::default());
    }
}
