//! Text to tree.
//!
//! NOT binds tightest, then OR, then AND: `a OR NOT b AND c` is `(a OR (NOT b)) AND c`. Between two
//! terms with nothing between them stands AND. `--` begins a comment.

use super::{
    At, MAX_FILTER,
    ast::{Compare, Expr, Op, Path},
};

/// How deep parentheses and NOTs may nest.
const MAX_DEPTH: usize = 50;

type Result<T> = std::result::Result<T, At>;

pub(super) fn parse(text: &str) -> Result<Option<Expr>> {
    if text.len() > MAX_FILTER {
        return Err(At {
            at: MAX_FILTER,
            message: format!(
                "the filter has {} bytes; at most {MAX_FILTER} are allowed",
                text.len()
            ),
        });
    }
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
    };
    parser.skip_space();
    if parser.rest().is_empty() {
        return Ok(None);
    }
    let expr = parser.and(&Parser::term)?;
    match parser.peek() {
        None => Ok(Some(expr)),
        Some(char) => parser.error(format!("'{char}' has nothing before it that it belongs to")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(At {
            at: self.at,
            message: message.into(),
        })
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest().trim_start();
            self.at = self.text.len() - rest.len();
            if !rest.starts_with("--") {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    /// Takes `text` if it comes next.
    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// Takes the keyword `word` if it comes next, as a word of its own.
    fn eat_word(&mut self, word: &str) -> bool {
        let Some(after) = self.rest().strip_prefix(word) else {
            return false;
        };
        let alone = after.chars().next().is_none_or(|next| {
            next.is_whitespace() || matches!(next, '(' | ')' | '"' | '\'' | '-')
        });
        if alone {
            self.at += word.len();
        }
        alone
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error(format!(
                "more than {MAX_DEPTH} levels of parentheses and NOT"
            ));
        }
        let result = parse(self);
        self.depth -= 1;
        result
    }

    /// One or more `or`s, up to the end or a closing parenthesis.
    fn and(&mut self, leaf: &dyn Fn(&mut Self) -> Result<Expr>) -> Result<Expr> {
        let mut parts = vec![self.or(leaf)?];
        loop {
            self.skip_space();
            if !self.eat_word("AND") && matches!(self.peek(), None | Some(')' | ',')) {
                break;
            }
            parts.push(self.or(leaf)?);
        }
        Ok(one_or(parts, Expr::And))
    }

    fn or(&mut self, leaf: &dyn Fn(&mut Self) -> Result<Expr>) -> Result<Expr> {
        let mut parts = vec![self.unary(leaf)?];
        loop {
            self.skip_space();
            if !self.eat_word("OR") {
                break;
            }
            parts.push(self.unary(leaf)?);
        }
        Ok(one_or(parts, Expr::Or))
    }

    fn unary(&mut self, leaf: &dyn Fn(&mut Self) -> Result<Expr>) -> Result<Expr> {
        self.skip_space();
        let minus = self.peek() == Some('-')
            && self.rest()[1..].starts_with(|next: char| {
                next.is_alphabetic() || matches!(next, '(' | '"' | '\'' | '_')
            });
        if minus {
            self.at += 1;
        }
        if minus || self.eat_word("NOT") {
            let inner = self.deeper(|parser| parser.unary(leaf))?;
            return Ok(Expr::Not(Box::new(inner)));
        }
        for word in ["AND", "OR"] {
            if self.eat_word(word) {
                self.at -= word.len();
                return self.error(format!(
                    "{word} needs something on both sides; quote it to search for the word"
                ));
            }
        }
        if self.eat("(") {
            let inner = self.deeper(|parser| parser.and(leaf))?;
            self.close()?;
            return Ok(inner);
        }
        match self.peek() {
            None => {
                self.error("the filter ends where a condition is expected, such as severity>=ERROR")
            }
            Some(')') => self.error("')' without an expression before it"),
            Some(_) => leaf(self),
        }
    }

    fn close(&mut self) -> Result<()> {
        self.skip_space();
        if self.eat(")") {
            Ok(())
        } else {
            self.error("')' is missing")
        }
    }

    /// A comparison, a function, or text to be found anywhere.
    fn term(&mut self) -> Result<Expr> {
        let start = self.at;
        let mut parts = Vec::new();
        let mut quoted = false;
        loop {
            match self.peek() {
                Some(quote @ ('"' | '\'')) => {
                    quoted = true;
                    parts.push(self.quoted(quote)?);
                }
                _ => parts.push(self.word(false)?.to_owned()),
            }
            if !self.eat(".") {
                break;
            }
        }
        let end = self.at;
        if parts.len() == 1 && !quoted && self.peek() == Some('(') {
            return self.function(start, &parts[0]);
        }
        self.skip_space();
        let Some(op) = self.operator() else {
            self.at = end;
            let text = match parts.as_slice() {
                [one] if quoted => one.clone(),
                _ => self.text[start..end].to_owned(),
            };
            return Ok(Expr::Global(text));
        };
        if quoted && parts.len() == 1 {
            self.at = start;
            return self
                .error("a field name is expected before the operator, and this is a string");
        }
        let path = Path { parts, at: start };
        self.value(&path, op)
    }

    fn operator(&mut self) -> Option<Op> {
        let ops = [
            ("=~", Op::Matches),
            ("!~", Op::NotMatches),
            ("!=", Op::Ne),
            (">=", Op::Ge),
            ("<=", Op::Le),
            ("=", Op::Eq),
            (">", Op::Gt),
            ("<", Op::Lt),
            (":", Op::Has),
        ];
        ops.into_iter()
            .find(|(text, _)| self.eat(text))
            .map(|(_, op)| op)
    }

    /// What a field is compared with: one value, or an expression of values in parentheses.
    fn value(&mut self, path: &Path, op: Op) -> Result<Expr> {
        self.skip_space();
        if self.eat("(") {
            let leaf = |parser: &mut Self| parser.one_value(path, op);
            let inner = self.deeper(|parser| parser.and(&leaf))?;
            self.close()?;
            return Ok(inner);
        }
        self.one_value(path, op)
    }

    fn one_value(&mut self, path: &Path, op: Op) -> Result<Expr> {
        self.skip_space();
        let at = self.at;
        let value = match self.peek() {
            None | Some(')') => {
                return self.error(format!("a value is expected after {}{}", path, op.as_str()));
            }
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            Some(_) => {
                let word = self.word(true)?;
                if word == "*" && op == Op::Has {
                    return Ok(Expr::Exists(path.clone()));
                }
                word.to_owned()
            }
        };
        Ok(Expr::Compare(Compare {
            path: path.clone(),
            op,
            value,
            at,
        }))
    }

    /// Characters up to a space, a quote, a parenthesis or a comma; in a name also up to a dot or
    /// an operator.
    fn word(&mut self, value: bool) -> Result<&'a str> {
        let ends = |char: char| {
            char.is_whitespace()
                || matches!(char, '"' | '\'' | '(' | ')' | ',')
                || (!value && matches!(char, '.' | '=' | '!' | '<' | '>' | ':' | '~'))
        };
        let rest = self.rest();
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        if word.is_empty() {
            return match self.peek() {
                Some(char) => self.error(format!(
                    "'{char}' is not expected here; put text that contains it in double quotes"
                )),
                None => self.error("the filter ends in the middle of a name"),
            };
        }
        self.at += word.len();
        Ok(word)
    }

    fn quoted(&mut self, quote: char) -> Result<String> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, char)) = chars.next() {
            if char == quote {
                self.at += offset + 1;
                return Ok(text);
            }
            if char != '\\' {
                text.push(char);
                continue;
            }
            match chars.next() {
                None => break,
                Some((_, 'n')) => text.push('\n'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, 't')) => text.push('\t'),
                Some((_, char @ ('"' | '\'' | '\\'))) => text.push(char),
                Some((escape, 'u')) => {
                    let hex: String = chars.by_ref().take(4).map(|(_, char)| char).collect();
                    let code = (hex.len() == 4).then(|| u32::from_str_radix(&hex, 16).ok());
                    let Some(char) = code.flatten().and_then(char::from_u32) else {
                        self.at = start + escape;
                        return self.error("\\u needs four hexadecimal digits of a character");
                    };
                    text.push(char);
                }
                // As people write regular expressions: "\d" is what it looks like.
                Some((_, char)) => text.extend(['\\', char]),
            }
        }
        self.error(format!("this string has no closing {quote}"))
    }

    fn function(&mut self, start: usize, name: &str) -> Result<Expr> {
        if name != "log_id" {
            self.at = start;
            return self.error(match name {
                "SEARCH" => "SEARCH is not supported; write the words in double quotes instead, they are searched for in all fields".to_owned(),
                "sample" | "ip_in_net" | "source" | "cast" | "regexp_extract" => {
                    format!("the function {name} is not supported")
                }
                _ => format!("there is no function {name}"),
            });
        }
        self.eat("(");
        self.skip_space();
        let id = match self.peek() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            _ => self.word(true)?.to_owned(),
        };
        self.close()?;
        Ok(Expr::LogId(id))
    }
}

fn one_or(mut parts: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.len() {
        1 => parts.remove(0),
        _ => many(parts),
    }
}
