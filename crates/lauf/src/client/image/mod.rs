//! `lauf image`: images without Docker.

mod list;
mod pack;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use lauf_image::{Credentials, Reference, RegistryClient};

use super::http::Api;
use super::output::Out;

/// The commands about images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Make an image of a folder and put it into the server's registry
    Pack(Box<pack::PackArgs>),
    /// Put an image file (OCI layout or `docker save`) into the server's registry
    Import(pack::ImportArgs),
    /// List the images in the server's registry
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Delete a tag or an image from the server's registry
    #[command(visible_alias = "rm")]
    Delete(list::DeleteArgs),
}

/// Runs `lauf image`.
pub(crate) async fn run(api: &Api, out: &Out, command: ImageCommand) -> Result<()> {
    match command {
        ImageCommand::Pack(args) => pack::pack(api, out, *args).await,
        ImageCommand::Import(args) => pack::import(api, out, &args).await,
        ImageCommand::List(args) => list::list(api, out, &args).await,
        ImageCommand::Delete(args) => list::delete(api, out, &args).await,
    }
}

/// The server's registry.
fn registry(api: &Api) -> Result<RegistryClient> {
    let credentials = api
        .target()
        .token
        .clone()
        .map(|password| Credentials::Basic {
            username: "lauf".to_owned(),
            password,
        });
    RegistryClient::new(api.server().as_str(), credentials).context("setting up the client")
}

fn reference(text: &str) -> Result<Reference> {
    Ok(text.parse()?)
}
