//! Who is calling and what they may do.
//!
//! Today there is one principal with a secret of its own, the administrator, whose bearer token is
//! made at the first start and kept in a file that only its owner can read. Policies on services
//! decide who else may call them: `allUsers`, and service accounts, on whose behalf the platform
//! itself calls (pushes of Pub/Sub, schedules). Their tokens are signed by the [`Issuer`].
#![forbid(unsafe_code)]

mod issuer;
mod keys;
mod token;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lauf_model::policy::{ALL_AUTHENTICATED_USERS, INVOKER};
use lauf_model::{Code, Policy, Status};

pub use issuer::{BadToken, Claims, Issuer, NoKey, TOKEN_LIFE};
pub use keys::{KeyError, Keys, Rotation, SHOWN_BEFORE, SIGNS_FOR, StoredKey, rotation};
use token::Token;

/// A caller that proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its email-like name, without the `user:` of policies.
    pub principal: String,
}

/// Decides who a caller is.
#[derive(Debug)]
pub struct Iam {
    admin: Token,
    principal: String,
    token_file: PathBuf,
    issuer: Option<Arc<Issuer>>,
}

impl Iam {
    /// Reads the administrator's token from `DIR/admin.token`, making it at the first start.
    /// `domain` becomes part of the administrator's name, `admin@DOMAIN`.
    ///
    /// # Errors
    /// When the file cannot be read or made, or holds no token.
    pub fn open(dir: &Path, domain: &str) -> io::Result<Self> {
        let token_file = dir.join("admin.token");
        let admin = Token::read_or_create(&token_file)?;
        Ok(Self {
            admin,
            principal: format!("admin@{domain}"),
            token_file,
            issuer: None,
        })
    }

    /// Takes the tokens of this issuer as well: access tokens for the APIs, identity tokens for
    /// services.
    #[must_use]
    pub fn trusting(mut self, issuer: Arc<Issuer>) -> Self {
        self.issuer = Some(issuer);
        self
    }

    /// Whose tokens are taken, if any are.
    #[must_use]
    pub fn issuer(&self) -> Option<&Arc<Issuer>> {
        self.issuer.as_ref()
    }

    /// The administrator's name.
    #[must_use]
    pub fn admin(&self) -> &str {
        &self.principal
    }

    /// Where the administrator's token is kept.
    #[must_use]
    pub fn token_file(&self) -> &Path {
        &self.token_file
    }

    /// Tells who sent a request by its `Authorization` header: `Bearer TOKEN`, or `Basic` with the
    /// token as the password (which is what `docker login` sends).
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when there is no credential or it is not known.
    pub fn authenticate(&self, authorization: Option<&str>) -> Result<Caller, Status> {
        let Some(header) = authorization else {
            return Err(unauthenticated(
                "Request is missing required authentication credential. Send 'Authorization: \
                 Bearer TOKEN' with the token that `lauf token` prints.",
            ));
        };
        self.bearer(&presented(header).unwrap_or_default())
    }

    /// Tells whose token this is.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when it is nobody's.
    pub fn bearer(&self, token: &str) -> Result<Caller, Status> {
        if self.admin.matches(token) {
            return Ok(Caller {
                principal: self.principal.clone(),
            });
        }
        let issuer = self.issuer.as_ref();
        if let Some(claims) = issuer.and_then(|issuer| issuer.check_access_token(token).ok()) {
            return Ok(Caller {
                principal: claims.email,
            });
        }
        Err(unauthenticated(
            "Request had invalid authentication credentials. `lauf token` prints a valid one; \
             `lauf gcloud setup` gives it to gcloud.",
        ))
    }

    /// Whether a caller may send requests to a service with this policy. The administrator owns
    /// the platform and may call everything.
    #[must_use]
    pub fn may_invoke(&self, caller: &Caller, policy: &Policy) -> bool {
        caller.principal == self.principal
            || policy.grants(INVOKER, ALL_AUTHENTICATED_USERS)
            || policy.grants(INVOKER, &format!("user:{}", caller.principal))
            || policy.grants(INVOKER, &format!("serviceAccount:{}", caller.principal))
    }

    /// Tells whose token this is that came with a request to a service. An identity token must be for
    /// that service: its audience is a URL with the host that was asked for, or the host alone.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when it is not known, has expired, or is for somebody else.
    pub fn identify(&self, token: &str, host: &str) -> Result<Caller, Status> {
        let claims = self
            .issuer
            .as_ref()
            .and_then(|issuer| issuer.check_id_token(token).ok());
        match claims {
            Some(claims) if is_for(&claims.aud, host) => Ok(Caller {
                principal: claims.email,
            }),
            Some(claims) => Err(unauthenticated(&format!(
                "The identity token is for '{}'; this is {host}.",
                claims.aud
            ))),
            None => self.bearer(token),
        }
    }
}

/// Whether an audience means a host. A tag's host is its service's.
fn is_for(audience: &str, host: &str) -> bool {
    let rest = audience
        .split_once("://")
        .map_or(audience, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let named = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    };
    let untagged = |host: &str| {
        let name = host.split_once("---").map_or(host, |(_, name)| name);
        name.to_ascii_lowercase()
    };
    !named.is_empty() && untagged(named) == untagged(host)
}

fn presented(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        return Some(decoded.split_once(':')?.1.to_owned());
    }
    None
}

fn unauthenticated(message: &str) -> Status {
    Status::new(Code::Unauthenticated, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_means_a_host() {
        let host = "hello-1.us.run.localhost";
        for (audience, fits) in [
            ("https://hello-1.us.run.localhost", true),
            ("http://hello-1.us.run.localhost:8080/path?x", true),
            ("hello-1.us.run.localhost", true),
            ("https://green---hello-1.us.run.localhost", true),
            ("https://other-1.us.run.localhost", false),
            ("https://evil.example/hello-1.us.run.localhost", false),
            ("https://hello-1.us.run.localhost.evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_for(audience, host), fits, "{audience}");
        }
    }

    #[test]
    fn only_the_token_opens_the_door() {
        let dir = tempfile::tempdir().unwrap();
        let iam = Iam::open(dir.path(), "run.localhost").unwrap();
        let token = std::fs::read_to_string(iam.token_file()).unwrap();
        let token = token.trim();
        let ok = |header: &str| iam.authenticate(Some(header)).is_ok();
        assert!(ok(&format!("Bearer {token}")));
        assert!(ok(&format!("bearer {token}")));
        assert!(ok(&format!(
            "Basic {}",
            STANDARD.encode(format!("any:{token}"))
        )));
        assert!(!ok("Bearer "));
        assert!(!ok("Bearer x"));
        assert!(!ok(&format!("Bearer {token}x")));
        assert!(!ok(&format!("Digest {token}")));
        assert!(!ok("Basic !!!"));
        assert_eq!(
            iam.authenticate(None).unwrap_err().code,
            Code::Unauthenticated
        );
        // A second start finds the same token.
        let again = Iam::open(dir.path(), "run.localhost").unwrap();
        assert!(again.authenticate(Some(&format!("Bearer {token}"))).is_ok());
    }
}
