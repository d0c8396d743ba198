//! Tokens that say who is calling: signed here, and checked here and by whoever asks for the keys.
//!
//! They are JSON Web Tokens (RFC 7519) with RS256, as Google's are. Two sorts: *identity tokens* name
//! an audience, for services; *access tokens* name a scope, for the APIs. Neither is taken for the
//! other.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use lauf_model::Clock;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::keys::Keys;

/// How long a token is good for.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3_600);
/// How far the clocks of two machines may be apart.
const LEEWAY: i64 = 30;
/// The longest token that is looked at.
const MAX_TOKEN: usize = 8 << 10;

const ID_TOKEN: &str = "JWT";
const ACCESS_TOKEN: &str = "at+jwt";

/// Makes tokens and checks them.
pub struct Issuer {
    url: String,
    clock: Arc<dyn Clock>,
    keys: RwLock<Option<Arc<Keys>>>,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Issuer({})", self.url)
    }
}

/// There is no key yet: the first is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key that tokens are signed with is still being made; try again in some seconds")]
pub struct NoKey;

/// A token is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// It is no token of this issuer, or of another sort.
    #[error("it is no token of this Lauf")]
    Unknown,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who says so.
    pub iss: String,
    /// For whom; empty in access tokens.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub aud: String,
    /// Whose: a number that goes with the email address.
    pub sub: String,
    /// For whom it was made: the same.
    pub azp: String,
    /// Whose.
    pub email: String,
    /// Whether that is certain. It is.
    pub email_verified: bool,
    /// What it may be used for; only in access tokens.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// Since when, in seconds since 1970.
    pub iat: i64,
    /// Until when.
    pub exp: i64,
}

impl Issuer {
    /// An issuer under a URL, where its keys can be fetched.
    #[must_use]
    pub fn new(url: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        Self {
            url: url.into(),
            clock,
            keys: RwLock::default(),
        }
    }

    /// The URL that tokens name.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Takes these keys from now on.
    pub fn set_keys(&self, keys: Keys) {
        let mut held = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        *held = Some(Arc::new(keys));
    }

    fn keys(&self) -> Result<Arc<Keys>, NoKey> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone().ok_or(NoKey)
    }

    /// The public keys, as a JSON Web Key Set.
    #[must_use]
    pub fn jwks(&self) -> serde_json::Value {
        self.keys()
            .map_or_else(|_| serde_json::json!({ "keys": [] }), |keys| keys.jwks())
    }

    /// What OpenID Connect Discovery asks for.
    #[must_use]
    pub fn discovery(&self) -> serde_json::Value {
        serde_json::json!({
            "issuer": self.url,
            "jwks_uri": format!("{}/oauth2/v3/certs", self.url),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "claims_supported": ["aud", "azp", "email", "email_verified", "exp", "iat", "iss", "sub"],
        })
    }

    /// An identity token of an account for an audience.
    ///
    /// # Errors
    /// [`NoKey`].
    pub fn id_token(&self, email: &str, audience: &str) -> Result<String, NoKey> {
        let claims = Claims {
            aud: audience.to_owned(),
            ..self.claims(email)
        };
        self.sign(ID_TOKEN, &claims)
    }

    /// An access token of an account.
    ///
    /// # Errors
    /// [`NoKey`].
    pub fn access_token(&self, email: &str, scope: &str) -> Result<String, NoKey> {
        let claims = Claims {
            scope: scope.to_owned(),
            ..self.claims(email)
        };
        self.sign(ACCESS_TOKEN, &claims)
    }

    fn claims(&self, email: &str) -> Claims {
        let now = self.clock.now().as_second();
        let life = i64::try_from(TOKEN_LIFE.as_secs()).unwrap_or(0);
        let sub = subject(email);
        Claims {
            iss: self.url.clone(),
            aud: String::new(),
            azp: sub.clone(),
            sub,
            email: email.to_owned(),
            email_verified: true,
            scope: String::new(),
            iat: now,
            exp: now + life,
        }
    }

    fn sign(&self, sort: &str, claims: &Claims) -> Result<String, NoKey> {
        let now = Timestamp::from_second(claims.iat).unwrap_or_default();
        let signed = self.keys()?.sign(now, |kid| {
            let header = Header {
                alg: "RS256".to_owned(),
                kid: kid.to_owned(),
                typ: sort.to_owned(),
            };
            format!("{}.{}", part(&header), part(claims))
        });
        signed.ok_or(NoKey)
    }

    /// Reads an identity token. Whoever asked must see to it that they are the audience.
    ///
    /// # Errors
    /// See [`BadToken`].
    pub fn check_id_token(&self, token: &str) -> Result<Claims, BadToken> {
        self.check(ID_TOKEN, token)
    }

    /// Reads an access token.
    ///
    /// # Errors
    /// See [`BadToken`].
    pub fn check_access_token(&self, token: &str) -> Result<Claims, BadToken> {
        self.check(ACCESS_TOKEN, token)
    }

    fn check(&self, sort: &str, token: &str) -> Result<Claims, BadToken> {
        if token.len() > MAX_TOKEN {
            return Err(BadToken::Unknown);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(BadToken::Unknown)?;
        let (header, claims) = signed.split_once('.').ok_or(BadToken::Unknown)?;
        let header: Header = unpart(header)?;
        // Nothing else is signed with these keys, whatever the header says it is.
        if header.alg != "RS256" || header.typ != sort {
            return Err(BadToken::Unknown);
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| BadToken::Unknown)?;
        let keys = self.keys().map_err(|_| BadToken::Unknown)?;
        if !keys.verify(&header.kid, signed.as_bytes(), &signature) {
            return Err(BadToken::Unknown);
        }
        let claims: Claims = unpart(claims)?;
        if claims.iss != self.url {
            return Err(BadToken::Unknown);
        }
        let now = self.clock.now().as_second();
        if claims.exp + LEEWAY <= now || claims.iat > now + LEEWAY {
            return Err(BadToken::Expired);
        }
        Ok(claims)
    }
}

/// A number of 21 digits that goes with an email address, as Google's accounts have one.
fn subject(email: &str) -> String {
    let hash = Sha256::digest(email.as_bytes());
    let number = hash
        .iter()
        .take(8)
        .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    format!("1{number:020}")
}

fn part<T: Serialize>(of: &T) -> String {
    // Strings, numbers and a boolean: nothing of it can fail.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(of).unwrap_or_default())
}

fn unpart<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, BadToken> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| BadToken::Unknown)?;
    serde_json::from_slice(&bytes).map_err(|_| BadToken::Unknown)
}

#[cfg(test)]
mod tests {
    use lauf_model::VirtualClock;
    use proptest::prelude::*;

    use super::*;
    use crate::keys::StoredKey;

    fn issuer() -> (Issuer, Arc<VirtualClock>) {
        let clock = Arc::new(VirtualClock::new());
        let issuer = Issuer::new("http://lauf.example", Arc::clone(&clock) as _);
        let key = StoredKey::generate(Timestamp::UNIX_EPOCH).unwrap();
        issuer.set_keys(Keys::new(&[key]).unwrap());
        (issuer, clock)
    }

    #[test]
    fn tokens_say_who_for_whom_and_for_how_long() {
        let (issuer, clock) = issuer();
        let token = issuer.id_token("a@demo.example", "https://worker").unwrap();
        let claims = issuer.check_id_token(&token).unwrap();
        assert_eq!(
            (&*claims.email, &*claims.aud),
            ("a@demo.example", "https://worker")
        );
        assert_eq!(claims.sub.len(), 21);
        assert_eq!(issuer.check_access_token(&token), Err(BadToken::Unknown));

        let access = issuer.access_token("a@demo.example", "all").unwrap();
        assert_eq!(issuer.check_access_token(&access).unwrap().scope, "all");
        assert_eq!(issuer.check_id_token(&access), Err(BadToken::Unknown));

        clock.advance(TOKEN_LIFE + Duration::from_secs(31));
        assert_eq!(issuer.check_id_token(&token), Err(BadToken::Expired));
    }

    #[test]
    fn keys_overlap() {
        let (issuer, _) = issuer();
        assert_eq!(
            Issuer::new("x", Arc::new(VirtualClock::new())).id_token("a", "b"),
            Err(NoKey)
        );
        let old = StoredKey::generate(Timestamp::UNIX_EPOCH).unwrap();
        issuer.set_keys(Keys::new(std::slice::from_ref(&old)).unwrap());
        let token = issuer.id_token("a@b", "c").unwrap();
        let later = Timestamp::from_second(1_000).unwrap();
        let new = StoredKey::generate(later).unwrap();
        issuer.set_keys(Keys::new(&[new, old]).unwrap());
        assert!(issuer.check_id_token(&token).is_ok());
        assert_eq!(issuer.jwks()["keys"].as_array().unwrap().len(), 2);
        // Another Lauf's tokens are not ours.
        let (other, _) = self::issuer();
        let foreign = other.id_token("a@b", "c").unwrap();
        assert_eq!(issuer.check_id_token(&foreign), Err(BadToken::Unknown));
    }

    #[test]
    fn what_is_changed_is_not_taken() {
        let (issuer, _) = issuer();
        let token = issuer.id_token("a@b", "c").unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let none = part(&serde_json::json!({"alg": "none", "kid": "x", "typ": "JWT"}));
        let mut claims = issuer.check_id_token(&token).unwrap();
        claims.email = "admin@b".to_owned();
        for wrong in [
            String::new(),
            "..".to_owned(),
            "a.b.c".to_owned(),
            format!("{none}.{}.", parts[1]),
            format!("{}.{}.{}", parts[0], part(&claims), parts[2]),
            format!("{}.{}", parts[0], parts[1]),
            "x".repeat(MAX_TOKEN + 1),
        ] {
            assert_eq!(
                issuer.check_id_token(&wrong),
                Err(BadToken::Unknown),
                "{wrong}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "[a-zA-Z0-9._=-]{0,80}") {
            let issuer = Issuer::new("x", Arc::new(VirtualClock::new()));
            prop_assert!(issuer.check_id_token(&text).is_err());
        }
    }
}
