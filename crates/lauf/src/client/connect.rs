//! Which server a command talks to, and with what credentials.
//!
//! A running Lauf describes itself in `DATA/server.json`; options and environment win over it. The
//! administrator's token of the data folder is only ever sent to the server of that folder or to
//! this machine itself.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use reqwest::Url;
use serde::Deserialize;

use super::Global;

/// What a running server says about itself in `DATA/server.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ServerFile {
    /// Its address and port.
    pub(crate) address: String,
    /// The domain of its services.
    pub(crate) domain: String,
    /// The project of those who name none.
    pub(crate) project: String,
    /// The region of those who name none.
    pub(crate) region: String,
    /// The certificate authority that gcloud and browsers must trust.
    #[serde(default)]
    pub(crate) ca_file: Option<PathBuf>,
    /// Where the administrator's token is.
    #[serde(default)]
    pub(crate) token_file: Option<PathBuf>,
}

/// Everything a command needs to know to talk to a server.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The server, without a path.
    pub(crate) server: Url,
    /// The bearer token, if there is one.
    pub(crate) token: Option<String>,
    /// Why there is no token, for the error that follows.
    pub(crate) no_token: Option<String>,
    /// The project asked for.
    pub(crate) project: Option<String>,
    /// The region asked for.
    pub(crate) region: Option<String>,
    /// The certificate authority to trust besides the system's.
    pub(crate) ca_file: Option<PathBuf>,
}

impl Target {
    /// Puts together options, environment (which clap has read) and the data folder.
    ///
    /// # Errors
    /// When there is no server to be found, with what to do about it.
    pub(crate) fn find(global: &Global) -> Result<Self> {
        let file = read_server_file(&global.data);
        // A variable that is set to nothing is not set.
        let said = |text: &Option<String>| text.clone().filter(|t| !t.trim().is_empty());
        let (server, file) = match (&said(&global.server), file) {
            (Some(text), file) => {
                let server = parse_server(text)?;
                // What the folder says counts only for the server it belongs to.
                let file = file.ok().filter(|f| same_server(&server, &f.address));
                (server, file)
            }
            (None, Ok(file)) => (parse_server(&file.address)?, Some(file)),
            (None, Err(error)) => return Err(error),
        };
        let ours = file.is_some() || is_loopback(&server);
        let (token, no_token) = match &said(&global.token) {
            Some(token) => (Some(token.trim().to_owned()), None),
            None if !ours => (
                None,
                Some("Name the server's token with --token or LAUF_TOKEN; `lauf token` prints it on the server.".to_owned()),
            ),
            None => {
                let path = file
                    .as_ref()
                    .and_then(|f| f.token_file.clone())
                    .unwrap_or_else(|| global.data.join("admin.token"));
                match read_token(&path) {
                    Ok(token) => (Some(token), None),
                    Err(error) => (None, Some(format!("{error:#}"))),
                }
            }
        };
        Ok(Self {
            server,
            token,
            no_token,
            project: said(&global.project).or_else(|| file.as_ref().map(|f| f.project.clone())),
            region: said(&global.region).or_else(|| file.as_ref().map(|f| f.region.clone())),
            ca_file: file.and_then(|f| f.ca_file),
        })
    }
}

/// Reads `DATA/server.json`.
pub(crate) fn read_server_file(data: &Path) -> Result<ServerFile> {
    let path = data.join("server.json");
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is not readable as JSON; restart `lauf up`, which writes it anew",
                path.display()
            )
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "No Lauf runs with the data folder {}.\n\
             Start one with `sudo lauf up`, name another folder with --data (LAUF_DATA), or a \
             server with --server (LAUF_SERVER).",
            data.display()
        ),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => bail!(
            "You may not read {}.\n\
             Run this with sudo, or use --server and --token (LAUF_SERVER, LAUF_TOKEN).",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Reads the administrator's token.
pub(crate) fn read_token(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Ok(_) => bail!("{} holds no token; restart `lauf up`.", path.display()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => bail!(
            "You may not read the administrator's token {}. Run this with sudo, or give the token \
             with --token or LAUF_TOKEN (`sudo lauf token` prints it).",
            path.display()
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "There is no administrator's token at {}. Name the data folder of the server with \
             --data (LAUF_DATA), or the token with --token (LAUF_TOKEN).",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Reads `127.0.0.1:8080`, `http://host:port` or `https://host`.
pub(crate) fn parse_server(text: &str) -> Result<Url> {
    let text = text.trim().trim_end_matches('/');
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url = Url::parse(&with_scheme).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.path() == "/"
    });
    url.with_context(|| {
        format!("The server '{text}' is not an address. Write for example http://127.0.0.1:8080.")
    })
}

fn same_server(server: &Url, address: &str) -> bool {
    parse_server(address).is_ok_and(|own| {
        own.port_or_known_default() == server.port_or_known_default()
            && (own.host_str() == server.host_str() || (is_loopback(&own) && is_loopback(server)))
    })
}

/// Whether a URL can only mean this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(data: &Path) -> Global {
        Global {
            data: data.to_owned(),
            ..Global::default()
        }
    }

    #[test]
    fn the_folder_says_where_its_server_is() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"address":"127.0.0.1:8080","domain":"run.localhost","project":"demo",
            "project_number":123456789012,"region":"us-central1","ca_file":"/x/ca.pem","pid":1}"#;
        fs::write(dir.path().join("server.json"), text).unwrap();
        fs::write(dir.path().join("admin.token"), "secret\n").unwrap();
        let target = Target::find(&global(dir.path())).unwrap();
        assert_eq!(target.server.as_str(), "http://127.0.0.1:8080/");
        assert_eq!(target.token.as_deref(), Some("secret"));
        assert_eq!(target.project.as_deref(), Some("demo"));
        assert_eq!(target.ca_file.as_deref(), Some(Path::new("/x/ca.pem")));
    }

    #[test]
    fn the_folders_token_goes_to_no_other_machine() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("admin.token"), "secret\n").unwrap();
        let mut global = global(dir.path());
        global.server = Some("https://lauf.example.com".to_owned());
        let target = Target::find(&global).unwrap();
        assert_eq!(target.token, None);
        assert!(target.no_token.unwrap().contains("--token"));
        global.server = Some("localhost:9999".to_owned());
        assert_eq!(
            Target::find(&global).unwrap().token.as_deref(),
            Some("secret")
        );
    }

    #[test]
    fn without_a_server_the_error_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = Target::find(&global(dir.path())).unwrap_err().to_string();
        assert!(error.contains("sudo lauf up"), "{error}");
        assert!(parse_server("http://x/y").is_err());
        assert!(parse_server("ftp://x").is_err());
    }
}
