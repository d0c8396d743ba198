//! From words to an expression. Each word is looked at once, and the length of a filter bounds how
//! deep it goes.

use super::lexer::{Kind, Token};
use super::{Expression, FilterError};

pub(super) fn parse(tokens: &[Token]) -> Result<Expression, FilterError> {
    let mut parser = Parser { tokens, next: 0 };
    let expression = parser.expression()?;
    match &parser.peek().kind {
        Kind::End => Ok(expression),
        Kind::Word(word) if word != "AND" && word != "OR" => {
            Err(parser.error("AND or OR, or the end"))
        }
        _ => Err(parser.error("the end of the filter")),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &'a Token {
        // The end is never passed over.
        &self.tokens[self.next]
    }

    fn step(&mut self) -> &'a Kind {
        let token = self.peek();
        if token.kind != Kind::End {
            self.next += 1;
        }
        &token.kind
    }

    fn is_word(&self, wanted: &str) -> bool {
        matches!(&self.peek().kind, Kind::Word(word) if word == wanted)
    }

    fn is_sign(&self, wanted: char) -> bool {
        self.peek().kind == Kind::Sign(wanted)
    }

    fn sign(&mut self, wanted: char) -> Result<(), FilterError> {
        if !self.is_sign(wanted) {
            return Err(self.error(&format!("'{wanted}'")));
        }
        self.step();
        Ok(())
    }

    fn error(&self, expected: &str) -> FilterError {
        let token = self.peek();
        let found = match &token.kind {
            Kind::Word(word) => format!("'{word}'"),
            Kind::Text(text) => format!("the string \"{text}\""),
            Kind::Sign(sign) => format!("'{sign}'"),
            Kind::NotEqual => "'!='".to_owned(),
            Kind::End => "the end of the filter".to_owned(),
        };
        FilterError {
            at: token.at,
            problem: format!("expected {expected}, found {found}"),
        }
    }

    fn expression(&mut self) -> Result<Expression, FilterError> {
        let first = self.term()?;
        let (word, other) = match &self.peek().kind {
            Kind::Word(word) if word == "AND" => ("AND", "OR"),
            Kind::Word(word) if word == "OR" => ("OR", "AND"),
            _ => return Ok(first),
        };
        let mut parts = vec![first];
        while self.is_word(word) {
            self.step();
            parts.push(self.term()?);
        }
        if self.is_word(other) {
            return Err(FilterError {
                at: self.peek().at,
                problem: "AND and OR are mixed; say with parentheses what belongs together"
                    .to_owned(),
            });
        }
        Ok(match word {
            "AND" => Expression::All(parts),
            _ => Expression::Any(parts),
        })
    }

    fn term(&mut self) -> Result<Expression, FilterError> {
        if self.is_word("NOT") || self.is_sign('-') {
            self.step();
            return Ok(Expression::Not(Box::new(self.factor()?)));
        }
        self.factor()
    }

    fn factor(&mut self) -> Result<Expression, FilterError> {
        if self.is_sign('(') {
            self.step();
            let inner = self.expression()?;
            self.sign(')')?;
            return Ok(inner);
        }
        if self.is_word("hasPrefix") {
            self.step();
            self.sign('(')?;
            self.attributes()?;
            self.sign('.')?;
            let key = self.key()?;
            self.sign(',')?;
            let prefix = self.value()?;
            self.sign(')')?;
            return Ok(Expression::Prefix(key, prefix));
        }
        self.attributes()?;
        match self.peek().kind {
            Kind::Sign(':') => {
                self.step();
                Ok(Expression::Has(self.key()?))
            }
            Kind::Sign('.') => {
                self.step();
                let key = self.key()?;
                match self.peek().kind {
                    Kind::Sign('=') => {
                        self.step();
                        Ok(Expression::Equal(key, self.value()?))
                    }
                    Kind::NotEqual => {
                        self.step();
                        let equal = Expression::Equal(key, self.value()?);
                        Ok(Expression::Not(Box::new(equal)))
                    }
                    _ => Err(self.error("'=' or '!='")),
                }
            }
            _ => Err(self.error("':' or '.'")),
        }
    }

    fn attributes(&mut self) -> Result<(), FilterError> {
        if !self.is_word("attributes") {
            return Err(self.error("'attributes', 'hasPrefix', NOT or '('"));
        }
        self.step();
        Ok(())
    }

    fn key(&mut self) -> Result<String, FilterError> {
        match &self.peek().kind {
            Kind::Word(key) | Kind::Text(key) => {
                self.step();
                Ok(key.clone())
            }
            _ => Err(self.error("the key of an attribute")),
        }
    }

    fn value(&mut self) -> Result<String, FilterError> {
        match &self.peek().kind {
            Kind::Text(value) => {
                self.step();
                Ok(value.clone())
            }
            _ => Err(self.error("a value in double quotes")),
        }
    }
}
