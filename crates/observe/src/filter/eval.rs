//! Asking an entry.
//!
//! Text compares without regard to case, but for regular expressions. A field that is not there
//! makes a comparison false, `!=` and `!~` too: `NOT jsonPayload.x="a"` is what includes entries
//! without `x`. A field with many values (an array) passes if one of them does.

use std::cmp::Ordering;

use super::{
    ast::Op,
    fields::{self, Value},
    program::{Node, Operand},
};
use crate::{LogEntry, Severity, wire};

pub(super) fn matches(node: &Node, entry: &LogEntry) -> bool {
    match node {
        Node::And(parts) => parts.iter().all(|part| matches(part, entry)),
        Node::Or(parts) => parts.iter().any(|part| matches(part, entry)),
        Node::Not(part) => !matches(part, entry),
        Node::Global(operand) => {
            fields::everywhere(entry, &mut |value| compare(value, Op::Has, operand))
        }
        Node::LogId(id) => entry.log_id().to_lowercase() == *id,
        Node::Exists(path) => fields::any(entry, path, &mut |value| match value {
            Value::Severity(severity) => severity != Severity::Default,
            Value::Flag(flag) => flag || path[0] == "jsonPayload",
            _ => true,
        }),
        Node::Compare { path, op, operand } => {
            fields::any(entry, path, &mut |value| compare(value, *op, operand))
        }
    }
}

fn compare(value: Value<'_>, op: Op, operand: &Operand) -> bool {
    match op {
        Op::Eq => equal(value, operand),
        Op::Ne => !matches!(value, Value::Object) && !equal(value, operand),
        Op::Has => match value {
            Value::Text(text) => contains(text, &operand.lower),
            _ => equal(value, operand),
        },
        Op::Lt => order(value, operand) == Some(Ordering::Less),
        Op::Le => order(value, operand).is_some_and(Ordering::is_le),
        Op::Gt => order(value, operand) == Some(Ordering::Greater),
        Op::Ge => order(value, operand).is_some_and(Ordering::is_ge),
        Op::Matches => regex(value, operand) == Some(true),
        Op::NotMatches => regex(value, operand) == Some(false),
    }
}

fn equal(value: Value<'_>, operand: &Operand) -> bool {
    match value {
        Value::Text(text) => {
            text.eq_ignore_ascii_case(&operand.text) || text.to_lowercase() == operand.lower
        }
        Value::Flag(flag) => operand.flag == Some(flag),
        Value::Json(json) => json.is_null() && operand.text == "NULL_VALUE",
        Value::Object => false,
        _ => order(value, operand) == Some(Ordering::Equal),
    }
}

fn order(value: Value<'_>, operand: &Operand) -> Option<Ordering> {
    match value {
        Value::Text(text) => Some(text.to_lowercase().cmp(&operand.lower)),
        Value::Number(number) => number.partial_cmp(&operand.number?),
        Value::Severity(severity) => Some(severity.cmp(&operand.severity?)),
        Value::Time(time) => Some(time.cmp(&operand.time?)),
        Value::Duration(duration) => Some(duration.cmp(&operand.duration?)),
        Value::Flag(_) | Value::Json(_) | Value::Object => None,
    }
}

/// `None` where there is no text to look at.
fn regex(value: Value<'_>, operand: &Operand) -> Option<bool> {
    let regex = operand.regex.as_ref()?;
    Some(match value {
        Value::Text(text) => regex.is_match(text),
        Value::Number(number) => regex.is_match(&number.to_string()),
        Value::Flag(flag) => regex.is_match(if flag { "true" } else { "false" }),
        Value::Severity(severity) => regex.is_match(severity.as_str()),
        Value::Time(time) => regex.is_match(&time.to_string()),
        Value::Duration(duration) => regex.is_match(&wire::format_duration(duration)),
        Value::Json(_) | Value::Object => return None,
    })
}

/// Whether `text` in lower case contains `lower`.
fn contains(text: &str, lower: &str) -> bool {
    if lower.is_empty() {
        return true;
    }
    if text.is_ascii() {
        // Most logs: without making a copy of every text.
        let (text, lower) = (text.as_bytes(), lower.as_bytes());
        let first = lower[0];
        return text.len() >= lower.len()
            && (0..=text.len() - lower.len()).any(|at| {
                text[at].to_ascii_lowercase() == first
                    && text[at..at + lower.len()].eq_ignore_ascii_case(lower)
            });
    }
    text.to_lowercase().contains(lower)
}
