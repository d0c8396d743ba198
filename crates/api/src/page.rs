//! Tokens that say where the next page of a list starts. They name the last object of the page
//! before, so they stay good when objects come and go.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lauf_model::{Code, Status};
use serde::{Deserialize, Serialize};

/// The place after which the next page starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    #[serde(rename = "s")]
    pub(crate) scope: String,
    #[serde(rename = "n")]
    pub(crate) name: String,
    /// Whether the place is in the second of two lists that are shown as one.
    #[serde(rename = "2", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) second: bool,
}

impl Token {
    /// As clients see it.
    pub(crate) fn encode(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(json)
    }

    /// Reads what [`Token::encode`] wrote; `None` for the empty text.
    pub(crate) fn decode(text: &str) -> Result<Option<Self>, Status> {
        if text.is_empty() {
            return Ok(None);
        }
        URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .map(Some)
            .ok_or_else(Self::wrong)
    }

    /// The answer to a text that is no token.
    pub(crate) fn wrong() -> Status {
        Status::new(
            Code::InvalidArgument,
            "The page token is not one that a list gave. Start again without it.",
        )
    }
}
