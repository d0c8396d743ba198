//! `lauf gcloud env`: the setup as environment variables, which win over every configuration.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use super::{Facts, facts};
use crate::client::Global;
use crate::client::output::Out;

const EXAMPLES: &str = "\
Examples:
  eval \"$(lauf gcloud env)\"                 this shell talks to Lauf
  eval \"$(lauf gcloud env --unset)\"         and to Google again
  lauf gcloud env --shell fish | source

The environment holds the administrator's token: keep it out of logs.";

/// Arguments of `lauf gcloud env`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EnvArgs {
    /// The shell that shall read it [default: by $SHELL]
    #[arg(long, value_enum)]
    shell: Option<Shell>,
    /// Print what takes the variables away again
    #[arg(long)]
    unset: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// bash, zsh, dash and other descendants of the Bourne shell
    #[value(alias = "bash", alias = "zsh", alias = "dash", alias = "ksh")]
    Sh,
    /// fish
    Fish,
}

/// The variables in the order printed. The endpoint is for the one call that ignores the proxy.
const NAMES: [&str; 10] = [
    "CLOUDSDK_PROXY_TYPE",
    "CLOUDSDK_PROXY_ADDRESS",
    "CLOUDSDK_PROXY_PORT",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "CLOUDSDK_AUTH_ACCESS_TOKEN",
    "CLOUDSDK_CORE_PROJECT",
    "CLOUDSDK_RUN_REGION",
    "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING",
    "CLOUDSDK_ARTIFACTS_ALLOW_UNRECOGNIZED_REGISTRY",
    "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS",
];

/// Runs `lauf gcloud env`.
pub(super) async fn run(global: &Global, out: &Out, args: &EnvArgs) -> Result<()> {
    let shell = args.shell.unwrap_or_else(|| {
        let shell = std::env::var("SHELL").unwrap_or_default();
        if shell.ends_with("/fish") {
            Shell::Fish
        } else {
            Shell::Sh
        }
    });
    if args.unset {
        return out.raw(unset(shell).as_bytes());
    }
    let (facts, _) = facts(global).await?;
    // gcloud needs the file itself, so it had better be there.
    facts.ca()?;
    out.raw(text(&facts, shell)?.as_bytes())
}

fn variables(facts: &Facts) -> [(&'static str, String); 10] {
    let values = [
        "http".to_owned(),
        facts.host.clone(),
        facts.port.to_string(),
        facts.ca_file.to_string_lossy().into_owned(),
        facts.token.clone(),
        facts.project.clone(),
        facts.region.clone(),
        "true".to_owned(),
        "true".to_owned(),
        format!("http://{}:{}/", facts.host, facts.port),
    ];
    let mut values = values.into_iter();
    NAMES.map(|name| (name, values.next().unwrap_or_default()))
}

fn text(facts: &Facts, shell: Shell) -> Result<String> {
    let mut text = String::new();
    for (name, value) in variables(facts) {
        if value.chars().any(char::is_control) {
            bail!("{name} would hold a control character, which no shell line can.");
        }
        let value = quoted(&value, shell);
        text.push_str(&match shell {
            Shell::Sh => format!("export {name}={value}\n"),
            Shell::Fish => format!("set -gx {name} {value}\n"),
        });
    }
    Ok(text)
}

fn unset(shell: Shell) -> String {
    match shell {
        Shell::Sh => format!("unset {}\n", NAMES.join(" ")),
        Shell::Fish => format!("set -e {}\n", NAMES.join(" ")),
    }
}

/// Quotes what a shell could take for something else.
fn quoted(value: &str, shell: Shell) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@%+,".contains(&b);
    if !value.is_empty() && value.bytes().all(plain) {
        return value.to_owned();
    }
    let escaped = match shell {
        Shell::Sh => value.replace('\'', r"'\''"),
        Shell::Fish => value.replace('\\', r"\\").replace('\'', r"\'"),
    };
    format!("'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            host: "127.0.0.1".into(),
            port: 18080,
            project: "demo".into(),
            region: "us-central1".into(),
            domain: "run.localhost".into(),
            token: "tok".into(),
            ca_file: "/a b/it's/ca.pem".into(),
        }
    }

    #[test]
    fn the_recipe_is_complete_and_quoted() {
        let text = text(&facts(), Shell::Sh).unwrap();
        for line in [
            "export CLOUDSDK_PROXY_TYPE=http",
            "export CLOUDSDK_PROXY_ADDRESS=127.0.0.1",
            "export CLOUDSDK_PROXY_PORT=18080",
            r"export CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE='/a b/it'\''s/ca.pem'",
            "export CLOUDSDK_AUTH_ACCESS_TOKEN=tok",
            "export CLOUDSDK_CORE_PROJECT=demo",
            "export CLOUDSDK_RUN_REGION=us-central1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        let fish = super::text(&facts(), Shell::Fish).unwrap();
        assert!(fish.contains(r"set -gx CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE '/a b/it\'s/ca.pem'"));
        assert!(unset(Shell::Sh).starts_with("unset CLOUDSDK_PROXY_TYPE "));
    }
}
