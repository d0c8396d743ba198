//! A film is transcoded by the tasks of one job, and put together again.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use super::inside;
use super::pubsub::PubSub;
use crate::demo::platform::{Platform, output};

/// Both divide the film evenly.
const TASKS: usize = 6;
/// What the image's film has.
const FRAMES: u64 = 600;
const RATE: f64 = 25.0;
/// How much longer or shorter the sound may make a file: three packets of AAC at 44.1 kHz.
const SOUND: f64 = 0.07;

/// Runs the job, and checks each part and the whole.
pub(super) async fn show(platform: &Platform) -> Result<String> {
    let pubsub = PubSub::at(platform.pubsub);
    let topic = pubsub.topic("parts").await?;
    let parts = pubsub.subscription("parts", &topic, json!({})).await?;
    let tasks = TASKS.to_string();
    platform
        .lauf(&[
            "jobs",
            "deploy",
            "transcode",
            "--image",
            "transcode",
            "--tasks",
            &tasks,
            "--env",
            &format!("PUBSUB_EMULATOR_HOST={}", inside(platform.pubsub)),
            "--env",
            &format!("TOPIC={topic}"),
        ])
        .await?;
    platform.lauf(&["jobs", "run", "transcode"]).await?;

    let found = pubsub.collect(&parts, "part", TASKS).await?;
    let folder = tempfile::tempdir()?;
    let mut list = String::new();
    for index in 0..TASKS {
        let data = found
            .get(&index.to_string())
            .with_context(|| format!("there is no part {index}"))?;
        let name = format!("{index}.mp4");
        std::fs::write(folder.path().join(&name), data)?;
        list.push_str(&format!("file '{name}'\n"));
        probe(&folder.path().join(&name), FRAMES / TASKS as u64)
            .await
            .with_context(|| format!("part {index}"))?;
    }
    std::fs::write(folder.path().join("parts.txt"), list)?;
    let whole = folder.path().join("whole.mp4");
    output(
        Command::new("ffmpeg")
            .args(["-nostdin", "-loglevel", "error", "-f", "concat", "-i"])
            .arg(folder.path().join("parts.txt"))
            .args(["-c", "copy"])
            .arg(&whole),
    )
    .await?;
    let seconds = probe(&whole, FRAMES).await.context("the parts joined")?;
    Ok(format!(
        "{TASKS} tasks, joined to {FRAMES} frames of H.264 in {seconds:.1} s"
    ))
}

/// Checks codec, size, frames and duration of a file. Returns its seconds.
async fn probe(file: &Path, frames: u64) -> Result<f64> {
    let said = output(
        Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-count_frames",
                "-show_streams",
                "-show_format",
            ])
            .args(["-of", "json"])
            .arg(file),
    )
    .await?;
    judge(&serde_json::from_str(&said)?, frames)
}

fn judge(found: &Value, frames: u64) -> Result<f64> {
    let stream = |kind: &str| {
        let mut streams = found["streams"].as_array().into_iter().flatten();
        streams
            .find(|stream| stream["codec_type"] == kind)
            .with_context(|| format!("there is no {kind} in {found}"))
    };
    let (picture, sound) = (stream("video")?, stream("audio")?);
    let what = (
        &picture["codec_name"],
        &sound["codec_name"],
        &picture["width"],
        &picture["height"],
        &picture["nb_read_frames"],
    );
    let wanted = (
        &json!("h264"),
        &json!("aac"),
        &json!(320),
        &json!(180),
        &json!(frames.to_string()),
    );
    ensure!(what == wanted, "ffprobe saw {what:?}, not {wanted:?}");
    let seconds: f64 = found["format"]["duration"]
        .as_str()
        .context("it has no duration")?
        .parse()?;
    let expected = frames as f64 / RATE;
    // Each part that was joined brings its own sound, which ends on a whole packet.
    let most = SOUND * TASKS as f64;
    ensure!(
        (seconds - expected).abs() < most,
        "it lasts {seconds} s, not {expected} s"
    );
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_film_is_right_only_with_every_frame() {
        let film = json!({
            "streams": [
                {"codec_type": "video", "codec_name": "h264", "width": 320, "height": 180, "nb_read_frames": "100"},
                {"codec_type": "audio", "codec_name": "aac"},
            ],
            "format": {"duration": "4.02"},
        });
        assert!(judge(&film, 100).is_ok());
        assert!(judge(&film, 99).is_err());
        let mut long = film.clone();
        long["format"]["duration"] = "5.0".into();
        assert!(judge(&long, 100).is_err());
        let mut other = film;
        other["streams"][0]["codec_name"] = "mpeg2video".into();
        assert!(judge(&other, 100).is_err());
    }
}
