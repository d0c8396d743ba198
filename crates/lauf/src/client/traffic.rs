//! `lauf traffic`: which revisions get how much.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::deploy::progress;
use super::http::Api;
use super::output::{Cell, Out, Tint};
use super::service::{self, text};

const EXAMPLES: &str = "\
Examples:
  lauf traffic hello                                 show it
  lauf traffic hello --to hello-00001-abc=90,LATEST=10
  lauf traffic hello --to LATEST=100                 all to the newest, from now on
  lauf traffic hello --tag green=hello-00002-xyz     an address for one revision";

/// Arguments of `lauf traffic`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TrafficArgs {
    /// The service's name
    name: String,
    /// Shares in percent, 100 together; LATEST is the newest ready revision
    #[arg(long, value_name = "REVISION=PERCENT,...", value_delimiter = ',')]
    to: Vec<String>,
    /// Give a revision a tag, and so an address of its own
    #[arg(long, value_name = "TAG=REVISION,...", value_delimiter = ',')]
    tag: Vec<String>,
    /// Take a tag away
    #[arg(long, value_name = "TAG,...", value_delimiter = ',')]
    remove_tag: Vec<String>,
    /// Take all tags away
    #[arg(long)]
    clear_tags: bool,
    /// Do not wait until the change is in effect
    #[arg(long = "async")]
    no_wait: bool,
}

/// A wanted change of traffic, read and checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Wanted {
    /// `None` in place of a revision is the latest.
    shares: Vec<(Option<String>, u64)>,
    tags: Vec<(String, Option<String>)>,
    remove: Vec<String>,
    clear: bool,
}

/// Runs `lauf traffic`.
pub(crate) async fn run(api: &Api, out: &Out, args: &TrafficArgs) -> Result<()> {
    let wanted = wanted(args)?;
    let service = if wanted == Wanted::default() {
        service::read(api, &args.name).await?
    } else {
        let changed = service::update(api, &args.name, |service| {
            let traffic = changed(&service["spec"]["traffic"], &wanted)?;
            service["spec"]["traffic"] = traffic;
            Ok(())
        })
        .await?;
        if args.no_wait {
            changed
        } else {
            progress::routed(api, out, &args.name, &changed).await?
        }
    };
    if out.structured(&service["status"]["traffic"])? {
        return Ok(());
    }
    let rows = rows(&service);
    out.table(&["TRAFFIC", "REVISION", "TAG", "URL"], &rows)
}

/// The rows of the traffic table: where requests go now.
pub(crate) fn rows(service: &Value) -> Vec<Vec<Cell>> {
    let url = text(service, "/status/url");
    let targets = service["status"]["traffic"].as_array();
    targets
        .into_iter()
        .flatten()
        .map(|target| {
            let percent = target["percent"].as_u64().unwrap_or(0);
            let mut revision = text(target, "/revisionName").to_owned();
            if target["latestRevision"] == true {
                revision.push_str(" (latest)");
            }
            let own = text(target, "/url");
            vec![
                Cell::tinted(
                    format!("{percent}%"),
                    if percent > 0 { Tint::Good } else { Tint::Dim },
                ),
                revision.into(),
                text(target, "/tag").into(),
                if own.is_empty() { url } else { own }.into(),
            ]
        })
        .collect()
}

fn wanted(args: &TrafficArgs) -> Result<Wanted> {
    let mut wanted = Wanted {
        remove: args.remove_tag.clone(),
        clear: args.clear_tags,
        ..Wanted::default()
    };
    for share in &args.to {
        let read = share.rsplit_once('=').and_then(|(revision, percent)| {
            let percent = percent.trim_end_matches('%').parse::<u64>().ok()?;
            (!revision.is_empty() && percent <= 100).then_some((revision, percent))
        });
        let Some((name, percent)) = read else {
            bail!("--to takes REVISION=PERCENT with 0 to 100, not '{share}'.");
        };
        let revision = revision(name);
        if wanted.shares.iter().any(|(other, _)| *other == revision) {
            bail!("--to names {name} twice.");
        }
        wanted.shares.push((revision, percent));
    }
    let sum: u64 = wanted.shares.iter().map(|(_, percent)| percent).sum();
    if !wanted.shares.is_empty() && sum != 100 {
        bail!("The shares of --to make {sum} percent; they must make 100.");
    }
    for tag in &args.tag {
        match tag.split_once('=') {
            Some((tag, name)) if !tag.is_empty() && !name.is_empty() => {
                wanted.tags.push((tag.to_owned(), revision(name)));
            }
            _ => bail!("--tag takes TAG=REVISION, not '{tag}'."),
        }
    }
    Ok(wanted)
}

fn revision(name: &str) -> Option<String> {
    (!name.eq_ignore_ascii_case("latest")).then(|| name.to_owned())
}

/// The traffic after a change: shares first, in the order asked, then tags.
fn changed(old: &Value, wanted: &Wanted) -> Result<Value> {
    let mut shares = Vec::new();
    let mut tags: BTreeMap<String, Option<String>> = BTreeMap::new();
    for target in old.as_array().into_iter().flatten() {
        let revision = match text(target, "/revisionName") {
            "" => None,
            name => Some(name.to_owned()),
        };
        if let Some(percent) = target["percent"].as_u64().filter(|p| *p > 0) {
            shares.push((revision.clone(), percent));
        }
        if let Some(tag) = target["tag"].as_str().filter(|t| !t.is_empty()) {
            tags.insert(tag.to_owned(), revision);
        }
    }
    if !wanted.shares.is_empty() {
        shares.clone_from(&wanted.shares);
        shares.retain(|(_, percent)| *percent > 0);
    }
    if wanted.clear {
        tags.clear();
    }
    for tag in &wanted.remove {
        if tags.remove(tag).is_none() {
            bail!("The service has no tag '{tag}' to take away.");
        }
    }
    tags.extend(wanted.tags.iter().cloned());
    let target = |revision: &Option<String>| match revision {
        Some(name) => json!({"revisionName": name}),
        None => json!({"latestRevision": true}),
    };
    let mut targets = Vec::new();
    for (revision, percent) in &shares {
        let mut target = target(revision);
        target["percent"] = (*percent).into();
        targets.push(target);
    }
    for (tag, revision) in &tags {
        let mut target = target(revision);
        target["tag"] = tag.clone().into();
        targets.push(target);
    }
    Ok(targets.into())
}

/// The traffic with every share of the latest revision given to the one that is ready now, so
/// that a newer one gets nothing.
pub(crate) fn pinned(service: &Value) -> Result<Value> {
    let ready = text(service, "/status/latestReadyRevisionName");
    let mut targets = service["spec"]["traffic"].clone();
    if targets.as_array().is_none_or(Vec::is_empty) {
        targets = json!([{"latestRevision": true, "percent": 100}]);
    }
    for target in targets.as_array_mut().into_iter().flatten() {
        let share = target["percent"].as_u64().unwrap_or(0) > 0;
        if !(share && target["latestRevision"] == true) {
            continue;
        }
        if ready.is_empty() {
            bail!(
                "--no-traffic needs a revision that serves now, and none of this service is \
                 ready yet. Deploy without --no-traffic."
            );
        }
        if let Some(target) = target.as_object_mut() {
            target.remove("latestRevision");
            target.insert("revisionName".to_owned(), ready.into());
        }
    }
    Ok(targets)
}

/// Takes a tag away, and with it the target that only existed for it.
pub(crate) fn remove_tag(targets: &mut Value, tag: &str) {
    let Some(targets) = targets.as_array_mut() else {
        return;
    };
    for target in targets.iter_mut().filter(|t| t["tag"] == tag) {
        if let Some(target) = target.as_object_mut() {
            target.remove("tag");
        }
    }
    targets.retain(|t| t["percent"].as_u64().unwrap_or(0) > 0 || t.get("tag").is_some());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(to: &[&str], tag: &[&str], remove: &[&str]) -> TrafficArgs {
        let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        TrafficArgs {
            to: own(to),
            tag: own(tag),
            remove_tag: own(remove),
            ..TrafficArgs::default()
        }
    }

    #[test]
    fn shares_replace_shares_and_tags_stay() {
        let old = json!([{"latestRevision": true, "percent": 100, "tag": "new"},
            {"revisionName": "a", "tag": "blue"}]);
        let change = |a: TrafficArgs| changed(&old, &wanted(&a).unwrap()).unwrap();
        assert_eq!(
            change(args(&["a=50", "LATEST=50"], &["green=b"], &["blue"])),
            json!([{"revisionName": "a", "percent": 50}, {"latestRevision": true, "percent": 50},
                {"revisionName": "b", "tag": "green"}, {"latestRevision": true, "tag": "new"}])
        );
        assert_eq!(
            change(args(&[], &["new=a"], &[])),
            json!([{"latestRevision": true, "percent": 100}, {"revisionName": "a", "tag": "blue"},
                {"revisionName": "a", "tag": "new"}])
        );
        assert!(changed(&old, &wanted(&args(&[], &[], &["x"])).unwrap()).is_err());
    }

    #[test]
    fn shares_are_checked_before_anything_is_sent() {
        for to in [
            &["a=50"][..],
            &["a"],
            &["a=101"],
            &["a=50", "a=50"],
            &["=100"],
        ] {
            assert!(wanted(&args(to, &[], &[])).is_err(), "{to:?}");
        }
        assert!(wanted(&args(&[], &["x"], &[])).is_err());
    }

    #[test]
    fn pinning_and_removing_tags() {
        let service = json!({"spec": {"traffic": [{"latestRevision": true, "percent": 60},
            {"revisionName": "a", "percent": 40}, {"latestRevision": true, "tag": "new"}]},
            "status": {"latestReadyRevisionName": "b"}});
        let mut targets = pinned(&service).unwrap();
        assert_eq!(
            targets,
            json!([{"revisionName": "b", "percent": 60}, {"revisionName": "a", "percent": 40},
                {"latestRevision": true, "tag": "new"}])
        );
        remove_tag(&mut targets, "new");
        assert_eq!(targets.as_array().unwrap().len(), 2);
    }
}
