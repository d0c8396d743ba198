//! From a verb and a path to what was bound to them: a tree over the path's segments.

use std::borrow::Cow;
use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::path::{Segment, Template};

/// The values of a template's variables in a path: the field's path and its value, decoded.
pub type Captures = Vec<(String, String)>;

/// Things bound to templates.
#[derive(Debug)]
pub(crate) struct Router<T> {
    bound: Vec<(Template, T)>,
    roots: BTreeMap<String, Node>,
}

#[derive(Debug, Default)]
struct Node {
    literals: BTreeMap<String, Node>,
    one: Option<Box<Node>>,
    /// What ends here, by verb.
    here: Ends,
    /// What ends here and takes all that is left, by verb.
    rest: Ends,
}

type Ends = BTreeMap<Option<String>, usize>;

/// A path whose escapes make no text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotText;

impl<T> Router<T> {
    pub(crate) fn new() -> Self {
        Self {
            bound: Vec::new(),
            roots: BTreeMap::new(),
        }
    }

    /// Binds a thing. Gives it back when something is bound to the same already.
    pub(crate) fn bind(&mut self, method: &str, template: Template, thing: T) -> Result<(), T> {
        let root = self.roots.entry(method.to_owned()).or_default();
        let mut node = root;
        let mut takes_rest = false;
        for segment in &template.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::One => node.one.get_or_insert_default(),
                Segment::Rest => {
                    takes_rest = true;
                    node
                }
            };
        }
        let ends = if takes_rest {
            &mut node.rest
        } else {
            &mut node.here
        };
        if ends.contains_key(&template.verb) {
            return Err(thing);
        }
        ends.insert(template.verb.clone(), self.bound.len());
        self.bound.push((template, thing));
        Ok(())
    }

    /// What is bound to a path, which is as it came: with its escapes and without a query. A literal
    /// goes before `*`, and that before `**`; a verb goes before a `:` that is part of a name.
    pub(crate) fn find(&self, method: &str, path: &str) -> Option<(&T, Result<Captures, NotText>)> {
        let root = self.roots.get(method)?;
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let last = segments.last()?;
        let with_verb = last.rsplit_once(':').and_then(|(name, verb)| {
            let mut cut = segments.clone();
            *cut.last_mut()? = name;
            let verb = Some(verb.to_owned());
            Some((walk(root, &cut, &verb)?, cut))
        });
        let (found, segments) = match with_verb {
            Some(found) => found,
            None => (walk(root, &segments, &None)?, segments),
        };
        let (template, thing) = &self.bound[found];
        Some((thing, captures(template, &segments)))
    }
}

fn walk(node: &Node, left: &[&str], verb: &Option<String>) -> Option<usize> {
    let Some((first, rest)) = left.split_first() else {
        return node.here.get(verb).or_else(|| node.rest.get(verb)).copied();
    };
    let by_literal = || {
        let text = decoded(first).ok()?;
        walk(node.literals.get(text.as_ref())?, rest, verb)
    };
    let by_one = || {
        let one = node.one.as_deref().filter(|_| !first.is_empty())?;
        walk(one, rest, verb)
    };
    by_literal()
        .or_else(by_one)
        .or_else(|| node.rest.get(verb).copied())
}

fn captures(template: &Template, segments: &[&str]) -> Result<Captures, NotText> {
    let variables = template.variables.iter().map(|variable| {
        let takes_rest =
            template.segments.get(variable.first + variable.count - 1) == Some(&Segment::Rest);
        let end = if takes_rest {
            segments.len()
        } else {
            variable.first + variable.count
        };
        let raw = segments
            .get(variable.first..end)
            .unwrap_or_default()
            .join("/");
        let value = if variable.is_long(template) {
            // An escaped slash is part of a name, and stays told apart from those between names.
            let kept = raw.replace("%2F", "%252F").replace("%2f", "%252f");
            decoded(&kept)?.into_owned()
        } else {
            decoded(&raw)?.into_owned()
        };
        Ok((variable.field.clone(), value))
    });
    variables.collect()
}

fn decoded(text: &str) -> Result<Cow<'_, str>, NotText> {
    percent_decode_str(text).decode_utf8().map_err(|_| NotText)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn router() -> Router<&'static str> {
        let mut router = Router::new();
        for (method, path) in [
            ("GET", "/v1/{name=a/*}"),
            ("GET", "/v1/a/special"),
            ("POST", "/v1/{name=a/*}:go"),
            ("POST", "/v1/{name=a/*}"),
            ("GET", "/v1/{name=a/*/b/*}"),
            ("GET", "/v1/{name=files/**}"),
            ("GET", "/v1/{name=files/**}:stat"),
            ("GET", "/v1/one/{id}"),
            ("GET", "/v1/{name=a/*}/b"),
        ] {
            router
                .bind(method, Template::parse(path).unwrap(), path)
                .unwrap();
        }
        router
    }

    #[test]
    fn paths_lead_to_what_was_bound() {
        let router = router();
        for (method, path, bound, value) in [
            ("GET", "/v1/a/x", "/v1/{name=a/*}", Some("a/x")),
            ("GET", "/v1/a/special", "/v1/a/special", None),
            ("POST", "/v1/a/x:go", "/v1/{name=a/*}:go", Some("a/x")),
            ("POST", "/v1/a/x:other", "/v1/{name=a/*}", Some("a/x:other")),
            ("GET", "/v1/a/x:y", "/v1/{name=a/*}", Some("a/x:y")),
            ("GET", "/v1/a/x/b/y", "/v1/{name=a/*/b/*}", Some("a/x/b/y")),
            (
                "GET",
                "/v1/a/special/b/y",
                "/v1/{name=a/*/b/*}",
                Some("a/special/b/y"),
            ),
            ("GET", "/v1/a/x/b", "/v1/{name=a/*}/b", Some("a/x")),
            (
                "GET",
                "/v1/files/x/y.txt",
                "/v1/{name=files/**}",
                Some("files/x/y.txt"),
            ),
            ("GET", "/v1/files", "/v1/{name=files/**}", Some("files")),
            (
                "GET",
                "/v1/files/x:stat",
                "/v1/{name=files/**}:stat",
                Some("files/x"),
            ),
            (
                "GET",
                "/v1/a/x%2Fy%20z",
                "/v1/{name=a/*}",
                Some("a/x%2Fy z"),
            ),
            ("GET", "/v1/one/x%2Fy", "/v1/one/{id}", Some("x/y")),
            ("GET", "/v1/%61/x", "/v1/{name=a/*}", Some("a/x")),
        ] {
            let (found, values) = router
                .find(method, path)
                .unwrap_or_else(|| panic!("{path}"));
            assert_eq!(*found, bound, "{path}");
            let values = values.unwrap();
            assert_eq!(values.first().map(|(_, v)| v.as_str()), value, "{path}");
        }
        for (method, path) in [
            ("DELETE", "/v1/a/x"),
            ("GET", "/v1/a/"),
            ("GET", "/v1/a"),
            ("GET", "v1/a/x"),
            ("GET", ""),
            ("GET", "/v1/a/x/"),
            ("GET", "/v1/a%2Fx"),
        ] {
            assert!(router.find(method, path).is_none(), "{method} {path}");
        }
        let (_, values) = router.find("GET", "/v1/a/%ff").unwrap();
        assert_eq!(values, Err(NotText));
    }

    #[test]
    fn nothing_is_bound_twice() {
        let mut router = router();
        let again = Template::parse("/v1/{other=a/*}").unwrap();
        assert_eq!(router.bind("GET", again, "again"), Err("again"));
    }

    proptest! {
        #[test]
        fn any_path_is_found_or_not(path in "(/|v1|a|files|one|:go|:|%2F|%ff|%|x|\\*|\\{|é){0,12}") {
            let router = router();
            for method in ["GET", "POST"] {
                let _ = router.find(method, &path);
            }
        }

        #[test]
        fn what_a_template_was_filled_with_comes_back(name in "[a-z0-9é :/%?#+]{1,20}") {
            let escaped = percent_encoding::utf8_percent_encode(
                &name, percent_encoding::NON_ALPHANUMERIC,
            );
            let router = router();
            let path = format!("/v1/one/{escaped}");
            let (found, values) = router.find("GET", &path).unwrap();
            prop_assert_eq!(*found, "/v1/one/{id}");
            prop_assert_eq!(&values.unwrap()[0].1, &name);
        }
    }
}
