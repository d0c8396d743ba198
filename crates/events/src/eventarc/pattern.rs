//! Path patterns of Eventarc's filters: segments divided by `/`, where `*` within a segment is any part of
//! it, a segment `**` is any number of segments, and `{name=...}` is what stands in it. After Google's
//! "Understand path patterns".

/// The longest pattern, in bytes: matching takes time with the product of both lengths.
pub(super) const MAX_PATTERN: usize = 1_024;

/// What is wrong with a pattern, if anything is.
pub(super) fn problem(pattern: &str) -> Option<&'static str> {
    if pattern.is_empty() || pattern.len() > MAX_PATTERN {
        return Some("a path pattern has 1 to 1,024 bytes");
    }
    let Some(plain) = plain(pattern) else {
        return Some("each { needs a name, = and a }, without another { inside");
    };
    let parts = plain.split('/').filter(|part| !part.is_empty());
    let mut deep = 0;
    for part in parts {
        if part == "**" {
            deep += 1;
        } else if part.contains("**") {
            return Some("** must be a segment of its own");
        }
    }
    (deep > 1).then_some("** may stand in it only once")
}

/// Whether a path is of a pattern. A `/` at the beginning of either does not matter.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    let Some(pattern) = plain(pattern) else {
        return false;
    };
    let pattern: Vec<&str> = pattern.trim_start_matches('/').split('/').collect();
    let path: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let Some(deep) = pattern.iter().position(|part| *part == "**") else {
        return pattern.len() == path.len() && all(&pattern, &path);
    };
    let (head, tail) = (&pattern[..deep], &pattern[deep + 1..]);
    head.len() + tail.len() <= path.len()
        && all(head, &path[..head.len()])
        && all(tail, &path[path.len() - tail.len()..])
}

fn all(patterns: &[&str], parts: &[&str]) -> bool {
    patterns
        .iter()
        .zip(parts)
        .all(|(pattern, part)| segment(pattern, part))
}

/// Whether a segment is of a pattern in which `*` is any text.
fn segment(pattern: &str, mut text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(rest) = text.strip_prefix(first) else {
        return false;
    };
    text = rest;
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return text.is_empty();
    };
    for piece in pieces {
        match text.find(piece) {
            Some(at) => text = &text[at + piece.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

/// The pattern without the names of what it captures: `{name=what}` becomes `what`.
fn plain(pattern: &str) -> Option<String> {
    let mut plain = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let (capture, after) = after.split_once('}')?;
        let (name, what) = capture.split_once('=')?;
        if name.is_empty() || what.is_empty() || capture.contains('{') || before.contains('}') {
            return None;
        }
        plain.push_str(before);
        plain.push_str(what);
        rest = after;
    }
    plain.push_str(rest);
    (!rest.contains('}')).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_of_a_pattern_or_not() {
        for (pattern, path, wanted) in [
            (
                "projects/*/services/*",
                "projects/demo/services/hello",
                true,
            ),
            (
                "/projects/*/services/*",
                "projects/demo/services/hello",
                true,
            ),
            ("projects/*", "projects/demo/services/hello", false),
            ("projects/**", "projects/demo/services/hello", true),
            ("projects/**/hello", "projects/hello", true),
            ("projects/**/hello", "hello", false),
            (
                "projects/*/services/shop-*",
                "projects/demo/services/shop-cart",
                true,
            ),
            (
                "projects/*/services/shop-*",
                "projects/demo/services/hello",
                false,
            ),
            (
                "projects/*/services/*-v*-x",
                "projects/demo/services/a-v2-x",
                true,
            ),
            ("projects/*/services/a*a", "projects/demo/services/a", false),
            (
                "projects/{p=*}/services/{s=he*}",
                "projects/demo/services/hello",
                true,
            ),
            ("projects/demo", "projects/demo", true),
            ("projects/demo", "projects/dem", false),
        ] {
            assert_eq!(matches(pattern, path), wanted, "{pattern} {path}");
            assert_eq!(problem(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        for pattern in [
            "",
            "a/**b",
            "**/a/**",
            "{a}",
            "{=*}",
            "{a=*",
            "a}",
            "{a={b=*}}",
        ] {
            assert!(problem(pattern).is_some(), "{pattern}");
        }
        assert!(problem(&"a".repeat(MAX_PATTERN + 1)).is_some());
    }
}
