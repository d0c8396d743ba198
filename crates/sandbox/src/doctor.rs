//! Checks whether this host can run Lauf, and says how to mend what is missing.

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Lauf runs, with less.
    Warning,
    /// Lauf can't run, or can't run this part.
    Missing,
}
