//! Why a controller's turn could not be finished.

use lauf_store::{BodyError, ReadError, ResourceError, WriteError};

/// What goes wrong between the controllers and the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<ResourceError> for TurnError {
    fn from(error: ResourceError) -> Self {
        match error {
            ResourceError::Read(error) => Self::Read(error),
            ResourceError::Body(error) => Self::Body(error),
        }
    }
}
