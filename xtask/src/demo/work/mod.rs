//! Asynchronous work, each sample in a file of its own: set to work through Lauf's own services, and every result checked.

mod database;
mod etl;
mod google;
mod pubsub;
mod puller;
mod thumbnails;
mod transcode;

use anyhow::{Result, bail};

use super::platform::Platform;
use crate::samples::Sample;
use crate::tools;

/// The project that the demo's resources are in.
const PROJECT: &str = "projects/demo";
/// The place of its jobs and services.
const PLACE: &str = "projects/demo/locations/us-central1";

/// What keeps a sample from being shown here, if something does.
pub(super) fn lacks(sample: &Sample) -> Option<String> {
    let missing = |programs: &[&str]| {
        programs
            .iter()
            .find(|program| tools::which(program).is_none())
            .map(|program| format!("{program} is not installed (Debian package ffmpeg)"))
    };
    match sample.name {
        "transcode" | "thumbnails" => missing(&["ffmpeg", "ffprobe"]),
        "etl" if database::programs().is_none() => Some(
            "there is no initdb in /usr/lib/postgresql or no psql (Debian package postgresql)"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Sets a sample to work; its image is packed. Returns what was seen, for a person.
///
/// # Errors
/// What could not be set up, or a result that is wrong.
pub(super) async fn show(platform: &Platform, sample: &Sample) -> Result<String> {
    match sample.name {
        "transcode" => transcode::show(platform).await,
        "etl" => etl::show(platform).await,
        "puller" => puller::show(platform).await,
        "thumbnails" => thumbnails::show(platform).await,
        other => bail!("the demo does not know how to show the work of {other}"),
    }
}

/// An address of this machine as instances have to call it.
fn inside(address: std::net::SocketAddr) -> String {
    format!("host.lauf.internal:{}", address.port())
}
