//! `lauf gcloud setup`: the recipe as a named configuration of gcloud.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::facts;
use super::folder::{Folder, Settings};
use crate::client::Global;
use crate::client::output::{Out, Tint};
use crate::client::user;

const EXAMPLES: &str = "\
Examples:
  lauf gcloud setup                               gcloud talks to Lauf from here on
  gcloud config configurations activate default   and to Google again
  gcloud --configuration=lauf run services list   one command only
  lauf gcloud setup --undo                        as if it had never been

With `sudo`, it sets up the gcloud of the person who ran sudo.";

/// Arguments of `lauf gcloud setup`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SetupArgs {
    /// Take the configuration away and activate the one before
    #[arg(long)]
    undo: bool,
    /// The configuration's name
    #[arg(long, default_value = "lauf")]
    name: String,
    /// Write the configuration and leave the active one as it is
    #[arg(long, conflicts_with = "undo")]
    no_activate: bool,
    /// Read what root has found out from standard input.
    #[arg(long, hide = true, conflicts_with = "undo")]
    from_stdin: bool,
}

/// What root tells the person's half of the work.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    host: String,
    port: u16,
    project: String,
    region: String,
    account: String,
    ca: String,
    token: String,
}

/// Runs `lauf gcloud setup`.
pub(super) async fn run(global: &Global, out: &Out, args: &SetupArgs) -> Result<()> {
    let quiet = if out.quiet { &["--quiet"][..] } else { &[][..] };
    let base = ["gcloud", "setup", "--name", args.name.as_str()];
    if args.undo {
        if let Some(person) = user::behind_sudo()? {
            let args = [&base[..], &["--undo"], quiet].concat();
            return user::run_as(&person, &args, "");
        }
        let active = Folder::new(config_dir()?, &args.name)?.undo()?;
        out.note(&format!(
            "Configuration {} is gone; gcloud uses {} again.",
            out.tint_err(&args.name, Tint::Bold),
            out.tint_err(&active, Tint::Bold)
        ));
        return Ok(());
    }
    let told = if args.from_stdin {
        let mut text = String::new();
        std::io::stdin()
            .take(1 << 20)
            .read_to_string(&mut text)
            .context("reading standard input")?;
        serde_json::from_str(&text).context("standard input is not what setup writes")?
    } else {
        let (facts, _) = facts(global).await?;
        Told {
            ca: facts.ca()?,
            account: format!("admin@{}", facts.domain),
            host: facts.host,
            port: facts.port,
            project: facts.project,
            region: facts.region,
            token: facts.token,
        }
    };
    if !args.from_stdin
        && let Some(person) = user::behind_sudo()?
    {
        let stay = if args.no_activate {
            &["--no-activate"][..]
        } else {
            &[][..]
        };
        let args = [&base[..], &["--from-stdin"], stay, quiet].concat();
        return user::run_as(&person, &args, &serde_json::to_string(&told)?);
    }
    write(out, args, told)
}

fn write(out: &Out, args: &SetupArgs, told: Told) -> Result<()> {
    let dir = config_dir()?;
    let folder = Folder::new(dir.clone(), &args.name)?;
    let settings = Settings {
        host: told.host,
        port: told.port,
        project: told.project,
        region: told.region,
        account: told.account,
        ca: told.ca,
        token: told.token,
    };
    for value in [
        &settings.project,
        &settings.region,
        &settings.account,
        &settings.host,
    ] {
        if value.chars().any(char::is_control) {
            bail!(
                "'{}' cannot stand in a configuration.",
                value.escape_debug()
            );
        }
    }
    folder.set_up(&settings, !args.no_activate)?;
    let bold = |text: &str| out.tint_err(text, Tint::Bold);
    if args.no_activate {
        out.note(&format!(
            "Wrote configuration {} to {}. Use it with: gcloud --configuration={} ...",
            bold(&args.name),
            dir.display(),
            args.name
        ));
    } else {
        out.note(&format!(
            "gcloud uses configuration {} now: project {}, region {}, proxy {}:{}.",
            bold(&args.name),
            settings.project,
            settings.region,
            settings.host,
            settings.port
        ));
    }
    out.note(
        "  try it          gcloud run deploy hello --image hello --allow-unauthenticated\n  \
         is it wrong?    lauf gcloud check\n  \
         back to Google  gcloud config configurations activate default\n  \
         take it away    lauf gcloud setup --undo",
    );
    for (name, why) in super::check::overriding() {
        out.warn(&format!(
            "{} {name} is set in this shell and {why}. Take it away: unset {name}",
            out.tint_err("Warning:", Tint::Warn)
        ));
    }
    Ok(())
}

/// gcloud's folder: its own rule, without the second it takes to ask gcloud itself.
pub(super) fn config_dir() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
    if let Some(dir) = set("CLOUDSDK_CONFIG") {
        return Ok(PathBuf::from(dir));
    }
    match set("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".config").join("gcloud")),
        None => bail!("HOME is not set, so gcloud's folder is not known; set CLOUDSDK_CONFIG."),
    }
}
