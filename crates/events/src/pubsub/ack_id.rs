//! What a subscriber gets with a message and gives back to say that it is done.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::log::Position;

/// A message and the lease of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AckId {
    pub(crate) position: Position,
    pub(crate) number: u64,
}

impl AckId {
    /// As text. The `tag` is the subscription's, so that nobody takes one for another's.
    pub(crate) fn to_text(self, tag: u32) -> String {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&tag.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.position.0.to_be_bytes());
        bytes[12..].copy_from_slice(&self.number.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads the text. `None` if it is none, or another subscription's.
    pub(crate) fn from_text(text: &str, tag: u32) -> Option<Self> {
        let mut bytes = [0; 20];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (found, rest) = bytes.split_first_chunk()?;
        let (position, rest) = rest.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        (length == bytes.len() && u32::from_be_bytes(*found) == tag).then_some(Self {
            position: Position(u64::from_be_bytes(*position)),
            number: u64::from_be_bytes(*number),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_back_to_its_own_subscription_only() {
        let id = AckId {
            position: Position(7),
            number: u64::MAX,
        };
        let text = id.to_text(5);
        assert_eq!(AckId::from_text(&text, 5), Some(id));
        assert_eq!(AckId::from_text(&text, 6), None);
        for wrong in ["", "x", &text[1..], &format!("{text}AA"), "ünïcode"] {
            assert_eq!(AckId::from_text(wrong, 5), None);
        }
    }
}
