//! The keys that tokens are signed with. One signs; those before it still verify until no token that
//! they signed can be valid, so that a change of keys is noticed by nobody.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use rsa::pkcs8::EncodePrivateKey as _;
use serde::{Deserialize, Serialize};

/// The size of a key, in bits.
const BITS: usize = 2048;
/// How long a key signs.
pub const SIGNS_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How long the key that follows is shown before it signs, so that whoever keeps a copy of the keys
/// has it by then.
pub const SHOWN_BEFORE: Duration = Duration::from_secs(24 * 3_600);
/// How long a key verifies after it has stopped signing: longer than any token lives.
const VERIFIES_AFTER: Duration = Duration::from_secs(2 * 24 * 3_600);

/// A key as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredKey {
    /// Its name in tokens.
    pub id: String,
    /// PKCS #8, DER, base64.
    private: String,
    /// When it begins to sign.
    pub signs_from: Timestamp,
}

impl std::fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredKey({})", self.id)
    }
}

impl StoredKey {
    /// Makes a key. It takes up to seconds: call it where nothing waits.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate(signs_from: Timestamp) -> Result<Self, KeyError> {
        let private = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, BITS)
            .map_err(|error| KeyError(error.to_string()))?;
        let der = private
            .to_pkcs8_der()
            .map_err(|error| KeyError(error.to_string()))?;
        let mut id = [0_u8; 16];
        getrandom::fill(&mut id).map_err(|error| KeyError(error.to_string()))?;
        Ok(Self {
            id: format!("{:032x}", u128::from_be_bytes(id)),
            private: STANDARD.encode(der.as_bytes()),
            signs_from,
        })
    }
}

/// A key cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a signing key: {0}")]
pub struct KeyError(String);

/// A key ready for use.
struct Key {
    id: String,
    pair: RsaKeyPair,
    signs_from: Timestamp,
}

/// All keys, the oldest first.
pub struct Keys(Vec<Key>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|key| &key.id))
            .finish()
    }
}

impl Keys {
    /// Reads keys as they were kept.
    ///
    /// # Errors
    /// When one is none.
    pub fn new(stored: &[StoredKey]) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for stored in stored {
            let wrong = |error: String| KeyError(format!("{}: {error}", stored.id));
            let der = STANDARD
                .decode(&stored.private)
                .map_err(|error| wrong(error.to_string()))?;
            let pair = RsaKeyPair::from_pkcs8(&der).map_err(|error| wrong(error.to_string()))?;
            keys.push(Key {
                id: stored.id.clone(),
                pair,
                signs_from: stored.signs_from,
            });
        }
        keys.sort_by_key(|key| key.signs_from);
        Ok(Self(keys))
    }

    /// Signs, and says with which key.
    pub(crate) fn sign(
        &self,
        now: Timestamp,
        signed: impl FnOnce(&str) -> String,
    ) -> Option<String> {
        let key = self.0.iter().rev().find(|key| key.signs_from <= now);
        let key = key.or(self.0.first())?;
        let text = signed(&key.id);
        let mut signature = vec![0; key.pair.public().modulus_len()];
        key.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                text.as_bytes(),
                &mut signature,
            )
            .ok()?;
        Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Whether the key of that name signed it.
    pub(crate) fn verify(&self, id: &str, signed: &[u8], signature: &[u8]) -> bool {
        let key = self.0.iter().find(|key| key.id == id);
        key.is_some_and(|key| {
            let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.pair.public());
            public
                .verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
                .is_ok()
        })
    }

    /// The public keys (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> serde_json::Value {
        let keys: Vec<serde_json::Value> = self
            .0
            .iter()
            .map(|key| {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.pair.public());
                serde_json::json!({
                    "kty": "RSA",
                    "alg": "RS256",
                    "use": "sig",
                    "kid": key.id,
                    "n": URL_SAFE_NO_PAD.encode(public.n),
                    "e": URL_SAFE_NO_PAD.encode(public.e),
                })
            })
            .collect();
        serde_json::json!({ "keys": keys })
    }
}

/// What has to be done about keys at a time.
#[derive(Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A key has to be made, that signs from then on.
    pub make: Option<Timestamp>,
    /// These can go.
    pub remove: Vec<String>,
}

/// Decides when keys are made and when they go.
#[must_use]
pub fn rotation(keys: &[StoredKey], now: Timestamp) -> Rotation {
    let after = |time: Timestamp, duration: Duration| {
        let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        time.checked_add(duration).unwrap_or(Timestamp::MAX)
    };
    let newest = keys.iter().map(|key| key.signs_from).max();
    let make = match newest {
        None => Some(now),
        Some(newest) => {
            let next = after(newest, SIGNS_FOR);
            // After a long pause the next one is late, and signs at once.
            (after(now, SHOWN_BEFORE) >= next).then_some(next.max(now))
        }
    };
    let stopped = |key: &StoredKey| {
        let next = keys
            .iter()
            .map(|k| k.signs_from)
            .filter(|t| *t > key.signs_from)
            .min();
        next.is_some_and(|next| after(next, VERIFIES_AFTER) <= now)
    };
    let remove = keys
        .iter()
        .filter(|key| stopped(key))
        .map(|key| key.id.clone());
    Rotation {
        make,
        remove: remove.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, day: i64) -> StoredKey {
        StoredKey {
            id: id.to_owned(),
            private: String::new(),
            signs_from: at(day),
        }
    }

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(day * 24 * 3_600).unwrap()
    }

    #[test]
    fn keys_follow_each_other_without_a_gap() {
        let plan = |keys: &[StoredKey], day| rotation(keys, at(day));
        assert_eq!(plan(&[], 5).make, Some(at(5)));
        let first = [key("a", 5)];
        assert_eq!(plan(&first, 33).make, None);
        // A day before its time, so that everybody knows it when it signs.
        assert_eq!(plan(&first, 34).make, Some(at(35)));
        let both = [key("a", 5), key("b", 35)];
        assert_eq!(plan(&both, 34).make, None);
        assert!(plan(&both, 36).remove.is_empty());
        assert_eq!(plan(&both, 37).remove, ["a"]);
        // After a year of standing still, at once.
        assert_eq!(plan(&both, 400).make, Some(at(400)));
    }
}
