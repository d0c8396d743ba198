//! The store's errors, in the words of the API.

use lauf_model::{Code, Status};
use lauf_store::{BodyError, ReadError, ResourceError, WriteError};

/// A failed read of a resource, as the client sees it.
pub(crate) fn find(error: &ResourceError) -> Status {
    match error {
        ResourceError::Read(error) => read(error),
        ResourceError::Body(error) => body(error),
    }
}

/// A failed read, as the client sees it.
pub(crate) fn read(error: &ReadError) -> Status {
    tracing::error!(%error, "the store cannot be read");
    Status::new(Code::Unavailable, "The store cannot be read. Try again.")
}

/// A resource that was read and makes no sense, as the client sees it.
pub(crate) fn body(error: &BodyError) -> Status {
    tracing::error!("{error}");
    Status::new(
        Code::Internal,
        format!("{} is stored in a form that cannot be read.", error.key),
    )
}

/// A failed write, as the client sees it, where it is not a conflict that has words of its own.
pub(crate) fn write(error: &WriteError) -> Status {
    match error {
        WriteError::Conflict { key, .. } => Status::new(
            Code::Aborted,
            format!("{key} was changed at the same time. Read it again, then try again."),
        ),
        WriteError::QueueFull | WriteError::Closed => Status::new(
            Code::Unavailable,
            "Too much waits to be written. Try again in a moment.",
        ),
        WriteError::Invalid(why) => Status::new(
            Code::InvalidArgument,
            format!("The object cannot be stored: {why}."),
        ),
        WriteError::Io(_) => {
            tracing::error!(%error, "the store cannot be written");
            Status::new(Code::Unavailable, "The store cannot be written. Try again.")
        }
    }
}
