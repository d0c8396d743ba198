//! From characters to words.

use super::FilterError;

/// A word, and the character it begins at, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Letters, digits, `_` and `-`.
    Word(String),
    /// In double quotes.
    Text(String),
    /// One of `( ) : . , = -`.
    Sign(char),
    /// `!=`
    NotEqual,
    End,
}

/// Splits a filter. The last token is [`Kind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, FilterError> {
    let characters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = characters.get(at) {
        let begin = at;
        let kind = match c {
            _ if c.is_whitespace() => {
                at += 1;
                continue;
            }
            '(' | ')' | ':' | '.' | ',' | '=' | '-' => {
                at += 1;
                Kind::Sign(c)
            }
            '!' if characters.get(at + 1) == Some(&'=') => {
                at += 2;
                Kind::NotEqual
            }
            '"' => {
                let (value, end) = string(&characters, at)?;
                at = end;
                Kind::Text(value)
            }
            _ if is_word(c) => {
                while characters.get(at).is_some_and(|c| is_word(*c) || *c == '-') {
                    at += 1;
                }
                Kind::Word(characters[begin..at].iter().collect())
            }
            _ => {
                return Err(error(
                    at,
                    &format!("'{c}' has no meaning here; put keys and values in double quotes"),
                ));
            }
        };
        tokens.push(Token {
            at: begin + 1,
            kind,
        });
    }
    tokens.push(Token {
        at: characters.len() + 1,
        kind: Kind::End,
    });
    Ok(tokens)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Reads the string that begins at `at`, and where it ends.
fn string(characters: &[char], at: usize) -> Result<(String, usize), FilterError> {
    let mut value = String::new();
    let mut next = at + 1;
    loop {
        match characters.get(next) {
            None => return Err(error(at, "this string has no end; close it with \"")),
            Some('"') => return Ok((value, next + 1)),
            Some('\\') => {
                let (c, end) = escape(characters, next)
                    .ok_or_else(|| error(next, "this is no escape; a backslash is written \\\\"))?;
                value.push(c);
                next = end;
            }
            Some(c) => {
                value.push(*c);
                next += 1;
            }
        }
    }
}

/// Reads the escape whose backslash is at `at`, and where it ends.
fn escape(characters: &[char], at: usize) -> Option<(char, usize)> {
    let number = |from: usize, digits: usize, radix: u32| {
        let digits: String = characters.get(from..from + digits)?.iter().collect();
        if !digits.chars().all(|c| c.is_digit(radix)) {
            return None;
        }
        char::from_u32(u32::from_str_radix(&digits, radix).ok()?)
    };
    let simple = |c| Some((c, at + 2));
    match characters.get(at + 1)? {
        c @ ('"' | '\\' | '\'' | '`' | '?') => simple(*c),
        'a' => simple('\x07'),
        'b' => simple('\x08'),
        'f' => simple('\x0c'),
        'n' => simple('\n'),
        'r' => simple('\r'),
        't' => simple('\t'),
        'v' => simple('\x0b'),
        'x' | 'X' => Some((number(at + 2, 2, 16)?, at + 4)),
        'u' => Some((number(at + 2, 4, 16)?, at + 6)),
        'U' => Some((number(at + 2, 8, 16)?, at + 10)),
        '0'..='3' => Some((number(at + 1, 3, 8)?, at + 4)),
        _ => None,
    }
}

fn error(at: usize, problem: &str) -> FilterError {
    FilterError {
        at: at + 1,
        problem: problem.to_owned(),
    }
}
