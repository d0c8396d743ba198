//! The language of subscription filters: which messages, by their attributes, a subscription gets.
//!
//! ```text
//! expression = term {"AND" term} | term {"OR" term}
//! term       = ["NOT" | "-"] factor
//! factor     = "(" expression ")"
//!            | "attributes" ":" key
//!            | "attributes" "." key ("=" | "!=") string
//!            | "hasPrefix" "(" "attributes" "." key "," string ")"
//! key        = word | string
//! ```
//!
//! `AND` and `OR` are not mixed without parentheses. A message without the attribute is unequal to
//! every value. The text is bounded, and with it the depth of what it says.

mod lexer;
mod parser;

use std::collections::BTreeMap;

/// The longest filter, in bytes.
pub const MAX_FILTER: usize = 256;

/// A filter that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Expression);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
    Has(String),
    Equal(String, String),
    Prefix(String, String),
}

/// A filter that was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {problem}")]
pub struct FilterError {
    /// Where, counted in characters from 1.
    pub at: usize,
    /// What is wrong there.
    pub problem: String,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// Says at which character what was expected.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX_FILTER {
            return Err(FilterError {
                at: 1,
                problem: format!(
                    "the filter has {} bytes; at most {MAX_FILTER} are allowed",
                    text.len()
                ),
            });
        }
        parser::parse(&lexer::tokens(text)?).map(Self)
    }

    /// Whether a message with these attributes passes.
    #[must_use]
    pub fn matches(&self, attributes: &BTreeMap<String, String>) -> bool {
        self.0.matches(attributes)
    }
}

impl Expression {
    fn matches(&self, attributes: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(attributes)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(attributes)),
            Self::Not(part) => !part.matches(attributes),
            Self::Has(key) => attributes.contains_key(key),
            Self::Equal(key, value) => attributes.get(key) == Some(value),
            Self::Prefix(key, prefix) => attributes
                .get(key)
                .is_some_and(|value| value.starts_with(prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn passes(filter: &str, pairs: &[(&str, &str)]) -> bool {
        Filter::parse(filter)
            .unwrap_or_else(|error| panic!("{filter}: {error}"))
            .matches(&attributes(pairs))
    }

    #[test]
    fn each_operator() {
        let com = [("domain", "com")];
        let long = [("domain", "example.com"), ("lang", "de")];
        assert!(passes("attributes:domain", &com));
        assert!(!passes("attributes:domain", &[]));
        assert!(passes("attributes.domain = \"com\"", &com));
        assert!(!passes("attributes.domain = \"com\"", &long));
        assert!(passes("attributes.domain != \"com\"", &long));
        assert!(passes("attributes.domain != \"com\"", &[]));
        assert!(passes("hasPrefix(attributes.domain, \"exam\")", &long));
        assert!(!passes("hasPrefix(attributes.domain, \"exam\")", &com));
        assert!(!passes("hasPrefix(attributes.domain, \"\")", &[]));
        assert!(passes("NOT attributes:domain", &[]));
        assert!(passes("-attributes:lang", &com));
        assert!(passes(
            "attributes:domain AND attributes.lang=\"de\"",
            &long
        ));
        assert!(!passes(
            "attributes:domain AND attributes.lang=\"de\"",
            &com
        ));
        assert!(passes("attributes:lang OR attributes:domain", &com));
        assert!(passes(
            "attributes:x OR (attributes:domain AND NOT attributes:lang)",
            &com
        ));
    }

    #[test]
    fn keys_and_values_may_be_written_as_strings() {
        assert!(passes(
            "attributes:\"iana.org/language_tag\"",
            &[("iana.org/language_tag", "en")]
        ));
        assert!(passes(
            "attributes.\"a b\" = \"x\\\"y\\\\\"",
            &[("a b", "x\"y\\")]
        ));
        assert!(passes("attributes.k=\"\\u307F\"", &[("k", "み")]));
        assert!(passes("attributes.k=\"\\x41\\102\\t\"", &[("k", "AB\t")]));
        assert!(passes("attributes.k=\"\\U0001F600\"", &[("k", "😀")]));
        assert!(passes(
            "attributes.some-key_1=\"v\"",
            &[("some-key_1", "v")]
        ));
    }

    #[test]
    fn errors_say_where_and_what() {
        for (text, at, part) in [
            ("", 1, "expected"),
            ("attributes", 11, "':' or '.'"),
            ("attributes.k", 13, "'=' or '!='"),
            ("attributes.k = v", 16, "in double quotes"),
            ("attributes.k = \"v", 16, "no end"),
            ("attributes.k > \"v\"", 14, "'>'"),
            ("attribute:k", 1, "'attribute'"),
            ("(attributes:k", 14, "')'"),
            ("attributes:k)", 13, "')'"),
            (
                "attributes:a AND attributes:b OR attributes:c",
                31,
                "parentheses",
            ),
            ("attributes:a and attributes:b", 14, "AND or OR"),
            ("hasPrefix(attributes.k)", 23, "','"),
            ("hasPrefix(attributes:k, \"x\")", 21, "'.'"),
            ("attributes.k=\"\\q\"", 15, "escape"),
            ("attributes.k=\"\\uD800\"", 15, "escape"),
            ("attributes:k é", 14, "'é'"),
        ] {
            let error = Filter::parse(text).unwrap_err();
            assert!(error.problem.contains(part), "{text}: {error}");
            assert_eq!(error.at, at, "{text}: {error}");
        }
        let long = format!("attributes:{}", "k".repeat(MAX_FILTER));
        assert!(
            Filter::parse(&long)
                .unwrap_err()
                .problem
                .contains("267 bytes")
        );
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "[ -~é\\\\\"()]{0,256}") {
            let _ = Filter::parse(&text);
        }

        #[test]
        fn nor_is_what_looks_like_a_filter(words in prop::collection::vec(prop::sample::select(vec![
            "(", ")", "NOT ", "-", "attributes", ":", ".", "k", "=", "!=", "\"v\"", " AND ", " OR ",
            "hasPrefix", ",", "attributes:k", "attributes.k=\"v\"",
        ]), 0..60)) {
            let text = words.concat();
            if let Ok(filter) = Filter::parse(&text) {
                // What was understood means the same within parentheses and twice denied.
                for pairs in [vec![], vec![("k", "v")], vec![("k", "w")]] {
                    let attributes = attributes(&pairs);
                    let result = filter.matches(&attributes);
                    for around in [format!("({text})"), format!("NOT (NOT ({text}))")] {
                        if around.len() <= MAX_FILTER {
                            prop_assert_eq!(Filter::parse(&around).unwrap().matches(&attributes), result);
                        }
                    }
                }
            }
        }
    }
}
