//! Cloud Logging's query language
//! (<https://cloud.google.com/logging/docs/view/logging-query-language>).
//!
//! `parse` reads text into the tree of `ast`; `program` checks it and prepares what evaluation
//! needs (numbers, times, regular expressions); `eval` asks an entry; `fields` finds a field in it;
//! `hints` says which parts of the log cannot hold an answer.

mod ast;
mod eval;
mod fields;
mod hints;
mod parse;
mod program;
#[cfg(test)]
mod tests;

use crate::LogEntry;

pub(crate) use hints::{Hints, entry_terms, project_term};

/// The longest filter, in bytes: Cloud Logging's limit.
pub const MAX_FILTER: usize = 20_000;

/// A filter that was understood.
#[derive(Clone, Debug)]
pub struct Filter {
    expr: Option<ast::Expr>,
    program: Option<program::Node>,
    hints: Hints,
}

/// Why a filter was not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid filter at character {position}: {message}")]
pub struct FilterError {
    /// Where, in characters from the start, from 0.
    pub position: usize,
    /// What is wrong there and what would be right.
    pub message: String,
}

impl Filter {
    /// The filter that every entry passes.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            expr: None,
            program: None,
            hints: Hints::default(),
        }
    }

    /// Reads a filter. Empty text selects everything.
    ///
    /// # Errors
    /// [`FilterError`], with the place and a message for the person who wrote it.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let parsed = parse::parse(text).and_then(|expr| {
            let program = expr.as_ref().map(program::compile).transpose()?;
            Ok((expr, program))
        });
        let (expr, program) = parsed.map_err(|error| FilterError {
            position: text
                .char_indices()
                .take_while(|(at, _)| *at < error.at)
                .count(),
            message: error.message,
        })?;
        let hints = expr.as_ref().map(Hints::of).unwrap_or_default();
        Ok(Self {
            expr,
            program,
            hints,
        })
    }

    /// Whether `entry` passes.
    #[must_use]
    pub fn matches(&self, entry: &LogEntry) -> bool {
        self.program
            .as_ref()
            .is_none_or(|program| eval::matches(program, entry))
    }

    pub(crate) fn hints(&self) -> &Hints {
        &self.hints
    }
}

/// Two filters are equal when they were written with the same structure.
impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.expr == other.expr
    }
}

/// A form that parses to the same filter.
impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.expr {
            Some(expr) => expr.fmt(f),
            None => Ok(()),
        }
    }
}

/// An error with a place in bytes.
struct At {
    at: usize,
    message: String,
}
