//! `KEY=VALUE` arguments, in the forms people know from gcloud.

use anyhow::{Result, bail};

/// Reads arguments of `NAME=VALUE[,NAME=VALUE...]`. As in gcloud, `^;^A=1,2;B=3` chooses another
/// separator for values that hold commas.
pub(crate) fn list(option: &str, arguments: &[String]) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for argument in arguments {
        let (separator, text) = match argument.strip_prefix('^').and_then(|a| a.split_once('^')) {
            Some((separator, text)) if !separator.is_empty() => (separator, text),
            _ => (",", argument.as_str()),
        };
        for part in text.split(separator).filter(|part| !part.is_empty()) {
            pairs.push(one(option, part)?);
        }
    }
    Ok(pairs)
}

/// Reads arguments of one `NAME=VALUE` each; the value may hold anything.
pub(crate) fn single(option: &str, arguments: &[String]) -> Result<Vec<(String, String)>> {
    arguments.iter().map(|a| one(option, a)).collect()
}

fn one(option: &str, text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => bail!("{option} takes NAME=VALUE, not '{text}'."),
    }
}

/// Reads words: a JSON array of strings, or words as a shell would split them.
pub(crate) fn words(option: &str, text: &str) -> Result<Vec<String>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text)
            .map_err(|error| anyhow::anyhow!("{option} is not a JSON array of strings: {error}."));
    }
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => match chars.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => bail!("{option} ends with a backslash: '{text}'."),
            },
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(quote) = quote {
        bail!("{option} has no closing {quote}: '{text}'.");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn pairs_are_read_as_in_gcloud() {
        let own = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            list("--x", &strings(&["A=1,B=x=y", "^;^C=1,2;D="])).unwrap(),
            [
                own("A", "1"),
                own("B", "x=y"),
                own("C", "1,2"),
                own("D", "")
            ]
        );
        assert_eq!(
            single("--env", &strings(&["A=1,B=2"])).unwrap(),
            [own("A", "1,B=2")]
        );
        assert!(single("--env", &strings(&["=1"])).is_err());
        assert!(list("--x", &strings(&["A"])).is_err());
    }

    #[test]
    fn words_are_read_as_json_or_as_in_a_shell() {
        assert_eq!(
            words("-e", r#"["/bin/sh", "-c", "a b"]"#).unwrap(),
            ["/bin/sh", "-c", "a b"]
        );
        assert_eq!(
            words("-e", r#"/bin/sh  -c 'a "b' "c\"d" e\ f ''"#).unwrap(),
            ["/bin/sh", "-c", "a \"b", "c\"d", "e f", ""]
        );
        assert!(words("-e", "'a").is_err());
        assert!(words("-e", "[1]").is_err());
    }
}
