//! Two revisions of hello share the traffic, and the answers are counted.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::deploy::Deployer;
use super::platform::Platform;
use crate::client::{Target, http};
use crate::ui;

const TAG: &str = "green";
const MESSAGE: &str = "green";
const REQUESTS: u32 = 400;
/// An even split of 400 stays within this but once in a billion times.
const EVEN: std::ops::RangeInclusive<u32> = 140..=260;

/// How many answers came from which revision.
pub(crate) type Answers = BTreeMap<String, u32>;

/// Deploys a second revision without traffic, calls it by its tag, gives it half, and counts.
pub(crate) async fn show(platform: &Platform, deployer: &Deployer) -> Result<Answers> {
    let target = Target::of_url(&platform.service("hello").await?.url, platform.addr);
    let (blue, _) = about(&target).await?;

    deployer
        .deploy_tagged(platform, "hello", TAG, MESSAGE)
        .await?;
    let tagged = Target {
        addr: target.addr,
        host: format!("{TAG}---{}", target.host),
    };
    let (green, message) = about(&tagged)
        .await
        .context("calling the new revision by its tag")?;
    ensure!(
        green != blue && message == MESSAGE,
        "under the tag {TAG} answered {green} with {message:?}"
    );
    ensure!(
        about(&target).await?.0 == blue,
        "--no-traffic sent traffic to the new revision"
    );
    ui::step(&format!(
        "{green} is reached by its tag only, everything else goes to {blue}"
    ));

    deployer
        .split(platform, "hello", &[(&blue, 50), (&green, 50)])
        .await?;
    let mut answers = Answers::new();
    for _ in 0..REQUESTS {
        *answers.entry(about(&target).await?.0).or_default() += 1;
    }
    for (revision, count) in &answers {
        ui::step(&format!("{count:4} answers from {revision}"));
    }
    ensure!(
        answers.len() == 2 && answers.values().all(|count| EVEN.contains(count)),
        "this is no even split"
    );
    Ok(answers)
}

/// The revision that answers, and its message.
async fn about(target: &Target) -> Result<(String, String)> {
    let reply = http::get(target, "/info").await?;
    ensure!(
        reply.status == 200,
        "/info answered {}: {}",
        reply.status,
        reply.start()
    );
    let info: serde_json::Value = serde_json::from_slice(&reply.body)?;
    let text = |key: &str| {
        info[key]
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("/info has no {key}"))
    };
    Ok((text("revision")?, text("message")?))
}
