//! What can go wrong with an image, worded for the person who named it.
//!
//! Every variant names the image (or layer, or entry), the value that was wrong, and the remedy.
//! Errors are `Clone` because one pull or unpack may be awaited by many callers.

use std::path::Path;

use crate::digest::Digest;

/// Why an image cannot be resolved, pulled, unpacked, packed or stored.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The name is not an image name.
    #[error(transparent)]
    InvalidReference(#[from] crate::reference::InvalidReference),

    /// No registry that was asked has the image.
    #[error(
        "Image '{image}' not found (asked: {asked}). Push it to this server, or check the name and the tag."
    )]
    NotFound {
        /// The image as it was asked for.
        image: String,
        /// The registries asked, comma separated.
        asked: String,
    },

    /// The image exists, but not for this machine.
    #[error(
        "Image '{image}' is built for {has}, this machine needs {wanted}. Build it with --platform {wanted}."
    )]
    WrongPlatform {
        /// The image as it was asked for.
        image: String,
        /// What this machine runs, e.g. `linux/amd64`.
        wanted: String,
        /// What the image offers, comma separated.
        has: String,
    },

    /// Content does not match its digest, or is not what its type promises.
    #[error("Image content {digest} is corrupt: {why}. Push or pull the image again.")]
    Corrupt {
        /// The digest of the blob that was wrong.
        digest: Digest,
        /// What was found.
        why: String,
    },

    /// A limit was passed.
    #[error(
        "{what} is too large: {found}, allowed are {limit}. Make the image smaller or raise the limit in the server's configuration."
    )]
    TooLarge {
        /// What was measured, naming the layer or manifest.
        what: String,
        /// What was found, with its unit.
        found: String,
        /// What is allowed, with its unit.
        limit: String,
    },

    /// The registry wants (other) credentials.
    #[error(
        "Registry '{registry}' refused access to '{image}': {why}. Add credentials for this registry to the server's configuration, or check that they may read the repository."
    )]
    Unauthorized {
        /// The registry's host.
        registry: String,
        /// The image as it was asked for.
        image: String,
        /// What the registry said.
        why: String,
    },

    /// A layer holds an entry that could reach outside the image or cannot exist.
    #[error("Layer {layer} holds an unsafe entry '{path}': {why}. Rebuild the image without it.")]
    UnsafeEntry {
        /// The layer's digest.
        layer: String,
        /// The entry's name, escaped for printing.
        path: String,
        /// Why it is refused.
        why: String,
    },

    /// The registry did not answer, or kept failing.
    #[error(
        "Registry '{registry}' cannot be reached: {why}. Check the name, the network and the proxy settings, then try again."
    )]
    Unreachable {
        /// The registry's host.
        registry: String,
        /// The last failure seen.
        why: String,
    },

    /// A manifest, config, archive or request is not of a form this server understands.
    #[error("'{image}' is not a usable image: {why}")]
    Unsupported {
        /// The image, file or digest.
        image: String,
        /// What is not understood and what is.
        why: String,
    },

    /// The image's user does not exist in it.
    #[error(
        "User '{user}' is not in the image's {file}. Use a number, or add the user in the Dockerfile."
    )]
    UnknownUser {
        /// The user or group as configured.
        user: String,
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
    },

    /// The disk or the kernel refused.
    #[error(
        "The image store failed to {what}: {why}. Check free space and permissions of the data folder."
    )]
    Storage {
        /// What was being done.
        what: String,
        /// The system's message.
        why: String,
    },
}

/// What the caller should do about an error; the faces map these to status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The user must change the request or the image.
    User,
    /// The image does not exist.
    NotFound,
    /// Access was denied.
    Denied,
    /// Trying again later may work.
    Retry,
    /// The server's disk or kernel is at fault.
    Internal,
}

impl ImageError {
    /// What the caller should do.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::InvalidReference(_)
            | Self::WrongPlatform { .. }
            | Self::Corrupt { .. }
            | Self::TooLarge { .. }
            | Self::UnsafeEntry { .. }
            | Self::Unsupported { .. }
            | Self::UnknownUser { .. } => ErrorClass::User,
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::Unauthorized { .. } => ErrorClass::Denied,
            Self::Unreachable { .. } => ErrorClass::Retry,
            Self::Storage { .. } => ErrorClass::Internal,
        }
    }

    pub(crate) fn storage(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Storage {
            what: what.into(),
            why: why.to_string(),
        }
    }

    pub(crate) fn unsupported(image: impl std::fmt::Display, why: impl Into<String>) -> Self {
        Self::Unsupported {
            image: image.to_string(),
            why: why.into(),
        }
    }

    pub(crate) fn corrupt(digest: &Digest, why: impl Into<String>) -> Self {
        Self::Corrupt {
            digest: digest.clone(),
            why: why.into(),
        }
    }
}

/// Turns I/O results into storage errors that say what was being done.
pub(crate) trait IoContext<T> {
    fn doing(self, what: &str, path: &Path) -> Result<T, ImageError>;
}

impl<T, E: std::fmt::Display> IoContext<T> for Result<T, E> {
    fn doing(self, what: &str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|e| ImageError::storage(format!("{what} {}", path.display()), e))
    }
}
