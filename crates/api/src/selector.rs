//! Label selectors in Kubernetes' language: `a = b, c in (d, e), !f`, with or without blanks.

use std::collections::BTreeMap;

use lauf_model::{Status, Violation};

/// Conditions on labels, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Selector(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Selector {
    /// Reads a selector; the empty one selects everything.
    pub(crate) fn parse(text: &str) -> Result<Self, Status> {
        split(text)
            .into_iter()
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                rule(part).ok_or_else(|| {
                    Status::invalid(vec![Violation::new(
                        "labelSelector",
                        format!("'{part}' is not understood; write key=value, key!=value, key in (a, b), key notin (a, b), key or !key."),
                    )])
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The one value that a label must have, if the selector asks for exactly one.
    pub(crate) fn only(&self, label: &str) -> Option<&str> {
        self.0.iter().find_map(|rule| match rule {
            Rule::In(key, values) if key == label => match values.as_slice() {
                [value] => Some(value.as_str()),
                _ => None,
            },
            _ => None,
        })
    }

    /// Whether labels satisfy all rules.
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|rule| match rule {
            Rule::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Rule::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Rule::Exists(key) => labels.contains_key(key),
            Rule::Absent(key) => !labels.contains_key(key),
        })
    }
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_u32);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn rule(part: &str) -> Option<Rule> {
    let key = |text: &str| {
        let text = text.trim();
        let fine = !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
        fine.then(|| text.to_owned())
    };
    if let Some(rest) = part.strip_prefix('!') {
        return key(rest).map(Rule::Absent);
    }
    if let Some((head, list)) = part.split_once('(') {
        let values = list.strip_suffix(')')?.split(',');
        let values = values.map(|v| v.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        let name = key(words.next()?)?;
        let rule = match words.next()? {
            "in" => Rule::In(name, values),
            "notin" => Rule::NotIn(name, values),
            _ => return None,
        };
        return words.next().is_none().then_some(rule);
    }
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some((name, value)) = part.split_once("!=") {
        return Some(Rule::NotIn(key(name)?, one(value)));
    }
    if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some(Rule::In(key(name)?, one(value)));
    }
    key(part).map(Rule::Exists)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str) -> bool {
        let labels = [("a", "1"), ("x.dev/b", "2")];
        let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        Selector::parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn kubernetes_language() {
        for yes in [
            "",
            "a=1",
            "a == 1",
            "x.dev/b = 2,a=1",
            "a in (0, 1)",
            "a in (0,1), x.dev/b notin (1)",
            "a",
            "!c",
            "c!=1",
            "c notin (1)",
        ] {
            assert!(selects(yes), "{yes}");
        }
        for no in ["a=2", "a in (2)", "!a", "c", "a!=1", "a notin (1,2)", "c=1"] {
            assert!(!selects(no), "{no}");
        }
        for wrong in ["a in", "a in (1", "=1", "a b", "a is (1)", "!"] {
            assert!(Selector::parse(wrong).is_err(), "{wrong}");
        }
    }
}
