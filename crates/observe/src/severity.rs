//! How bad it is.

use serde::{Deserialize, Serialize};

/// Cloud Logging's severities, from least to most.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// None was given.
    #[default]
    Default,
    /// For who debugs.
    Debug,
    /// Routine.
    Info,
    /// Normal but of note: a start, a stop, a change of settings.
    Notice,
    /// May become a problem.
    Warning,
    /// Likely a problem.
    Error,
    /// A severe problem, or an outage.
    Critical,
    /// Somebody must act at once.
    Alert,
    /// The system is unusable.
    Emergency,
}

impl Severity {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Default, "DEFAULT"),
        (Self::Debug, "DEBUG"),
        (Self::Info, "INFO"),
        (Self::Notice, "NOTICE"),
        (Self::Warning, "WARNING"),
        (Self::Error, "ERROR"),
        (Self::Critical, "CRITICAL"),
        (Self::Alert, "ALERT"),
        (Self::Emergency, "EMERGENCY"),
    ];

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Its number on the wire: 0, 100, ... 800.
    #[must_use]
    pub fn number(self) -> u32 {
        self as u32 * 100
    }

    /// Reads a name, in any case, or a number (rounded down to one that has a name).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse::<u32>() {
            return Self::from_number(number);
        }
        let named = Self::ALL
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text));
        named.map(|(severity, _)| *severity)
    }

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        let index = usize::try_from(number / 100).ok()?;
        Self::ALL.get(index).map(|(severity, _)| *severity)
    }

    /// Reads what logging libraries call their levels, as Cloud Logging's agent does.
    #[must_use]
    pub fn parse_level(text: &str) -> Option<Self> {
        let text = text.trim();
        Self::parse(text).or_else(|| {
            Some(match text.to_ascii_uppercase().as_str() {
                "D" | "TRACE" | "FINE" | "FINER" | "FINEST" | "CONFIG" => Self::Debug,
                "I" | "INFORMATION" | "INFORMATIONAL" => Self::Info,
                "N" => Self::Notice,
                "W" | "WARN" => Self::Warning,
                "E" | "ERR" | "SEVERE" => Self::Error,
                "C" | "CRIT" | "F" | "FATAL" => Self::Critical,
                "A" => Self::Alert,
                "EMERG" | "PANIC" => Self::Emergency,
                _ => return None,
            })
        })
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
