//! What a filter says.

use std::fmt;

/// A part of a filter that is true or false of an entry.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    /// All of two or more.
    And(Vec<Expr>),
    /// Any of two or more.
    Or(Vec<Expr>),
    /// The opposite.
    Not(Box<Expr>),
    /// Text that stands anywhere in the entry.
    Global(String),
    /// `log_id("...")`.
    LogId(String),
    /// `path:*`.
    Exists(Path),
    /// `path op value`.
    Compare(Compare),
}

/// A field: its name, and the names within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) parts: Vec<String>,
    /// Where it stands in the text.
    pub(super) at: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Compare {
    pub(super) path: Path,
    pub(super) op: Op,
    pub(super) value: String,
    /// Where the value stands in the text.
    pub(super) at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Has,
    Matches,
    NotMatches,
}

impl Op {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::Has => ":",
            Self::Matches => "=~",
            Self::NotMatches => "!~",
        }
    }
}

/// Places do not count.
impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::And(a), Self::And(b)) | (Self::Or(a), Self::Or(b)) => a == b,
            (Self::Not(a), Self::Not(b)) => a == b,
            (Self::Global(a), Self::Global(b)) | (Self::LogId(a), Self::LogId(b)) => a == b,
            (Self::Exists(a), Self::Exists(b)) => a.parts == b.parts,
            (Self::Compare(a), Self::Compare(b)) => {
                a.path.parts == b.path.parts && a.op == b.op && a.value == b.value
            }
            _ => false,
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, parts: &[Self], word: &str| {
            for (n, part) in parts.iter().enumerate() {
                if n > 0 {
                    write!(f, " {word} ")?;
                }
                match part {
                    Self::And(_) | Self::Or(_) => write!(f, "({part})")?,
                    _ => write!(f, "{part}")?,
                }
            }
            Ok(())
        };
        match self {
            Self::And(parts) => list(f, parts, "AND"),
            Self::Or(parts) => list(f, parts, "OR"),
            Self::Not(part) => match **part {
                Self::And(_) | Self::Or(_) => write!(f, "NOT ({part})"),
                _ => write!(f, "NOT {part}"),
            },
            Self::Global(text) => quote(f, text),
            Self::LogId(id) => {
                f.write_str("log_id(")?;
                quote(f, id)?;
                f.write_str(")")
            }
            Self::Exists(path) => write!(f, "{path}:*"),
            Self::Compare(compare) => {
                write!(f, "{}{}", compare.path, compare.op.as_str())?;
                quote(f, &compare.value)
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, part) in self.parts.iter().enumerate() {
            if n > 0 {
                f.write_str(".")?;
            }
            if is_plain(part) {
                f.write_str(part)?;
            } else {
                quote(f, part)?;
            }
        }
        Ok(())
    }
}

/// Whether a name needs no quotes.
fn is_plain(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !matches!(name, "AND" | "OR" | "NOT")
}

fn quote(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for char in text.chars() {
        match char {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            _ => write!(f, "{char}")?,
        }
    }
    f.write_str("\"")
}
