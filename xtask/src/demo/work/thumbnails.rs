//! A burst of images is pushed to a service that has no instance, and each gets its thumbnail.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use serde_json::json;
use tokio::process::Command;

use super::google::Google;
use super::pubsub::{Messages, PubSub};
use super::{PLACE, inside};
use crate::demo::live;
use crate::demo::platform::{Platform, output};
use crate::ui;

/// Images of each shape.
const EACH: usize = 500;
/// Name, size, and size of the thumbnail.
const SHAPES: [(&str, &str, (u16, u16)); 2] = [
    ("landscape", "320x240", (64, 48)),
    ("portrait", "240x320", (48, 64)),
];
const SERVICE: &str = "thumbnails";
const PUSHER: &str = "pusher@demo.iam.gserviceaccount.com";
const FRAME: Duration = Duration::from_millis(200);

/// Sends the burst, and checks every thumbnail, and that instances came and went.
pub(super) async fn show(platform: &Platform) -> Result<String> {
    let pubsub = PubSub::at(platform.pubsub);
    let results = pubsub.topic("thumbnails").await?;
    let done = pubsub
        .subscription("thumbnails", &results, json!({}))
        .await?;
    deploy(platform, &results).await?;
    let url = platform.service(SERVICE).await?.url;
    let images = pubsub.topic("images").await?;
    let push = json!({
        "pushConfig": {"pushEndpoint": url, "oidcToken": {"serviceAccountEmail": PUSHER}},
        "ackDeadlineSeconds": 60,
    });
    pubsub.subscription("to-thumbnails", &images, push).await?;
    let burst = burst().await?;
    live::until_idle(platform, SERVICE).await?;

    pubsub.publish(&images, "id", &burst).await?;
    let mut peak = 0;
    let found = {
        let collecting = pubsub.collect(&done, "id", burst.len());
        tokio::pin!(collecting);
        loop {
            tokio::select! {
                found = &mut collecting => break found?,
                () = tokio::time::sleep(FRAME) => {
                    peak = peak.max(platform.service(SERVICE).await?.instances);
                }
            }
        }
    };
    for (name, _, wanted) in SHAPES {
        for number in 1..=EACH {
            let key = key(name, number);
            let data = found
                .get(&key)
                .with_context(|| format!("image {key} got no thumbnail"))?;
            let size =
                jpeg_size(data).with_context(|| format!("the thumbnail of {key} is no JPEG"))?;
            ensure!(
                size == wanted,
                "the thumbnail of {key} is {size:?}, not {wanted:?}"
            );
        }
    }
    ensure!(
        peak > 1,
        "{} images were left to {peak} instances",
        burst.len()
    );
    let fall = live::until_idle(platform, SERVICE).await?;
    Ok(format!(
        "{} images, a thumbnail each; 0 to {peak} instances, back to 0 in {}",
        burst.len(),
        ui::time(fall)
    ))
}

/// A service that none but the pusher may call.
async fn deploy(platform: &Platform, results: &str) -> Result<()> {
    platform
        .lauf(&[
            "deploy",
            SERVICE,
            "--image",
            SERVICE,
            "--no-allow-unauthenticated",
            "--concurrency",
            "4",
            "--max-instances",
            "10",
            "--env",
            &format!("PUBSUB_EMULATOR_HOST={}", inside(platform.pubsub)),
            "--env",
            &format!("RESULTS={results}"),
        ])
        .await?;
    let binding =
        json!({"role": "roles/run.invoker", "members": [format!("serviceAccount:{PUSHER}")]});
    let policy = json!({"policy": {"bindings": [binding]}});
    let name = format!("{PLACE}/services/{SERVICE}:setIamPolicy");
    let run = Google::run(platform).await?;
    run.call(Method::POST, &name, &policy).await?;
    Ok(())
}

/// Frames of a test picture, no two of a shape the same.
async fn burst() -> Result<Messages> {
    let folder = tempfile::tempdir()?;
    let mut images = Messages::new();
    for (name, size, _) in SHAPES {
        output(
            Command::new("ffmpeg")
                .args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i"])
                .arg(format!("testsrc2=size={size}:rate=25"))
                .args(["-frames:v", &EACH.to_string(), "-q:v", "8"])
                .arg(folder.path().join(format!("{name}-%03d.jpg"))),
        )
        .await?;
        for number in 1..=EACH {
            let key = key(name, number);
            let data = std::fs::read(folder.path().join(format!("{key}.jpg")))?;
            images.insert(key, data);
        }
    }
    Ok(images)
}

fn key(name: &str, number: usize) -> String {
    format!("{name}-{number:03}")
}

/// Width and height in the frame header of a JPEG file (ITU-T T.81, B.2.2); `None` when it is none.
fn jpeg_size(data: &[u8]) -> Option<(u16, u16)> {
    let mut rest = data.strip_prefix(&[0xff, 0xd8])?;
    loop {
        let [0xff, marker, high, low, segment @ ..] = rest else {
            return None;
        };
        let number = |bytes: &[u8]| Some(u16::from_be_bytes(bytes.try_into().ok()?));
        match marker {
            // Baseline and progressive frames.
            0xc0..=0xc2 => return Some((number(segment.get(3..5)?)?, number(segment.get(1..3)?)?)),
            // The picture itself would come after its frame header.
            0xd8..=0xda => return None,
            _ => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                rest = rest.get(2 + length..)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_jpeg_is_in_its_frame_header() {
        let file = [
            &[0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2][..],
            &[0xff, 0xc0, 0, 11, 8, 0, 48, 0, 64, 1, 1, 0x11, 0],
        ]
        .concat();
        assert_eq!(jpeg_size(&file), Some((64, 48)));
        assert_eq!(jpeg_size(&file[..12]), None);
        assert_eq!(jpeg_size(b"\x89PNG\r\n"), None);
    }
}
