//! A worker pool pulls texts with Google's client and counts their words.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::inside;
use super::pubsub::{Messages, PubSub};
use crate::demo::platform::Platform;

const TEXTS: usize = 2_000;
const WORDS: [&str; 7] = ["run", "lauf", "cloud", "zero", "pull", "grün", "worker"];

/// Publishes the texts, and checks the count of each.
pub(super) async fn show(platform: &Platform) -> Result<String> {
    let pubsub = PubSub::at(platform.pubsub);
    let texts = pubsub.topic("texts").await?;
    let work = pubsub.subscription("texts", &texts, json!({})).await?;
    let results = pubsub.topic("counts").await?;
    let counts = pubsub.subscription("counts", &results, json!({})).await?;
    platform
        .lauf(&[
            "worker-pools",
            "deploy",
            "puller",
            "--image",
            "puller",
            "--instances",
            "2",
            "--env",
            &format!("PUBSUB_EMULATOR_HOST={}", inside(platform.pubsub)),
            "--env",
            &format!("SUBSCRIPTION={work}"),
            "--env",
            &format!("RESULTS={results}"),
        ])
        .await?;
    let (messages, expected): (Messages, BTreeMap<String, Value>) = (0..TEXTS)
        .map(|number| {
            let (text, count) = text(number);
            let key = format!("{number:04}");
            ((key.clone(), text.into_bytes()), (key, count))
        })
        .unzip();
    pubsub.publish(&texts, "id", &messages).await?;
    let found = pubsub.collect(&counts, "id", TEXTS).await;
    platform
        .lauf(&["worker-pools", "delete", "puller", "--yes"])
        .await?;
    let found = found?;
    for (number, count) in &expected {
        let data = found
            .get(number)
            .with_context(|| format!("text {number} was not counted"))?;
        let seen: Value = serde_json::from_slice(data)?;
        ensure!(seen == *count, "text {number} has {count}, and {seen} came");
    }
    Ok(format!("2 workers counted the words of {TEXTS} texts"))
}

/// A text, and how often each word is in it.
fn text(number: usize) -> (String, Value) {
    let mut counts = BTreeMap::new();
    let words: Vec<&str> = (0..=number % 23)
        .map(|place| WORDS[(number + place * place) % WORDS.len()])
        .collect();
    for word in &words {
        *counts.entry(*word).or_insert(0) += 1;
    }
    (words.join(", "), json!(counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_with_its_counts() {
        assert_eq!(
            text(2),
            (
                "cloud, zero, worker".to_owned(),
                json!({"cloud": 1, "zero": 1, "worker": 1})
            )
        );
    }
}
