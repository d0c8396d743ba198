//! `lauf kubeconfig`: pointing `kubectl`, `kn` and everything else that reads a kubeconfig at this
//! server. A region is a cluster; the project is the namespace.
//!
//! kubectl sends a token over TLS only, so the address is `https`, with the certificate of the
//! server's own authority; both are in the file itself, which nobody else can read.

mod file;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Global;
use super::connect::{Target, is_loopback};
use super::http::{Api, Face};
use super::output::{Out, Tint};
use super::user;
use file::{Entries, Undone};

const EXAMPLES: &str = "\
Examples:
  lauf kubeconfig                      kubectl talks to Lauf from here on
  kubectl get ksvc                     services of the default region
  kubectl --context=lauf get ksvc      one command only
  kubectl config use-context other     and to another cluster again
  lauf kubeconfig --undo               as if it had never been

With `sudo`, it writes the kubeconfig of the person who ran sudo.";

/// Arguments of `lauf kubeconfig`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KubeconfigArgs {
    /// Take the contexts away and return to the one before
    #[arg(long)]
    undo: bool,
    /// The name of the context; other regions' are NAME-REGION
    #[arg(long, default_value = "lauf")]
    name: String,
    /// The file [default: the first of $KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Write the contexts and leave the current one as it is
    #[arg(long, conflicts_with = "undo")]
    no_activate: bool,
    /// Print a kubeconfig of its own and write nothing
    #[arg(long, conflicts_with_all = ["undo", "no_activate", "kubeconfig"])]
    print: bool,
    /// Read what root has found out from standard input.
    #[arg(long, hide = true, conflicts_with = "undo")]
    from_stdin: bool,
}

/// What a kubeconfig must say of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// `https://HOST:PORT`.
    server: String,
    /// The authority's certificate in PEM form, where the system does not know it.
    ca: Option<String>,
    /// The name the certificate is for, where it is not that of the address.
    tls_name: Option<String>,
    token: String,
    project: String,
    /// The default one first.
    regions: Vec<String>,
}

/// Runs `lauf kubeconfig`.
pub(super) async fn run(global: &Global, out: &Out, args: &KubeconfigArgs) -> Result<()> {
    if !is_a_name(&args.name) {
        bail!(
            "'{}' is no name for a context: letters, digits, '-', '_' and '.', please.",
            args.name
        );
    }
    if args.undo {
        if let Some(person) = user::behind_sudo()? {
            return user::run_as(&person, &arguments(out, args, &["--undo"]), "");
        }
        return undo(out, args);
    }
    let told = if args.from_stdin {
        let mut text = String::new();
        std::io::stdin()
            .take(1 << 20)
            .read_to_string(&mut text)
            .context("reading standard input")?;
        serde_json::from_str(&text).context("standard input is not what kubeconfig writes")?
    } else {
        facts(global).await?
    };
    if args.print {
        let text = file::print(&told.entries(&args.name))?;
        return out.raw(text.as_bytes());
    }
    if !args.from_stdin
        && let Some(person) = user::behind_sudo()?
    {
        let stay = if args.no_activate {
            &["--from-stdin", "--no-activate"][..]
        } else {
            &["--from-stdin"][..]
        };
        let input = serde_json::to_string(&told)?;
        return user::run_as(&person, &arguments(out, args, stay), &input);
    }
    write(out, args, &told)
}

fn arguments<'a>(out: &Out, args: &'a KubeconfigArgs, more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["kubeconfig", "--name", args.name.as_str()];
    all.extend(more);
    if let Some(path) = args.kubeconfig.as_deref().and_then(Path::to_str) {
        all.extend(["--kubeconfig", path]);
    }
    if out.quiet {
        all.push("--quiet");
    }
    all
}

fn write(out: &Out, args: &KubeconfigArgs, told: &Told) -> Result<()> {
    let path = path(out, args)?;
    let entries = told.entries(&args.name);
    file::set_up(&path, &entries, !args.no_activate)?;
    let bold = |text: &str| out.tint_err(text, Tint::Bold);
    if args.no_activate {
        out.note(&format!(
            "Wrote context {} to {}. Use it with: kubectl --context={} ...",
            bold(&args.name),
            path.display(),
            args.name
        ));
    } else {
        out.note(&format!(
            "kubectl uses context {} now: {}, namespace {}. ({})",
            bold(&args.name),
            entries.server(0).unwrap_or_default(),
            told.project,
            path.display()
        ));
    }
    for region in told.regions.iter().skip(1) {
        out.note(&format!(
            "  region {region:<15} kubectl --context={}-{region} ...",
            args.name
        ));
    }
    out.note(
        "  try it          kubectl get ksvc\n  \
         take it away    lauf kubeconfig --undo",
    );
    Ok(())
}

fn undo(out: &Out, args: &KubeconfigArgs) -> Result<()> {
    let path = path(out, args)?;
    let bold = |text: &str| out.tint_err(text, Tint::Bold);
    let now = match file::undo(&path, &args.name)? {
        Undone::Gone => "and, being empty, the file too".to_owned(),
        Undone::Current(None) => "no context is current".to_owned(),
        Undone::Current(Some(name)) => format!("kubectl uses {}", bold(&name)),
    };
    out.note(&format!(
        "Context {} is gone from {}; {now}.",
        bold(&args.name),
        path.display()
    ));
    Ok(())
}

/// The file kubectl would write to.
fn path(out: &Out, args: &KubeconfigArgs) -> Result<PathBuf> {
    if let Some(path) = &args.kubeconfig {
        return Ok(path.clone());
    }
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty()) {
        let paths: Vec<PathBuf> = std::env::split_paths(&list)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        if let Some(first) = paths.first() {
            if paths.len() > 1 {
                out.note(&format!(
                    "KUBECONFIG names {} files; this is about the first, {}.",
                    paths.len(),
                    first.display()
                ));
            }
            return Ok(first.clone());
        }
    }
    match std::env::var_os("HOME").filter(|v| !v.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".kube").join("config")),
        None => {
            bail!("HOME is not set, so the kubeconfig is not known; name it with --kubeconfig.")
        }
    }
}

/// Asks options, data folder and server.
async fn facts(global: &Global) -> Result<Told> {
    let target = Target::find(global)?;
    let Some(token) = target.token.clone() else {
        bail!("{}", target.no_token.unwrap_or_default());
    };
    let api = Api::connect(target.clone()).await?;
    let info = api.get(Face::Native, &["lauf", "v1", "info"], &[]).await?;
    let ca_file = target
        .ca_file
        .clone()
        .or_else(|| info["caFile"].as_str().map(PathBuf::from));
    let own_tls = target.server.scheme() == "http";
    let ca = match ca_file {
        Some(file) => match std::fs::read_to_string(&file) {
            Ok(text) => Some(text),
            // With a certificate that everybody trusts there is none to be read.
            Err(_) if !own_tls => None,
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "reading the certificate authority {} (with sudo you may)",
                        file.display()
                    )
                });
            }
        },
        None if own_tls => bail!(
            "The server has no certificate authority, and kubectl sends no token without TLS. \
             Restart `lauf up` with its default settings."
        ),
        None => None,
    };
    let mut server = target.server.clone();
    if own_tls {
        let port = server.port_or_known_default();
        let fits = server.set_scheme("https").is_ok() && server.set_port(port).is_ok();
        if !fits {
            bail!("{server} is no address that kubectl could use.");
        }
    }
    let domain = info["domain"].as_str().map(str::to_owned);
    let texts = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    let mut regions = vec![api.region.clone()];
    regions.extend(
        texts(&info["regions"])
            .into_iter()
            .filter(|r| *r != api.region),
    );
    Ok(Told {
        tls_name: domain.filter(|_| own_tls && !is_loopback(&target.server)),
        server: server.as_str().trim_end_matches('/').to_owned(),
        ca,
        token,
        project: api.project.clone(),
        regions,
    })
}

impl Told {
    fn entries(&self, name: &str) -> Entries {
        Entries::new(name, self)
    }
}

fn is_a_name(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 63 && name.bytes().all(fine)
}
