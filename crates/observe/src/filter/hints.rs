//! Which parts of the log cannot hold an answer.
//!
//! Each block of the log knows the *terms* of its entries (hashes of `resource.type`, of the
//! resource's labels and of the log's name), the span of their times and their highest severity. A
//! filter's hints are what an entry must have to pass.

use jiff::Timestamp;

use super::{
    ast::{Compare, Expr, Op},
    fields, program,
};
use crate::{LogEntry, Severity};

/// What an entry must have, at least, to pass a filter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    /// Of each of these, one.
    pub(crate) terms: Vec<Vec<u64>>,
    /// A time no earlier than this.
    pub(crate) from: Option<Timestamp>,
    /// A time no later than this.
    pub(crate) until: Option<Timestamp>,
    /// At least this severity.
    pub(crate) severity: Severity,
}

impl Hints {
    pub(super) fn of(expr: &Expr) -> Self {
        let mut hints = Self::default();
        hints.require(expr);
        hints
    }

    fn require(&mut self, expr: &Expr) {
        if let Some(terms) = any_of(expr) {
            self.terms.push(terms);
            return;
        }
        match expr {
            Expr::And(parts) => parts.iter().for_each(|part| self.require(part)),
            Expr::Compare(compare) if compare.path.parts.len() == 1 => self.bound(compare),
            _ => {}
        }
    }

    fn bound(&mut self, compare: &Compare) {
        match (fields::canonical(&compare.path.parts[0]), compare.op) {
            (Some("timestamp"), op) => {
                let Some(time) = program::parse_time(&compare.value) else {
                    return;
                };
                if matches!(op, Op::Eq | Op::Gt | Op::Ge) {
                    self.from = Some(self.from.map_or(time, |from| from.max(time)));
                }
                if matches!(op, Op::Eq | Op::Lt | Op::Le) {
                    self.until = Some(self.until.map_or(time, |until| until.min(time)));
                }
            }
            (Some("severity"), Op::Eq | Op::Gt | Op::Ge) => {
                let severity = Severity::parse(&compare.value).unwrap_or_default();
                self.severity = self.severity.max(severity);
            }
            _ => {}
        }
    }
}

/// The terms of which an entry must have one to pass `expr`, if that can be said.
fn any_of(expr: &Expr) -> Option<Vec<u64>> {
    match expr {
        Expr::Or(parts) => {
            let parts: Option<Vec<Vec<u64>>> = parts.iter().map(any_of).collect();
            parts.map(|parts| parts.concat())
        }
        Expr::LogId(id) => Some(vec![term("log_id", &id.replace("%2F", "/"))]),
        Expr::Compare(Compare {
            path,
            op: Op::Eq,
            value,
            ..
        }) => {
            let (first, rest) = path.parts.split_first()?;
            match (fields::canonical(first)?, rest) {
                ("logName", []) => Some(vec![term("logName", value)]),
                ("resource", [kind]) if kind == "type" => Some(vec![term("type", value)]),
                ("resource", [labels, name @ ..]) if labels == "labels" && !name.is_empty() => {
                    Some(vec![label_term(&name.join("."), value)])
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// The terms of an entry.
pub(crate) fn entry_terms(entry: &LogEntry, terms: &mut Vec<u64>) {
    if let Some(project) = entry.project() {
        terms.push(project_term(project));
    }
    terms.push(term("logName", &entry.log_name));
    terms.push(term("log_id", &entry.log_id()));
    terms.push(term("type", &entry.resource.kind));
    terms.extend(
        entry
            .resource
            .labels
            .iter()
            .map(|(name, value)| label_term(name, value)),
    );
}

/// The term of all entries of a project.
pub(crate) fn project_term(project: &str) -> u64 {
    term("project", project)
}

fn label_term(name: &str, value: &str) -> u64 {
    hash([name, "\0label\0"], value)
}

fn term(name: &str, value: &str) -> u64 {
    hash([name, "\0"], value)
}

/// FNV-1a: these are written to disk, so they must stay what they are.
fn hash(name: [&str; 2], value: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let hash = name
        .into_iter()
        .flat_map(str::bytes)
        .fold(0xcbf2_9ce4_8422_2325, step);
    if value.is_ascii() {
        return value
            .bytes()
            .map(|byte| byte.to_ascii_lowercase())
            .fold(hash, step);
    }
    value.to_lowercase().bytes().fold(hash, step)
}
