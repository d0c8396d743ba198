//! Signing in to a registry: Basic, and the token dance of the distribution project (token.md,
//! oauth.md).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, header};
use reqwest::Url;
use serde::Deserialize;

use super::{Remote, RemoteRepo, innermost, said, url_host};
use crate::config::Credentials;
use crate::error::ImageError;
use crate::ingest::collect;
use crate::store::{blocking, now};

/// How many sign-ins are remembered.
const MAX_TOKENS: usize = 1024;

/// `Authorization` values by registry and scope.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<(String, String), (String, SystemTime)>>);

impl Tokens {
    pub(super) fn get(&self, host: &str, scope: &str) -> Option<String> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, until) = tokens.get(&(host.to_owned(), scope.to_owned()))?;
        (now() < *until).then(|| value.clone())
    }

    pub(super) fn forget(&self, host: &str, scope: &str) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.remove(&(host.to_owned(), scope.to_owned()));
    }

    fn put(&self, host: &str, scope: &str, value: String, lasts: Duration) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MAX_TOKENS {
            let at = now();
            tokens.retain(|_, (_, until)| at < *until);
            if tokens.len() >= MAX_TOKENS {
                tokens.clear();
            }
        }
        tokens.insert((host.to_owned(), scope.to_owned()), (value, now() + lasts));
    }
}

/// What a 401 asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
    },
    None,
}

impl Challenge {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let mut found = Self::None;
        for value in headers.get_all(header::WWW_AUTHENTICATE) {
            let Ok(text) = value.to_str() else { continue };
            let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                let parameters = parameters(rest);
                if let Some(realm) = parameters.get("realm") {
                    return Self::Bearer {
                        realm: realm.clone(),
                        service: parameters.get("service").cloned(),
                    };
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                found = Self::Basic;
            }
        }
        found
    }
}

/// `key="value", key=value`
fn parameters(mut text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    while let Some((key, rest)) = text.split_once('=') {
        let key = key.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let value = match rest.strip_prefix('"') {
            Some(rest) => {
                let end = rest.find('"').unwrap_or(rest.len());
                text = rest.get(end + 1..).unwrap_or_default();
                &rest[..end]
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                text = rest.get(end..).unwrap_or_default();
                rest[..end].trim()
            }
        };
        found.insert(key, value.to_owned());
    }
    found
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: HashMap<String, AuthEntry>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase", default)]
struct AuthEntry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl Remote {
    /// Gets what the challenge asks for and remembers it.
    pub(super) async fn sign_in(
        &self,
        repo: &RemoteRepo,
        scope: &str,
        challenge: Challenge,
    ) -> Result<(), ImageError> {
        let credentials = self.credentials(&repo.host).await?;
        let refused = |why: String| ImageError::Unauthorized {
            registry: repo.host.clone(),
            image: repo.to_string(),
            why,
        };
        if let Some(Credentials::Bearer(token)) = &credentials {
            let day = Duration::from_secs(86_400);
            self.tokens
                .put(&repo.host, scope, format!("Bearer {token}"), day);
            return Ok(());
        }
        match challenge {
            Challenge::None => Err(refused("it does not say how to sign in".to_owned())),
            Challenge::Basic => match credentials {
                Some(Credentials::Basic { username, password }) => {
                    let value = basic(&username, &password);
                    self.tokens
                        .put(&repo.host, scope, value, Duration::from_secs(3600));
                    Ok(())
                }
                _ => Err(refused("it asks for a user name and a password".to_owned())),
            },
            Challenge::Bearer { realm, service } => {
                let (token, lasts) = self
                    .token(repo, scope, &realm, service.as_deref(), credentials)
                    .await?;
                self.tokens
                    .put(&repo.host, scope, format!("Bearer {token}"), lasts);
                Ok(())
            }
        }
    }

    async fn token(
        &self,
        repo: &RemoteRepo,
        scope: &str,
        realm: &str,
        service: Option<&str>,
        credentials: Option<Credentials>,
    ) -> Result<(String, Duration), ImageError> {
        let refused = |why: String| ImageError::Unauthorized {
            registry: repo.host.clone(),
            image: repo.to_string(),
            why,
        };
        let mut url = Url::parse(realm)
            .map_err(|e| refused(format!("its sign-in address is not valid: {e}")))?;
        let base = self.base(&repo.host)?;
        if url.scheme() != "https" && base.scheme() == "https" {
            return Err(refused(
                "it asks to send credentials in the clear".to_owned(),
            ));
        }
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", scope);
            if let Some(Credentials::Identity(token)) = &credentials {
                query.append_pair("grant_type", "refresh_token");
                query.append_pair("client_id", "lauf");
                query.append_pair("refresh_token", token);
            }
        }
        let client = self.client(url_host(&url)).clone();
        let request = match &credentials {
            Some(Credentials::Identity(_)) => {
                let form = url.query().unwrap_or_default().to_owned();
                url.set_query(None);
                client
                    .request(Method::POST, url)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form)
            }
            Some(Credentials::Basic { username, password }) => client
                .request(Method::GET, url)
                .header(header::AUTHORIZATION, basic(username, password)),
            _ => client.request(Method::GET, url),
        };
        let unreachable = |why| ImageError::Unreachable {
            registry: repo.host.clone(),
            why,
        };
        let response = request
            .send()
            .await
            .map_err(|e| unreachable(innermost(&e)))?;
        let status = response.status();
        if status.is_server_error() {
            return Err(unreachable(said(status, response).await));
        }
        if !status.is_success() {
            return Err(refused(said(status, response).await));
        }
        let max = self.config.limits.max_manifest.min(1 << 20);
        let body = collect(Box::pin(response.bytes_stream()), max)
            .await
            .map_err(|e| unreachable(innermost(&e)))?
            .unwrap_or_default();
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|e| refused(format!("its sign-in answer is not valid: {e}")))?;
        let token = answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty())
            .ok_or_else(|| refused("its sign-in answer holds no token".to_owned()))?;
        // 60 s when nothing is said (token.md); a little less, since the clock runs meanwhile.
        let seconds = answer.expires_in.unwrap_or(60).clamp(15, 86_400);
        Ok((token, Duration::from_secs(seconds - seconds / 10)))
    }

    /// What to sign in with, from the settings, then from the files.
    async fn credentials(&self, host: &str) -> Result<Option<Credentials>, ImageError> {
        if let Some(credentials) = self.settings(host).and_then(|s| s.credentials.clone()) {
            return Ok(Some(credentials));
        }
        let (files, host) = (self.config.auth_files.clone(), host.to_owned());
        blocking(move || files.iter().find_map(|path| from_file(path, &host))).await
    }
}

fn from_file(path: &std::path::Path, host: &str) -> Option<Credentials> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(%error, path = %path.display(), "registry credentials are not readable");
            }
            return None;
        }
    };
    let file: AuthFile = serde_json::from_slice(&text)
        .inspect_err(
            |_| tracing::warn!(path = %path.display(), "registry credentials are not valid JSON"),
        )
        .ok()?;
    let names: &[&str] = if host == "docker.io" {
        &[
            "https://index.docker.io/v1/",
            "index.docker.io",
            "docker.io",
            "registry-1.docker.io",
        ]
    } else {
        &[]
    };
    let plain = |key: &str| {
        let key = key
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        key.split('/')
            .next()
            .unwrap_or_default()
            .eq_ignore_ascii_case(host)
    };
    let (_, entry) = file
        .auths
        .iter()
        .find(|(key, _)| names.contains(&key.as_str()) || plain(key))?;
    if !entry.registrytoken.is_empty() {
        return Some(Credentials::Bearer(entry.registrytoken.clone()));
    }
    if !entry.identitytoken.is_empty() {
        return Some(Credentials::Identity(entry.identitytoken.clone()));
    }
    if !entry.username.is_empty() {
        return Some(Credentials::Basic {
            username: entry.username.clone(),
            password: entry.password.clone(),
        });
    }
    let decoded = String::from_utf8(STANDARD.decode(&entry.auth).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(Credentials::Basic {
        username: username.to_owned(),
        password: password.trim_end_matches('\0').to_owned(),
    })
}

fn basic(username: &str, password: &str) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let mut headers = HeaderMap::new();
        assert_eq!(Challenge::read(&headers), Challenge::None);
        headers.append(
            header::WWW_AUTHENTICATE,
            "Basic realm=\"x\"".parse().unwrap(),
        );
        assert_eq!(Challenge::read(&headers), Challenge::Basic);
        let bearer = "Bearer realm=\"https://a.example/token?x=1,2\",service=reg, scope=\"a b\"";
        headers.append(header::WWW_AUTHENTICATE, bearer.parse().unwrap());
        let expected = Challenge::Bearer {
            realm: "https://a.example/token?x=1,2".into(),
            service: Some("reg".into()),
        };
        assert_eq!(Challenge::read(&headers), expected);
    }

    #[test]
    fn docker_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let auth = STANDARD.encode("joe:p:w");
        let text = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}},"r.example:5000":{{"identitytoken":"t"}}}}}}"#
        );
        std::fs::write(&path, text).unwrap();
        let joe = Credentials::Basic {
            username: "joe".into(),
            password: "p:w".into(),
        };
        assert_eq!(from_file(&path, "docker.io"), Some(joe));
        assert_eq!(
            from_file(&path, "r.example:5000"),
            Some(Credentials::Identity("t".into()))
        );
        assert_eq!(from_file(&path, "r.example"), None);
    }
}
