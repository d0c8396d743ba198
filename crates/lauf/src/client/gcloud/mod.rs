//! `lauf gcloud`: pointing Google's gcloud at this server, and finding out why it does not work.
//!
//! gcloud gets a configuration that sends everything through the server's forward proxy, which
//! answers for `*.googleapis.com` with a certificate of its own authority. Nothing outside gcloud's
//! own folder is touched, and nothing in the system's certificate store.

mod check;
mod env;
mod folder;
mod setup;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use super::Global;
use super::connect::Target;
use super::http::{Api, Face};
use super::output::Out;

/// The commands about gcloud.
#[derive(Debug, Subcommand)]
pub(crate) enum GcloudCommand {
    /// Write a gcloud configuration for this server and activate it, or take it away
    Setup(setup::SetupArgs),
    /// Print the environment that points gcloud at this server, for `eval`
    Env(env::EnvArgs),
    /// Find out whether gcloud can reach this server, step by step
    Check(check::CheckArgs),
}

/// Runs `lauf gcloud`.
pub(super) async fn run(global: &Global, out: &Out, command: GcloudCommand) -> Result<()> {
    match command {
        GcloudCommand::Setup(args) => setup::run(global, out, &args).await,
        GcloudCommand::Env(args) => env::run(global, out, &args).await,
        GcloudCommand::Check(args) => check::run(global, out, &args).await,
    }
}

/// What gcloud must know of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    host: String,
    port: u16,
    project: String,
    region: String,
    /// The domain of services, which is part of the account's display name.
    domain: String,
    token: String,
    ca_file: PathBuf,
}

/// Asks options, data folder and server.
async fn facts(global: &Global) -> Result<(Facts, Api)> {
    let mut target = Target::find(global)?;
    if target.server.scheme() != "http" {
        bail!(
            "gcloud reaches Lauf through an HTTP proxy, so --server must be http://HOST:PORT and \
             not {}.",
            target.server
        );
    }
    let Some(token) = target.token.clone() else {
        bail!("{}", target.no_token.unwrap_or_default());
    };
    let api = Api::connect(target.clone()).await?;
    let info = api.get(Face::Native, &["lauf", "v1", "info"], &[]).await?;
    if target.ca_file.is_none() {
        target.ca_file = info["caFile"].as_str().map(PathBuf::from);
    }
    let Some(ca_file) = target.ca_file else {
        bail!(
            "The server has no certificate authority, so gcloud cannot talk to it. Restart `lauf \
             up` with its default settings."
        );
    };
    let host = target.server.host_str().unwrap_or_default();
    Ok((
        Facts {
            host: host.to_owned(),
            port: target.server.port_or_known_default().unwrap_or(80),
            project: api.project.clone(),
            region: api.region.clone(),
            domain: info["domain"].as_str().unwrap_or_default().to_owned(),
            token,
            ca_file,
        },
        api,
    ))
}

impl Facts {
    /// The authority's certificate.
    fn ca(&self) -> Result<String> {
        fs::read_to_string(&self.ca_file).with_context(|| {
            format!(
                "reading the certificate authority {} (with sudo you may)",
                self.ca_file.display()
            )
        })
    }
}
