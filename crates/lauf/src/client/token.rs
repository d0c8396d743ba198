//! `lauf token`: the administrator's bearer token.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::Global;
use super::connect::{Target, read_token};
use super::output::Out;

const EXAMPLES: &str = "\
Examples:
  curl -H \"Authorization: Bearer $(lauf token)\" \"$(lauf url private)\"
  lauf token | docker login localhost:8080 -u lauf --password-stdin";

/// Arguments of `lauf token`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TokenArgs {}

/// Runs `lauf token`. A stopped server has a token too.
pub(crate) fn run(global: &Global, out: &Out, _args: &TokenArgs) -> Result<()> {
    let token = match Target::find(global) {
        Ok(Target {
            token: Some(token), ..
        }) => token,
        Ok(Target {
            no_token: Some(why),
            ..
        }) => bail!("{why}"),
        _ => read_token(&global.data.join("admin.token"))?,
    };
    if out.structured(&json!({ "token": token }))? {
        return Ok(());
    }
    out.line(&token)
}
