//! Who is calling and what they may do.
//!
//! Today there is one principal with a secret of its own, the administrator, whose bearer token is
//! made at the first start and kept in a file that only its owner can read. Policies on services
//! decide who else may call them (`allUsers`).
#![forbid(unsafe_code)]

mod token;

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lauf_model::policy::{ALL_AUTHENTICATED_USERS, INVOKER};
use lauf_model::{Code, Policy, Status};

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
        })
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
    }
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
