//! Reading a request's path and query (distribution-spec, "Endpoints").

use http::Method;

use super::{Action, Refusal};
use crate::digest::Digest;
use crate::reference;

/// What a path stands for, without the repository's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Base,
    Catalog,
    Tags,
    Referrers(Digest),
    Manifest(ManifestRef),
    Blob(Digest),
    Uploads,
    Upload(String),
}

/// How a manifest is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ManifestRef {
    Tag(String),
    Digest(Digest),
}

impl std::fmt::Display for ManifestRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl Endpoint {
    /// Reads what follows `/v2`; the second value is the repository's name.
    pub(super) fn parse(path: &str) -> Result<(Self, Option<String>), Refusal> {
        let path = percent_decode(path)?;
        let path = path.trim_start_matches('/');
        if path.is_empty() {
            return Ok((Self::Base, None));
        }
        if path == "_catalog" {
            return Ok((Self::Catalog, None));
        }
        let (name, endpoint) = Self::split(path)?;
        if !reference::is_repository(name) {
            return Err(Refusal::name_invalid(name));
        }
        Ok((endpoint, Some(name.to_owned())))
    }

    fn split(path: &str) -> Result<(&str, Self), Refusal> {
        let digest = |text: &str| {
            text.parse::<Digest>()
                .map_err(|e| Refusal::digest_invalid(e.to_string()))
        };
        if let Some(name) = path.strip_suffix("/tags/list") {
            return Ok((name, Self::Tags));
        }
        if let Some(name) = path
            .strip_suffix("/blobs/uploads/")
            .or_else(|| path.strip_suffix("/blobs/uploads"))
        {
            return Ok((name, Self::Uploads));
        }
        let (rest, last) = path.rsplit_once('/').ok_or_else(Refusal::not_found)?;
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Ok((name, Self::Upload(last.to_owned())));
        }
        if let Some(name) = rest.strip_suffix("/manifests") {
            let reference = if last.contains(':') {
                ManifestRef::Digest(digest(last)?)
            } else if reference::is_tag(last) {
                ManifestRef::Tag(last.to_owned())
            } else {
                // Nothing can be stored under such a name, so nothing is found there either.
                return Err(Refusal::manifest_unknown("of that name: it is not a tag"));
            };
            return Ok((name, Self::Manifest(reference)));
        }
        if let Some(name) = rest.strip_suffix("/blobs") {
            return Ok((name, Self::Blob(digest(last)?)));
        }
        if let Some(name) = rest.strip_suffix("/referrers") {
            return Ok((name, Self::Referrers(digest(last)?)));
        }
        Err(Refusal::not_found())
    }

    /// What the method does at this endpoint.
    pub(super) fn action(&self, method: &Method) -> Result<Action, Refusal> {
        let read = matches!(*method, Method::GET | Method::HEAD);
        match self {
            Self::Base | Self::Catalog | Self::Tags | Self::Referrers(_) if read => {
                Ok(Action::Pull)
            }
            Self::Manifest(_) | Self::Blob(_) if read => Ok(Action::Pull),
            Self::Manifest(_) if *method == Method::PUT => Ok(Action::Push),
            Self::Manifest(_) | Self::Blob(_) if *method == Method::DELETE => Ok(Action::Delete),
            Self::Uploads if *method == Method::POST => Ok(Action::Push),
            Self::Upload(_)
                if matches!(
                    *method,
                    Method::GET | Method::PATCH | Method::PUT | Method::DELETE
                ) =>
            {
                Ok(Action::Push)
            }
            _ => Err(Refusal::method()),
        }
    }
}

/// A request's query, by key; the first value counts.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        text.split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((
                    percent_decode(key)?,
                    percent_decode(&value.replace('+', " "))?,
                ))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    pub(super) fn all<'q>(&'q self, key: &'q str) -> impl Iterator<Item = &'q str> {
        self.0
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    pub(super) fn digest(&self, key: &str) -> Result<Option<Digest>, Refusal> {
        self.get(key)
            .map(|text| {
                text.parse()
                    .map_err(|e| Refusal::digest_invalid(format!("{e}")))
            })
            .transpose()
    }
}

fn percent_decode(text: &str) -> Result<String, Refusal> {
    let bad = || {
        Refusal::new(
            http::StatusCode::BAD_REQUEST,
            "UNSUPPORTED",
            "the path is not valid",
        )
    };
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || {
            bytes
                .next()
                .and_then(|b| char::from(b).to_digit(16))
                .ok_or_else(bad)
        };
        let value = digit()? * 16 + digit()?;
        out.push(u8::try_from(value).map_err(|_| bad())?);
    }
    String::from_utf8(out).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fall_into_name_and_endpoint() {
        let digest = Digest::of(b"");
        let cases = [
            ("/", None, Endpoint::Base),
            ("/_catalog", None, Endpoint::Catalog),
            ("/a/b/tags/list", Some("a/b"), Endpoint::Tags),
            ("/a/blobs/uploads/", Some("a"), Endpoint::Uploads),
            (
                "/a/blobs/uploads/x1",
                Some("a"),
                Endpoint::Upload("x1".into()),
            ),
            (
                "/a/manifests/v1",
                Some("a"),
                Endpoint::Manifest(ManifestRef::Tag("v1".into())),
            ),
            ("/blobs/blobs/uploads", Some("blobs"), Endpoint::Uploads),
        ];
        for (path, name, endpoint) in cases {
            let got = Endpoint::parse(path).unwrap();
            assert_eq!(got, (endpoint, name.map(str::to_owned)), "{path}");
        }
        let encoded = format!("/a/blobs/{}", digest.to_string().replace(':', "%3A"));
        assert_eq!(Endpoint::parse(&encoded).unwrap().0, Endpoint::Blob(digest));
        for bad in [
            "/A/tags/list",
            "/a/../b/tags/list",
            "/a",
            "/a/blobs/zz",
            "/%2e%2e/x/tags/list",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
