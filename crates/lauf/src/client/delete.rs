//! `lauf delete`: a service and all its revisions.

use ::http::Method;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use super::deploy::progress::Steps;
use super::http::{Api, Face};
use super::output::Out;
use super::service::{self, text};

/// Arguments of `lauf delete`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lauf delete hello --yes")]
pub(crate) struct DeleteArgs {
    /// The service's name
    name: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Do not wait until it is gone
    #[arg(long = "async")]
    no_wait: bool,
}

/// Runs `lauf delete`.
pub(crate) async fn run(api: &Api, out: &Out, args: &DeleteArgs) -> Result<()> {
    const TITLE: &str = "Deleting the service";
    let name = &args.name;
    let service = service::read(api, name).await?;
    if !(args.yes || out.quiet) {
        if !out.can_ask() {
            bail!("Deleting '{name}' needs a yes, and nobody is there to ask: add --yes.");
        }
        let url = text(&service, "/status/url");
        if !out.ask(&format!(
            "Delete service '{name}' ({url}) and all its revisions?"
        ))? {
            bail!("Nothing was deleted.");
        }
    }
    let path = service::path(api, "services", &[name]);
    let gone: Value = api
        .call(Method::DELETE, Face::Run, &path, &[], None)
        .await?;
    if !args.no_wait {
        let mut steps = Steps::new(out);
        let uid = text(&service, "/metadata/uid");
        for round in 1_u32.. {
            match service::find(api, name).await? {
                // A service of the same name made meanwhile is another one.
                Some(there) if text(&there, "/metadata/uid") == uid => {
                    steps.working("delete", TITLE, "");
                }
                _ => break,
            }
            tokio::time::sleep(service::pause(round)).await;
        }
        steps.done("delete", TITLE);
        steps.stop();
    }
    if !out.structured(&gone)? {
        out.note(&format!("Service '{name}' is deleted."));
    }
    Ok(())
}
