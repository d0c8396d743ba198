//! `lauf url` and `lauf open`: where a service is.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::http::Api;
use super::output::Out;
use super::service::{self, text};

/// Arguments of `lauf open`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lauf open hello")]
pub(crate) struct OpenArgs {
    #[command(flatten)]
    which: UrlArgs,
}

/// Arguments of `lauf url`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  curl \"$(lauf url hello)\"")]
pub(crate) struct UrlArgs {
    /// The service's name
    name: String,
    /// The address of this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
}

/// Runs `lauf url`.
pub(crate) async fn url(api: &Api, out: &Out, args: &UrlArgs) -> Result<()> {
    print(out, &find(api, args).await?)
}

/// Runs `lauf open`.
pub(crate) async fn run(api: &Api, out: &Out, args: &OpenArgs) -> Result<()> {
    let url = find(api, &args.which).await?;
    print(out, &url)?;
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    if !(set("DISPLAY") || set("WAYLAND_DISPLAY")) {
        out.note("There is no display here; open the address in a browser.");
        return Ok(());
    }
    let opened = Command::new("xdg-open")
        .arg(&url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !opened.is_ok_and(|status| status.success()) {
        out.note("xdg-open could not open it; open the address in a browser.");
    }
    Ok(())
}

fn print(out: &Out, url: &str) -> Result<()> {
    if out.structured(&json!({ "url": url }))? {
        return Ok(());
    }
    out.line(url)
}

async fn find(api: &Api, args: &UrlArgs) -> Result<String> {
    let service = service::read(api, &args.name).await?;
    let url = match &args.tag {
        None => text(&service, "/status/url"),
        Some(tag) => {
            let targets = service["status"]["traffic"].as_array();
            let target = targets.into_iter().flatten().find(|t| t["tag"] == *tag);
            match target {
                Some(target) => text(target, "/url"),
                None => bail!(
                    "'{}' has no tag '{tag}'. `lauf traffic {0}` shows them.",
                    args.name
                ),
            }
        }
    };
    if url.is_empty() {
        bail!(
            "'{}' has no address yet. `lauf describe {0}` tells how far it is.",
            args.name
        );
    }
    Ok(url.to_owned())
}
