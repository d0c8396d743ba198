//! What Lauf's streams are called on the server.
//!
//! A NATS stream may not bear every name that one of Lauf's may, so it is called by a hash, and its
//! description says the real name. All names begin with the owner, so that several Laufs can share a
//! server and none takes another's streams for rubbish. A stream's subject ends in something random: what
//! is still on its way to a stream that has been deleted never gets into the next one of the same name.

use sha2::{Digest as _, Sha256};

/// Streams of one owner.
pub(super) struct Names {
    owner: String,
}

impl Names {
    pub(super) fn new(owner: &str) -> Self {
        Self {
            owner: owner.to_owned(),
        }
    }

    /// What a stream is called on the server.
    pub(super) fn on_server(&self, stream: &str) -> String {
        let hash = Sha256::digest(stream.as_bytes());
        format!("{}{}", self.prefix(), hex(&hash[..16]))
    }

    /// What the names of all this owner's streams begin with.
    pub(super) fn prefix(&self) -> String {
        format!("lauf-{}-", self.owner)
    }

    /// A subject that no stream had before.
    pub(super) fn subject(&self, random: u64) -> String {
        format!("lauf.{}.{random:016x}", self.owner)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why somebody cannot be called this as owner, if they cannot: it becomes part of subjects and of
/// names of files on the server.
pub(super) fn owner_problem(owner: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if owner.is_empty() || owner.len() > 32 || !owner.chars().all(allowed) {
        return Some(format!(
            "the owner of a message log cannot be called {owner:?}: 1 to 32 lower-case letters and digits are allowed"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_servers_and_belong_to_their_owner() {
        let (a, b) = (Names::new("a"), Names::new("b"));
        let name = a.on_server("pubsub/topics/x.y > z");
        assert!(name.starts_with("lauf-a-"));
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
        assert_eq!(name, a.on_server("pubsub/topics/x.y > z"));
        assert_ne!(name, a.on_server("pubsub/topics/x"));
        assert_ne!(name, b.on_server("pubsub/topics/x.y > z"));
    }

    #[test]
    fn owners_that_are_no_part_of_a_subject_are_refused() {
        assert_eq!(owner_problem("0123456789abcdef"), None);
        for owner in ["", "a.b", "A", "a*", &"a".repeat(33)] {
            assert!(owner_problem(owner).is_some(), "{owner}");
        }
    }
}
