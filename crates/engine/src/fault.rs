//! The sandbox's and the image room's faults, in the words of an engine.

use jiff::Timestamp;
use lauf_image::{ErrorClass, ImageError};
use lauf_sandbox::{ExitStatus, Exited, FailReason};

use crate::{Exit, ExitReason, InstanceSpec, StartError};

/// Why an image cannot be used.
pub(crate) fn image(error: &ImageError) -> StartError {
    match error.class() {
        ErrorClass::Internal => StartError::Host(error.to_string()),
        _ => StartError::Image(error.to_string()),
    }
}

/// Why the keeper did not start a container.
pub(crate) fn start(error: &lauf_sandbox::StartError, spec: &InstanceSpec) -> StartError {
    let lauf_sandbox::StartError::Failed { reason, text } = error else {
        return StartError::Host(error.to_string());
    };
    match reason {
        FailReason::CommandNotFound
        | FailReason::NotExecutable
        | FailReason::ArgumentsTooLong
        | FailReason::BadUser
        | FailReason::BadCwd
        | FailReason::InvalidSpec => StartError::Command(format!(
            "The container cannot be started from the image '{}': {text}.",
            spec.container.image
        )),
        FailReason::NoRoom => StartError::NoRoom(text.clone()),
        FailReason::Mount
        | FailReason::IdInUse
        | FailReason::Busy
        | FailReason::TimedOut
        | FailReason::Host => StartError::Host(text.clone()),
    }
}

/// Whether a start was refused because the keeper knows the instance already.
pub(crate) fn is_there(error: &lauf_sandbox::StartError) -> bool {
    let reason = match error {
        lauf_sandbox::StartError::Failed { reason, .. } => Some(*reason),
        lauf_sandbox::StartError::Keeper(_) => None,
    };
    reason == Some(FailReason::IdInUse)
}

/// The exit of an instance of which nothing is known but that it is gone.
pub(crate) fn unseen(at: Timestamp) -> Exit {
    Exit {
        code: None,
        signal: None,
        reason: ExitReason::Lost,
        at,
    }
}

/// How an instance ended, from what the keeper saw.
pub(crate) fn exit(exited: &Exited, at: Timestamp) -> Exit {
    let (code, signal) = match exited.status {
        ExitStatus::Code(code) => (Some(code), None),
        ExitStatus::Signal { signal, .. } => (None, Some(signal)),
    };
    // A worker process may be killed for want of memory and the app live on; if the app then ends
    // well, memory was not what ended it.
    let out_of_memory = exited.oom && code != Some(0);
    let reason = if out_of_memory {
        ExitReason::OutOfMemory
    } else {
        ExitReason::Own
    };
    Exit {
        code,
        signal,
        reason,
        at,
    }
}

/// An instance that ended before it was ready.
pub(crate) fn ended(exit: &Exit, spec: &InstanceSpec) -> StartError {
    if exit.reason == ExitReason::OutOfMemory {
        return StartError::OutOfMemory {
            limit_mib: spec.container.memory_bytes >> 20,
        };
    }
    if exit.reason == ExitReason::Lost {
        return StartError::Host("the keeper of the instances was restarted".to_owned());
    }
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    };
    StartError::Ended { how }
}
