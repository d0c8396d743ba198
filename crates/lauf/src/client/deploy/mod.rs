//! `lauf deploy`: create a service, or change what is asked and nothing else.

pub(crate) mod args;
pub(crate) mod change;
pub(crate) mod progress;

use ::http::{Method, StatusCode};
use anyhow::{Result, bail};
use serde_json::Value;

use super::http::{Api, Face, refused_with};
use super::output::{Out, Tint};
use super::service::{self, text};
use super::{logs, traffic};
use progress::Failed;

pub(crate) use args::{Change, DeployArgs};
pub(crate) use progress::Steps;

/// Log lines shown of a revision that failed.
const LAST_LINES: usize = 20;

/// Runs `lauf deploy`.
pub(crate) async fn run(api: &Api, out: &Out, args: &DeployArgs) -> Result<()> {
    let change = args.change()?;
    let mut steps = Steps::new(out);
    out.note(&format!(
        "Deploying {} to project {} in {}",
        out.tint_err(&args.name, Tint::Bold),
        api.project,
        api.region
    ));
    let done = deploy(api, args, &change, &mut steps).await;
    steps.stop();
    match done {
        Ok((service, new)) => success(out, args, &service, new),
        Err(error) => {
            if let Some(failed) = error.downcast_ref::<Failed>() {
                last_words(api, out, &failed.service).await;
            }
            Err(error)
        }
    }
}

/// Writes the service, sets who may call it, and waits. Says whether the service is new.
async fn deploy(
    api: &Api,
    args: &DeployArgs,
    change: &Change,
    steps: &mut Steps,
) -> Result<(Value, bool)> {
    let name = &args.name;
    let nonce = nonce()?;
    let (mut sent, new) = match service::find(api, name).await? {
        Some(_) => {
            let changed = service::update(api, name, |service| {
                change::apply(service, name, change, &nonce)
            });
            (changed.await?, false)
        }
        None => {
            let wanted = change::created(name, &api.project, change, &nonce)?;
            let path = service::path(api, "services", &[]);
            let made = api.call(Method::POST, Face::Run, &path, &[], Some(&wanted));
            match made.await {
                Ok(made) => (made, true),
                Err(error) if refused_with(&error, StatusCode::CONFLICT) => {
                    bail!("'{name}' was created by somebody else just now ({error}). Deploy again.")
                }
                Err(error) => return Err(error),
            }
        }
    };
    if let Some(open) = args.open() {
        const TITLE: &str = "Setting who may call it";
        steps.working("iam", TITLE, "");
        service::set_open(api, name, open).await?;
        steps.done("iam", TITLE);
    }
    if !args.no_wait {
        sent = progress::deployed(api, name, &sent, steps).await?;
    }
    Ok((sent, new))
}

fn success(out: &Out, args: &DeployArgs, service: &Value, new: bool) -> Result<()> {
    let name = &args.name;
    if !args.no_wait {
        let revision = text(service, "/status/latestReadyRevisionName");
        let percent: u64 = traffic_of(service, revision);
        out.note(&format!(
            "Service {} has revision {}, which gets {percent} percent of the traffic.",
            out.tint_err(name, Tint::Bold),
            out.tint_err(revision, Tint::Bold),
        ));
        if new && args.open().is_none() {
            out.note(&format!(
                "Callers need a token (`lauf token`). To let everybody in: lauf deploy {name} \
                 --allow-unauthenticated"
            ));
        }
        if let Some(url) = args
            .tag
            .as_deref()
            .and_then(|tag| change::tag_url(service, tag))
        {
            out.note(&format!("The new revision alone: {url}"));
        }
    }
    if out.structured(service)? {
        return Ok(());
    }
    match text(service, "/status/url") {
        "" => {
            out.note(&format!(
                "The server works on it; `lauf describe {name}` tells how far it is."
            ));
            Ok(())
        }
        url => out.line(url),
    }
}

fn traffic_of(service: &Value, revision: &str) -> u64 {
    let targets = service["status"]["traffic"].as_array();
    let targets = targets.into_iter().flatten();
    targets
        .filter(|t| t["revisionName"] == revision)
        .filter_map(|t| t["percent"].as_u64())
        .sum()
}

/// Shows what the failed revision wrote last, which is where the reason often is.
async fn last_words(api: &Api, out: &Out, service: &Value) {
    let revision = text(service, "/status/latestCreatedRevisionName");
    if revision.is_empty() {
        return;
    }
    let name = text(service, "/metadata/name");
    let filter = logs::filter(api, name, Some(revision), None);
    // The error itself matters more than a log that cannot be read.
    let Ok(entries) = logs::last(api, &filter, LAST_LINES).await else {
        return;
    };
    if !entries.is_empty() {
        out.warn(&format!("\nThe last lines of revision {revision}:"));
        for entry in &entries {
            out.warn(&format!("  {}", logs::line(entry, false)));
        }
    }
    let ready = text(service, "/status/latestReadyRevisionName");
    if !ready.is_empty() && ready != revision && !traffic::rows(service).is_empty() {
        out.warn(&format!("Revision {ready} goes on serving."));
    }
    out.warn("");
}

/// Ten random letters.
pub(crate) fn nonce() -> Result<String> {
    let mut bytes = [0_u8; 10];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|b| char::from(b'a' + b % 26)).collect())
}
