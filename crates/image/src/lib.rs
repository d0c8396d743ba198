//! OCI images: pull, push, layers on disk, the registry protocol, packing a folder into an image.
//!
//! ```text
//! name ── resolve ──▶ digest ── prepare ──▶ folders for overlayfs, config, user
//!            │                     │
//!     our repositories      blobs (verified) ── unpack (confined, once a layer)
//!     or a remote registry         ▲
//!                                  │
//! docker push ── registry ─────────┘◀── pack, import
//! ```
//!
//! [`Images`] owns one folder on disk. Laws:
//! - Nothing is used before its digest and size are checked; nothing from strangers is unbounded.
//! - A layer never writes or reads outside its folder (`unpack`).
//! - `kill -9` at any point leaves a store that works; what was acknowledged stays.
//! - Garbage collection never takes what a tag, a manifest, a kept digest, a prepared image in use or
//!   an upload under way needs.
//!
//! Where to change what: names in `reference`, where names lead in `resolve`, other registries in
//! `remote`, the protocol we speak in `registry`, disk layout in `store`, overlay form in `unpack`.

#![forbid(unsafe_code)]

mod bundle;
mod config;
mod digest;
mod error;
mod flight;
mod flush;
mod gc;
mod import;
mod ingest;
mod manifest;
mod pack;
mod prepare;
mod reference;
mod registry;
mod remote;
mod resolve;
mod store;
mod tape;
mod unpack;
#[cfg(test)]
mod unpack_tests;
mod uploads;
mod user;

use std::sync::Arc;

pub use bundle::{BaseImage, Bundle, BundleImage, RegistryClient};
pub use config::{Credentials, ImagesConfig, Limits, RegistryConfig};
pub use digest::{Algorithm, Digest, InvalidDigest};
pub use error::{ErrorClass, ImageError};
pub use gc::{GarbagePolicy, GarbageStats};
pub use import::import;
pub use manifest::{
    ConfigFile, Descriptor, Document, Index, Manifest, Platform, RootFs, RunConfig, media,
};
pub use pack::{Compression, PackOptions, pack_directory};
pub use prepare::PreparedImage;
pub use reference::{InvalidReference, Reference, is_repository, is_tag};
pub use registry::{Action, AllowAll, AuthError, RegistryAuth};
pub use resolve::ResolvedImage;
pub use user::User;

use flight::Flights;
use prepare::{Leases, Ready};
use remote::{Remote, RemoteRepo};
use store::Store;
use tokio::sync::Semaphore;

/// Blobs downloaded at the same time, over all images.
const DOWNLOADS: usize = 8;

/// All images of this server. Cheap to clone.
#[derive(Clone)]
pub struct Images(Arc<Inner>);

struct Inner {
    config: Arc<ImagesConfig>,
    store: Arc<Store>,
    uploads: uploads::Uploads,
    remote: Remote,
    ready: Ready,
    leases: Leases,
    preparations: Flights<Digest, Arc<PreparedImage>>,
    flusher: Arc<flush::Flusher>,
    unpackings: Flights<Digest, prepare::LayerMeta>,
    downloads: Flights<(RemoteRepo, Digest), bool>,
    download_turns: Semaphore,
    unpack_turns: Semaphore,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images")
            .field("dir", &self.0.config.dir)
            .finish_non_exhaustive()
    }
}

impl Images {
    /// Opens the folder, making it where it is missing. Blocks for a moment.
    ///
    /// # Errors
    /// `Storage` when the folder cannot be used or another process owns it.
    pub fn open(config: ImagesConfig) -> Result<Self, ImageError> {
        let config = Arc::new(config);
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Ok(Self(Arc::new(Inner {
            store: Arc::new(Store::open(&config.dir)?),
            uploads: uploads::Uploads::default(),
            remote: Remote::new(config.clone())?,
            ready: Ready::default(),
            leases: Leases::default(),
            preparations: Flights::default(),
            flusher: Arc::new(flush::Flusher::new(&config.dir)),
            unpackings: Flights::default(),
            downloads: Flights::default(),
            download_turns: Semaphore::new(DOWNLOADS),
            unpack_turns: Semaphore::new(cores.max(2)),
            config,
        })))
    }
}
