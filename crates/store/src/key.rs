//! What an object is called.

use std::{borrow::Cow, fmt};

/// The longest kind, scope or name, in bytes of UTF-8.
pub const MAX_KEY_PART: usize = 1024;

/// The sort of resource, such as `Service` or `Revision`. Each kind is ordered and listed on its
/// own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(Cow<'static, str>);

impl Kind {
    /// A kind known when the program is built: `const SERVICE: Kind = Kind::new("Service");`.
    #[must_use]
    pub const fn new(kind: &'static str) -> Self {
        Self(Cow::Borrowed(kind))
    }

    /// The kind as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Kind {
    fn from(kind: String) -> Self {
        Self(Cow::Owned(kind))
    }
}

impl From<&'static str> for Kind {
    fn from(kind: &'static str) -> Self {
        Self::new(kind)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an object, unique in the store. Keys order by kind, then scope, then name, by the
/// bytes of their UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What sort of thing it is.
    pub kind: Kind,
    /// What it belongs to, such as `PROJECT/REGION`. May be empty.
    pub scope: String,
    /// Its name within kind and scope.
    pub name: String,
}

impl Key {
    /// Puts a key together.
    pub fn new(kind: impl Into<Kind>, scope: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            scope: scope.into(),
            name: name.into(),
        }
    }

    /// Why this key cannot be stored, if it cannot. PostgreSQL takes no NUL in text, so nor do we.
    pub(crate) fn problem(&self) -> Option<String> {
        let parts = [
            ("kind", self.kind.as_str(), false),
            ("scope", &self.scope, true),
            ("name", &self.name, false),
        ];
        for (part, value, may_be_empty) in parts {
            if value.is_empty() && !may_be_empty {
                return Some(format!("the {part} of key {self} is empty"));
            }
            if value.len() > MAX_KEY_PART {
                return Some(format!(
                    "the {part} of a key has {} bytes; at most {MAX_KEY_PART} are allowed",
                    value.len()
                ));
            }
            if value.contains('\0') {
                return Some(format!(
                    "the {part} of key {self:?} contains a NUL character"
                ));
            }
        }
        None
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.scope, self.name)
    }
}
