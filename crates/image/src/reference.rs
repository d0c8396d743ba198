//! Image names as people type them: `hello`, `localhost:8080/team/hello:v2`,
//! `us-docker.pkg.dev/p/r/i@sha256:…`.
//!
//! The grammar is the distribution specification's (section "Pull", `<name>` and `<reference>`)
//! with Docker's rule for the host: the first part is a host when it holds a dot or a colon or is
//! `localhost`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// The longest repository name accepted, host included (distribution-spec: clients may rely on 255).
const MAX_NAME: usize = 255;

/// A parsed image name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The registry's host and port, when the name had one.
    pub host: Option<String>,
    /// The repository's path without the host, never empty.
    pub path: String,
    /// The tag, when the name had one.
    pub tag: Option<String>,
    /// The digest, when the name had one; it wins over the tag.
    pub digest: Option<Digest>,
}

/// Why a text is not an image name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("image name \"{name}\" is not valid: {why}")]
pub struct InvalidReference {
    /// The text as given, cut to a printable length.
    pub name: String,
    /// What is wrong and what is allowed.
    pub why: &'static str,
}

impl Reference {
    /// The tag that is meant when neither tag nor digest is written.
    pub const DEFAULT_TAG: &'static str = "latest";

    /// Host and path together, without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.host {
            Some(host) => format!("{host}/{}", self.path),
            None => self.path.clone(),
        }
    }

    /// The tag asked for, `latest` if none is written.
    #[must_use]
    pub fn tag_or_default(&self) -> &str {
        self.tag.as_deref().unwrap_or(Self::DEFAULT_TAG)
    }

    /// The same repository, fixed to one manifest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}/")?;
        }
        f.write_str(&self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let bad = |why| InvalidReference {
            name: text.chars().take(300).collect(),
            why,
        };
        if text.is_empty() {
            return Err(bad(
                "it is empty; write for example hello or us-docker.pkg.dev/p/r/i:tag",
            ));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|_| bad("after @ comes a digest such as sha256:<64 hex digits>"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash starts the tag; one before it belongs to the host's port.
        let last = rest.rfind('/').map_or(0, |i| i + 1);
        let (name, tag) = match rest[last..].rfind(':') {
            Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(bad(
                "a tag is 1 to 128 letters, digits, '_', '.', '-', not starting with '.' or '-'",
            ));
        }
        if name.len() > MAX_NAME {
            return Err(bad(
                "the name without the tag may have at most 255 characters",
            ));
        }
        let (host, path) = match name.split_once('/') {
            Some((first, path)) if first == "localhost" || first.contains(['.', ':']) => {
                (Some(first), path)
            }
            _ => (None, name),
        };
        if let Some(host) = host
            && !is_host(host)
        {
            return Err(bad(
                "the registry's host may hold letters, digits, '.', '-' and a port",
            ));
        }
        if !is_repository(path) {
            return Err(bad(
                "each part between slashes is lower-case letters and digits, joined by '.', '_', '__' or dashes",
            ));
        }
        Ok(Self {
            host: host.map(str::to_ascii_lowercase),
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        // An IPv6 address: [::1]:8080
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                if address.is_empty()
                    || !address
                        .bytes()
                        .all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.')
                {
                    return false;
                }
                ("", port.strip_prefix(':'))
            }
            None => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let name_ok = host.starts_with('[')
        || (!name.is_empty()
            && name.split('.').all(|label| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            }));
    name_ok && port.is_none_or(|p| p.parse::<u16>().is_ok_and(|n| n > 0))
}

/// Whether `name` is a repository name by the distribution specification.
#[must_use]
pub fn is_repository(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && name.split('/').all(is_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let Some((first, last)) = bytes.first().zip(bytes.last()) else {
        return false;
    };
    if !alnum(*first) || !alnum(*last) {
        return false;
    }
    let mut i = 0;
    while i < bytes.len() {
        if alnum(bytes[i]) {
            i += 1;
            continue;
        }
        let start = i;
        while i < bytes.len() && !alnum(bytes[i]) {
            i += 1;
        }
        let ok = match &bytes[start..i] {
            b"." | b"_" | b"__" => true,
            run => run.iter().all(|b| *b == b'-'),
        };
        if !ok {
            return false;
        }
    }
    true
}

/// Whether `tag` is a tag by the distribution specification.
#[must_use]
pub fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    matches!(bytes.first(), Some(b) if b.is_ascii_alphanumeric() || *b == b'_')
        && bytes.len() <= 128
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fall_into_their_parts() {
        let cases = [
            ("hello", None, "hello", None),
            ("hello:v1", None, "hello", Some("v1")),
            ("team/hello", None, "team/hello", None),
            ("localhost/hello", Some("localhost"), "hello", None),
            (
                "localhost:8080/a/b:x",
                Some("localhost:8080"),
                "a/b",
                Some("x"),
            ),
            ("[::1]:8080/a", Some("[::1]:8080"), "a", None),
            (
                "us-docker.pkg.dev/p/r/i",
                Some("us-docker.pkg.dev"),
                "p/r/i",
                None,
            ),
            ("a__b/c--d.e_f", None, "a__b/c--d.e_f", None),
        ];
        for (text, host, path, tag) in cases {
            let got: Reference = text.parse().unwrap();
            assert_eq!(
                (got.host.as_deref(), got.path.as_str(), got.tag.as_deref()),
                (host, path, tag)
            );
            assert_eq!(got.to_string(), text);
        }
    }

    #[test]
    fn bad_names_say_why() {
        for text in [
            "",
            "Hello",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:.x",
            "../a",
            "a/../b",
            "a@sha256:12",
            "a___b",
            "-a",
            "a.-b",
            "x y",
            "a_-b",
            "host.x:99999/a",
            "[::1/a",
            "a\u{0}b",
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(error.to_string().contains("not valid"), "{text:?}");
        }
    }
}
