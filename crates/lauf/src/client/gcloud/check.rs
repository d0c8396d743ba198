//! `lauf gcloud check`: the way from gcloud to the server, one step at a time, so that the first
//! thing that is wrong is named together with its remedy. gcloud itself only seems to hang.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use ::http::{StatusCode, header};
use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::client::Global;
use crate::client::connect::{Target, parse_server};
use crate::client::http::{client, innermost};
use crate::client::output::{Out, Tint};

/// How long gcloud may take to tell its settings; it is slow to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `lauf gcloud check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lauf gcloud check\n  lauf gcloud check --configuration lauf")]
pub(crate) struct CheckArgs {
    /// The gcloud configuration to look at [default: the active one]
    #[arg(long, value_name = "NAME")]
    configuration: Option<String>,
}

/// A step: what was looked at, and what came of it.
#[derive(Debug)]
struct Step {
    what: &'static str,
    found: Finding,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    Good(String),
    Bad { why: String, remedy: String },
    Warning { why: String, remedy: String },
}

fn bad(why: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding::Bad {
        why: why.into(),
        remedy: remedy.into(),
    }
}

/// Runs `lauf gcloud check`.
pub(super) async fn run(global: &Global, out: &Out, args: &CheckArgs) -> Result<()> {
    let mut steps = Vec::new();
    let mut tell = |what: &'static str, found: Finding| -> Result<bool> {
        let good = !matches!(found, Finding::Bad { .. });
        if out.format == crate::client::output::Format::Table {
            print(out, what, &found)?;
        }
        steps.push(Step { what, found });
        Ok(good)
    };
    look(global, args, &mut tell).await?;
    let failed = steps
        .iter()
        .filter(|s| matches!(s.found, Finding::Bad { .. }))
        .count();
    let report: Vec<Value> = steps.iter().map(Step::json).collect();
    out.structured(&Value::from(report))?;
    if failed > 0 {
        bail!("gcloud cannot use this server yet.");
    }
    out.note("gcloud can use this server.");
    Ok(())
}

/// Takes the steps until one fails on which the next depend.
async fn look(
    global: &Global,
    args: &CheckArgs,
    tell: &mut impl FnMut(&'static str, Finding) -> Result<bool>,
) -> Result<()> {
    let settings = match gcloud(args).await {
        Ok((version, settings)) => {
            tell("gcloud is installed", Finding::Good(version))?;
            settings
        }
        Err(finding) => {
            tell("gcloud is installed", finding)?;
            return Ok(());
        }
    };
    for (name, why) in overriding() {
        let warning = Finding::Warning {
            why: format!("{name} is set and {why}"),
            remedy: format!("if this is not meant for Lauf: unset {name}"),
        };
        tell("the environment does not interfere", warning)?;
    }
    let used = match configuration(&settings) {
        Ok((used, text)) => {
            tell("the configuration points at Lauf", Finding::Good(text))?;
            used
        }
        Err(finding) => {
            tell("the configuration points at Lauf", finding)?;
            return Ok(());
        }
    };
    if !tell("the server listens", listens(&used).await)? {
        return Ok(());
    }
    let target = used.target()?;
    for (what, finding) in answers(&used, &target).await? {
        if !tell(what, finding)? {
            return Ok(());
        }
    }
    tell(
        "it is the server of this machine",
        same_server(global, &used),
    )?;
    Ok(())
}

/// What gcloud would do, by its own account.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Used {
    host: String,
    port: u16,
    ca_file: PathBuf,
    token: String,
    project: String,
    region: String,
}

impl Used {
    fn target(&self) -> Result<Target> {
        Ok(Target {
            server: parse_server(&format!("http://{}:{}", self.host, self.port))?,
            token: Some(self.token.clone()),
            no_token: None,
            project: Some(self.project.clone()),
            region: Some(self.region.clone()),
            ca_file: Some(self.ca_file.clone()),
        })
    }
}

/// gcloud's version and its effective settings, in which the environment has had its say.
async fn gcloud(args: &CheckArgs) -> Result<(String, Value), Finding> {
    let version = ask_gcloud(&["version", "--format=value(\"Google Cloud SDK\")"]).await?;
    let mut list = vec!["config", "list", "--all", "--format=json"];
    let chosen;
    if let Some(name) = &args.configuration {
        chosen = format!("--configuration={name}");
        list.push(&chosen);
    }
    let text = ask_gcloud(&list).await?;
    let settings = serde_json::from_str(&text)
        .map_err(|e| bad(format!("gcloud printed no settings: {e}"), "update gcloud"))?;
    Ok((format!("version {}", version.trim()), settings))
}

async fn ask_gcloud(args: &[&str]) -> Result<String, Finding> {
    let asked = Command::new("gcloud")
        .args(args)
        .env("CLOUDSDK_CORE_DISABLE_PROMPTS", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, asked)
        .await
        .map_err(|_| bad("gcloud does not answer", "run `gcloud info` to see why"))?
        .map_err(|error| {
            bad(
                format!("gcloud cannot be started: {error}"),
                "install the Google Cloud CLI, or use `lauf deploy` instead",
            )
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(bad(
        format!("`gcloud {}` failed: {said}", args.join(" ")),
        "mend what it says",
    ))
}

/// Reads the settings that matter.
fn configuration(settings: &Value) -> Result<(Used, String), Finding> {
    let setup = "run `lauf gcloud setup`, or `eval \"$(lauf gcloud env)\"` in this shell";
    let get = |section: &str, key: &str| match &settings[section][key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let host = get("proxy", "address");
    if host.is_empty() {
        return Err(bad("gcloud has no proxy, so it talks to Google", setup));
    }
    let kind = get("proxy", "type");
    let Ok(port) = get("proxy", "port").parse::<u16>() else {
        return Err(bad("gcloud's proxy has no port", setup));
    };
    if kind != "http" {
        return Err(bad(
            format!("gcloud's proxy is of type '{kind}', not http"),
            setup,
        ));
    }
    for section in ["api_endpoint_overrides"] {
        for (key, value) in settings[section].as_object().into_iter().flatten() {
            let elsewhere = value.as_str().is_some_and(|v| !v.is_empty());
            if elsewhere && key != "iamcredentials" {
                return Err(bad(
                    format!("{section}/{key} sends requests to {value}"),
                    format!("gcloud config unset {section}/{key}"),
                ));
            }
        }
    }
    let ca_file = get("core", "custom_ca_certs_file");
    if ca_file.is_empty() {
        return Err(bad("gcloud has no certificate authority of Lauf", setup));
    }
    let token = match (
        get("auth", "access_token_file"),
        get("auth", "access_token"),
    ) {
        (_, token) if !token.is_empty() => token,
        (file, _) if !file.is_empty() => match std::fs::read_to_string(&file) {
            Ok(token) => token.trim().to_owned(),
            Err(error) => {
                return Err(bad(
                    format!("the token file {file} cannot be read: {error}"),
                    setup,
                ));
            }
        },
        _ => match std::env::var("CLOUDSDK_AUTH_ACCESS_TOKEN") {
            Ok(token) if !token.is_empty() => token,
            _ => return Err(bad("gcloud has no token of Lauf", setup)),
        },
    };
    let (project, region) = (get("core", "project"), get("run", "region"));
    if project.is_empty() || region.is_empty() {
        return Err(bad("gcloud has no project or no run/region", setup));
    }
    let text = format!("proxy {host}:{port}, project {project}, region {region}");
    let used = Used {
        host,
        port,
        ca_file: ca_file.into(),
        token,
        project,
        region,
    };
    Ok((used, text))
}

async fn listens(used: &Used) -> Finding {
    let address = format!("{}:{}", used.host, used.port);
    let remedy = "start the server with `sudo lauf up`; if it listens elsewhere by now, run `lauf \
                  gcloud setup` again";
    let dial = TcpStream::connect((used.host.as_str(), used.port));
    match tokio::time::timeout(Duration::from_secs(5), dial).await {
        Ok(Ok(_)) => Finding::Good(address),
        Ok(Err(error)) => bad(format!("nothing listens at {address} ({error})"), remedy),
        Err(_) => bad(format!("{address} does not answer"), remedy),
    }
}

/// Asks as gcloud would: CONNECT, TLS with our authority, the token, the API.
async fn answers(used: &Used, target: &Target) -> Result<Vec<(&'static str, Finding)>> {
    const TLS: &str = "TLS through the proxy";
    const TOKEN: &str = "the token is accepted";
    const API: &str = "the API answers";
    let again = "run `lauf gcloud setup` again: the server's data folder is another by now";
    if let Err(error) = std::fs::read(&used.ca_file) {
        let why = format!("{} cannot be read: {error}", used.ca_file.display());
        return Ok(vec![(TLS, bad(why, "run `lauf gcloud setup` again"))]);
    }
    let url = format!(
        "https://{}-run.googleapis.com/apis/serving.knative.dev/v1/namespaces/{}/services?limit=1",
        used.region, used.project
    );
    let asked = client(target, true)?
        .get(&url)
        .header(header::AUTHORIZATION, format!("Bearer {}", used.token))
        .timeout(Duration::from_secs(15))
        .send()
        .await;
    let reply = match asked {
        Ok(reply) => reply,
        Err(error) => {
            let why = innermost(&error);
            const CA: &str = "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE";
            let remedy = if !why.to_ascii_lowercase().contains("certificate") {
                "is it a Lauf that listens there? `lauf list` should answer".to_owned()
            } else if std::env::var_os(CA).is_some_and(|v| *v == *used.ca_file) {
                format!(
                    "{CA} makes gcloud trust {}, which is not this server's authority: unset {CA}, \
                     or eval \"$(lauf gcloud env)\"",
                    used.ca_file.display()
                )
            } else {
                format!(
                    "gcloud trusts {}, which is not this server's authority; {again}",
                    used.ca_file.display()
                )
            };
            return Ok(vec![(TLS, bad(why, remedy))]);
        }
    };
    let mut steps = vec![(TLS, Finding::Good(used.ca_file.display().to_string()))];
    let code = reply.status();
    let body = reply.bytes().await.unwrap_or_default();
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    let said = json["error"]["message"].as_str().unwrap_or_default();
    if code == StatusCode::UNAUTHORIZED {
        steps.push((TOKEN, bad(said, again)));
        return Ok(steps);
    }
    steps.push((TOKEN, Finding::Good(String::new())));
    steps.push(match code {
        code if code.is_success() => (API, Finding::Good(url)),
        StatusCode::NOT_FOUND => (
            API,
            bad(
                said,
                "gcloud config set project PROJECT, gcloud config set run/region REGION; `lauf \
                 gcloud setup` sets both",
            ),
        ),
        code => (
            API,
            bad(format!("{code} {said}"), "look at the server's own log"),
        ),
    });
    Ok(steps)
}

/// Whether gcloud talks to the server that `lauf` would talk to.
fn same_server(global: &Global, used: &Used) -> Finding {
    let Ok(target) = Target::find(global) else {
        return Finding::Good("it is not known to this machine's data folder".to_owned());
    };
    let port = target.server.port_or_known_default();
    if port == Some(used.port) {
        return Finding::Good(String::new());
    }
    Finding::Warning {
        why: format!(
            "`lauf` would talk to {}, gcloud talks to {}:{}",
            target.server, used.host, used.port
        ),
        remedy: "run `lauf gcloud setup` if that is not meant".to_owned(),
    }
}

/// Variables of this shell that win over a configuration, and what they do. Those that `lauf gcloud
/// env` has set are told by their company: it sets all of them together.
pub(super) fn overriding() -> Vec<(&'static str, &'static str)> {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    interfering(&set)
}

fn interfering(set: &dyn Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
    const OURS: [(&str, &str); 8] = [
        (
            "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
            "replaces the certificate authority",
        ),
        ("CLOUDSDK_PROXY_TYPE", "changes the proxy"),
        ("CLOUDSDK_PROXY_ADDRESS", "changes the proxy"),
        ("CLOUDSDK_PROXY_PORT", "changes the proxy"),
        ("CLOUDSDK_AUTH_ACCESS_TOKEN", "replaces the token"),
        ("CLOUDSDK_CORE_PROJECT", "replaces the project"),
        ("CLOUDSDK_RUN_REGION", "replaces the region"),
        (
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS",
            "redirects a call",
        ),
    ];
    const ALWAYS: [(&str, &str); 6] = [
        (
            "CLOUDSDK_ACTIVE_CONFIG_NAME",
            "chooses another configuration",
        ),
        ("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE", "replaces the token"),
        (
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN",
            "sends requests past the proxy's names",
        ),
        ("CLOUDSDK_CORE_UNIVERSE_DOMAIN", "changes every host name"),
        ("CLOUDSDK_AUTH_DISABLE_CREDENTIALS", "sends no token"),
        (
            "CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT",
            "asks for another account's token",
        ),
    ];
    let whole = OURS.iter().all(|(name, _)| set(name));
    let ours = OURS.iter().filter(|_| !whole);
    ours.chain(&ALWAYS)
        .filter(|(name, _)| set(name))
        .copied()
        .collect()
}

impl Step {
    fn json(&self) -> Value {
        match &self.found {
            Finding::Good(text) => json!({"step": self.what, "ok": true, "found": text}),
            Finding::Bad { why, remedy } => {
                json!({"step": self.what, "ok": false, "found": why, "remedy": remedy})
            }
            Finding::Warning { why, remedy } => {
                json!({"step": self.what, "ok": true, "warning": why, "remedy": remedy})
            }
        }
    }
}

fn print(out: &Out, what: &str, found: &Finding) -> Result<()> {
    let dim = |text: &str| match text {
        "" => String::new(),
        text => format!("  {}", out.tint(text, Tint::Dim)),
    };
    match found {
        Finding::Good(text) => out.line(&format!(
            "{} {what}{}",
            out.tint("✔", Tint::Good),
            dim(text)
        )),
        Finding::Bad { why, remedy } => {
            out.line(&format!("{} {what}: {why}", out.tint("✘", Tint::Bad)))?;
            out.line(&format!("  → {remedy}"))
        }
        Finding::Warning { why, remedy } => {
            out.line(&format!("{} {what}: {why}", out.tint("!", Tint::Warn)))?;
            out.line(&format!("  → {remedy}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Value {
        json!({
            "core": {"project": "demo", "custom_ca_certs_file": "/ca.pem"},
            "proxy": {"type": "http", "address": "127.0.0.1", "port": "18080"},
            "run": {"region": "us-central1"},
            "auth": {"access_token": "tok"},
            "api_endpoint_overrides": {"iamcredentials": "http://127.0.0.1:18080/", "run": null},
        })
    }

    #[test]
    fn the_first_thing_wrong_is_named() {
        let (used, _) = configuration(&settings()).unwrap();
        assert_eq!((used.port, used.token.as_str()), (18080, "tok"));
        let without = |section: &str, key: &str| {
            let mut settings = settings();
            settings[section][key] = Value::Null;
            configuration(&settings).unwrap_err()
        };
        for (section, key, word) in [
            ("proxy", "address", "no proxy"),
            ("proxy", "port", "no port"),
            ("core", "custom_ca_certs_file", "authority"),
            ("core", "project", "project"),
        ] {
            let Finding::Bad { why, remedy } = without(section, key) else {
                panic!("{key} is not missed");
            };
            assert!(
                why.contains(word) && remedy.contains("lauf gcloud"),
                "{why}"
            );
        }
        let mut other = settings();
        other["api_endpoint_overrides"]["run"] = "http://x/".into();
        assert!(configuration(&other).is_err());
    }

    #[test]
    fn a_part_of_the_environment_interferes_and_the_whole_does_not() {
        let one = |name: &str| name == "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE";
        assert_eq!(interfering(&one).len(), 1);
        let all = |name: &str| {
            name != "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"
                && name != "CLOUDSDK_ACTIVE_CONFIG_NAME"
                && !name.ends_with("_RUN")
                && !name.contains("UNIVERSE")
                && !name.contains("DISABLE")
                && !name.contains("IMPERSONATE")
        };
        assert_eq!(interfering(&all), []);
    }
}
