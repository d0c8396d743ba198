//! Names of revisions: `SERVICE-00001-abc`, as Cloud Run makes them.

/// Letters of the suffix: no vowels, so that it never spells a word.
const LETTERS: &[u8; 20] = b"bcdfghjklmnpqrstvwxz";

/// A fresh name for the revision of `service` made at `generation`. `random` are three bytes.
/// Service names have at most 49 characters, so the name fits into a DNS label of 63.
pub(crate) fn revision(service: &str, generation: i64, random: [u8; 3]) -> String {
    let suffix: String = random
        .iter()
        .map(|b| char::from(LETTERS[usize::from(*b) % LETTERS.len()]))
        .collect();
    format!("{service}-{generation:05}-{suffix}")
}

/// As [`revision`], with random bytes of its own.
pub(crate) fn fresh_revision(owner: &str, generation: i64) -> String {
    let mut random = [0; 3];
    getrandom::fill(&mut random).expect("the kernel gives random bytes");
    revision(owner, generation, random)
}

#[cfg(test)]
mod tests {
    use super::revision;

    #[test]
    fn looks_like_cloud_runs() {
        assert_eq!(revision("hello", 1, [0, 1, 22]), "hello-00001-bcd");
    }
}
