//! What the image store is told at start.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of [`crate::Images`].
#[derive(Clone, Debug)]
pub struct ImagesConfig {
    /// Where blobs, books and unpacked layers live; owned by this process alone.
    pub dir: PathBuf,
    /// Layers are stored with uid + `uid_base` and gid + `uid_base`, so that every instance's user
    /// namespace can use them without an id-mapped mount. 65,536 ids are used.
    pub uid_base: u32,
    /// What strangers may make us store.
    pub limits: Limits,
    /// Registries with settings of their own; others are asked anonymously over HTTPS (over HTTP on
    /// loopback addresses, as Docker does).
    pub registries: Vec<RegistryConfig>,
    /// Hosts asked for names without a host, in order, after our own repositories.
    pub short_name_registries: Vec<String>,
    /// Hosts (with port) by which clients reach this server; names that begin with one of them are
    /// ours and are asked nowhere else.
    pub own_hosts: Vec<String>,
    /// Files in the form of `~/.docker/config.json`, read at each use; the first entry that names the
    /// registry counts, after `registries`.
    pub auth_files: Vec<PathBuf>,
}

impl ImagesConfig {
    /// Settings with defaults: Docker Hub for short names, no credentials.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, uid_base: u32) -> Self {
        Self {
            dir: dir.into(),
            uid_base,
            limits: Limits::default(),
            registries: Vec::new(),
            short_name_registries: vec!["docker.io".to_owned()],
            own_hosts: Vec::new(),
            auth_files: Vec::new(),
        }
    }
}

/// What strangers may make us store. Sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// One layer's uncompressed tar.
    pub max_layer_unpacked: u64,
    /// All layers of an image, uncompressed.
    pub max_image_unpacked: u64,
    /// Layers in an image; overlayfs itself ends at 500.
    pub max_layers: usize,
    /// Entries in one layer.
    pub max_files: u64,
    /// A manifest, index or config; also of token answers.
    pub max_manifest: u64,
    /// A blob as pushed or pulled.
    pub max_blob: u64,
    /// Uploads begun and not finished.
    pub max_uploads: usize,
    /// Images kept ready in memory.
    pub max_prepared: usize,
    /// How long a remote registry may be silent before it counts as unreachable.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_layer_unpacked: 32 << 30,
            max_image_unpacked: 64 << 30,
            max_layers: 250,
            max_files: 2_000_000,
            max_manifest: 4 << 20,
            max_blob: 32 << 30,
            max_uploads: 1024,
            max_prepared: 4096,
            stall: Duration::from_secs(30),
        }
    }
}

/// One remote registry.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// Its host, with the port if it is not 443, e.g. `docker.io` or `registry.example:5000`.
    pub host: String,
    /// Asked instead of `host`, e.g. a mirror; host and port.
    pub endpoint: Option<String>,
    /// Plain HTTP instead of HTTPS.
    pub insecure: bool,
    /// What to sign in with.
    pub credentials: Option<Credentials>,
}

/// What to sign in to a registry with.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user name and a password or access token.
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: String,
    },
    /// A ready bearer token.
    Bearer(String),
    /// An OAuth2 refresh token (`identitytoken` in Docker's files).
    Identity(String),
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username}, …)"),
            Self::Bearer(_) => f.write_str("Bearer(…)"),
            Self::Identity(_) => f.write_str("Identity(…)"),
        }
    }
}
