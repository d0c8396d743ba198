//! A filter that is ready to be asked: names checked, values read, expressions compiled.

use std::time::Duration;

use jiff::{Timestamp, civil, tz::TimeZone};
use regex::{Regex, RegexBuilder};

use super::{
    At,
    ast::{Compare, Expr, Op, Path},
    fields,
};
use crate::{Severity, wire};

/// The most regular expressions in one filter; each may take [`REGEX_BYTES`] of memory twice over.
const MAX_REGEXES: usize = 32;
const REGEX_BYTES: usize = 1 << 20;

#[derive(Clone, Debug)]
pub(super) enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Global(Operand),
    LogId(String),
    Exists(Vec<String>),
    Compare {
        path: Vec<String>,
        op: Op,
        operand: Operand,
    },
}

/// A value, as everything it can be read as.
#[derive(Clone, Debug, Default)]
pub(super) struct Operand {
    pub(super) text: String,
    pub(super) lower: String,
    pub(super) number: Option<f64>,
    pub(super) flag: Option<bool>,
    pub(super) severity: Option<Severity>,
    pub(super) time: Option<Timestamp>,
    pub(super) duration: Option<Duration>,
    pub(super) regex: Option<Regex>,
}

pub(super) fn compile(expr: &Expr) -> Result<Node, At> {
    Compiler { regexes: 0 }.node(expr)
}

struct Compiler {
    regexes: usize,
}

impl Compiler {
    fn node(&mut self, expr: &Expr) -> Result<Node, At> {
        let mut all = |parts: &[Expr]| -> Result<Vec<Node>, At> {
            parts.iter().map(|part| self.node(part)).collect()
        };
        Ok(match expr {
            Expr::And(parts) => Node::And(all(parts)?),
            Expr::Or(parts) => Node::Or(all(parts)?),
            Expr::Not(part) => Node::Not(Box::new(self.node(part)?)),
            Expr::Global(text) => Node::Global(operand(text)),
            Expr::LogId(id) => Node::LogId(id.replace("%2F", "/").to_lowercase()),
            Expr::Exists(path) => Node::Exists(field(path)?),
            Expr::Compare(compare) => self.compare(compare)?,
        })
    }

    fn compare(&mut self, compare: &Compare) -> Result<Node, At> {
        let path = field(&compare.path)?;
        let mut operand = operand(&compare.value);
        let error = |message| {
            Err(At {
                at: compare.at,
                message,
            })
        };
        if matches!(compare.op, Op::Matches | Op::NotMatches) {
            self.regexes += 1;
            if self.regexes > MAX_REGEXES {
                return error(format!(
                    "more than {MAX_REGEXES} regular expressions in one filter"
                ));
            }
            let regex = RegexBuilder::new(&compare.value)
                .size_limit(REGEX_BYTES)
                .dfa_size_limit(REGEX_BYTES)
                .build();
            match regex {
                Ok(regex) => operand.regex = Some(regex),
                Err(problem) => return error(format!("not a regular expression: {problem}")),
            }
        } else if path == ["severity"] && operand.severity.is_none() && compare.op != Op::Has {
            return error(format!(
                "\"{}\" is not a severity: one of DEFAULT, DEBUG, INFO, NOTICE, WARNING, ERROR, \
                 CRITICAL, ALERT, EMERGENCY is expected",
                compare.value
            ));
        } else if matches!(path.as_slice(), [name] if name == "timestamp" || name == "receiveTimestamp")
            && operand.time.is_none()
        {
            return error(format!(
                "\"{}\" is not a time: one such as \"2026-01-31T23:59:59Z\" or \"2026-01-31\" is \
                 expected",
                compare.value
            ));
        }
        Ok(Node::Compare {
            path,
            op: compare.op,
            operand,
        })
    }
}

/// Checks the name of the field.
fn field(path: &Path) -> Result<Vec<String>, At> {
    let mut parts = path.parts.clone();
    match fields::canonical(&parts[0]) {
        Some(name) => parts[0] = name.to_owned(),
        None => {
            return Err(At {
                at: path.at,
                message: format!(
                    "there is no field {}; fields start with one of textPayload, jsonPayload, protoPayload, \
                     severity, timestamp, resource, labels, logName, httpRequest, insertId, trace, \
                     spanId, operation, sourceLocation. Put text to search for in double quotes",
                    parts[0]
                ),
            });
        }
    }
    Ok(parts)
}

fn operand(text: &str) -> Operand {
    Operand {
        text: text.to_owned(),
        lower: text.to_lowercase(),
        number: text.parse().ok(),
        flag: match text.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        },
        severity: Severity::parse(text),
        time: parse_time(text),
        duration: wire::parse_duration(text),
        regex: None,
    }
}

/// RFC 3339; without an offset, or a date alone, it is UTC.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let civil: civil::DateTime = text.parse().ok()?;
    civil
        .to_zoned(TimeZone::UTC)
        .ok()
        .map(|zoned| zoned.timestamp())
}
