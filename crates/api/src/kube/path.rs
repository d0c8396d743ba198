//! Paths of this face: what a request is about.

use super::PREFIX;
use super::failure::Failure;
use super::kind::Kind;
use super::kinds;
use super::review::Review;

/// What a request is about.
pub(crate) enum Target {
    /// `/`.
    Root,
    /// `/livez` and its like.
    Health,
    /// `/version`.
    Version,
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApiV3,
    /// `/openapi/v3/apis/GROUP/VERSION`, without the beginning.
    OpenApiV3Of(String),
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/apis/GROUP/VERSION`, or `/api/VERSION`.
    Resources(String, String),
    /// A question about the caller.
    Review(Review),
    /// Objects of a kind, or one of them.
    Object {
        kind: &'static dyn Kind,
        region: Option<String>,
        namespace: Option<String>,
        /// Empty for all of them.
        name: String,
        subresource: Option<String>,
    },
}

/// Reads a path.
pub(crate) fn parse(path: &[String]) -> Result<Target, Failure> {
    let mut path: Vec<&str> = path.iter().map(String::as_str).collect();
    while path.last().is_some_and(|last| last.is_empty()) {
        path.pop();
    }
    let (region, path) = match path.as_slice() {
        [first, region, rest @ ..] if *first == PREFIX => (Some((*region).to_owned()), rest),
        [first] if *first == PREFIX => (None, &[][..]),
        all => (None, all),
    };
    let (group, version, rest) = match path {
        [] => return Ok(Target::Root),
        ["livez" | "readyz" | "healthz", ..] => return Ok(Target::Health),
        ["version"] => return Ok(Target::Version),
        ["openapi", "v2"] => return Ok(Target::OpenApiV2),
        ["openapi", "v3"] => return Ok(Target::OpenApiV3),
        ["openapi", "v3", rest @ ..] => return Ok(Target::OpenApiV3Of(rest.join("/"))),
        ["api"] => return Ok(Target::CoreVersions),
        ["apis"] => return Ok(Target::Groups),
        ["apis", group] => return Ok(Target::Group((*group).to_owned())),
        ["api", version] => return Ok(Target::Resources(String::new(), (*version).to_owned())),
        ["apis", group, version] => {
            return Ok(Target::Resources(
                (*group).to_owned(),
                (*version).to_owned(),
            ));
        }
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return Err(nowhere(path)),
    };
    if let [plural] = rest
        && let Some(review) = Review::find(group, version, plural)
    {
        return Ok(Target::Review(review));
    }
    let (namespace, plural, rest) = match rest {
        ["namespaces", namespace, plural, rest @ ..] => {
            (Some((*namespace).to_owned()), *plural, rest)
        }
        [plural, rest @ ..] => (None, *plural, rest),
        [] => return Err(nowhere(path)),
    };
    let kind = kinds::find(group, version, plural).ok_or_else(|| nowhere(path))?;
    let (name, subresource) = match rest {
        [] => (String::new(), None),
        [name] => ((*name).to_owned(), None),
        [name, sub] => ((*name).to_owned(), Some((*sub).to_owned())),
        _ => return Err(nowhere(path)),
    };
    let names = kind.names();
    let well_placed = if names.namespaced {
        // Across all namespaces there are lists and nothing else.
        namespace.is_some() || name.is_empty()
    } else {
        namespace.is_none()
    };
    if !well_placed
        || subresource
            .as_deref()
            .is_some_and(|s| s != "status" || !names.status)
    {
        return Err(nowhere(path));
    }
    Ok(Target::Object {
        kind,
        region,
        namespace,
        name,
        subresource,
    })
}

/// The namespace of a path, as it stands there.
pub(crate) fn namespace(path: &[String]) -> Option<&str> {
    let mut path = path.iter().map(String::as_str);
    path.find(|segment| *segment == "namespaces")?;
    path.next()
}

fn nowhere(path: &[&str]) -> Failure {
    Failure::new(
        404,
        "NotFound",
        format!(
            "the server could not find the requested resource: /{}",
            path.join("/")
        ),
    )
}
