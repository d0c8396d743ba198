//! Who said what: sets of fields, and what becomes of them when objects are changed and applied
//! (Kubernetes, "Server-Side Apply"; the rules are those of structured-merge-diff).

mod managers;
mod set;
mod typed;

pub(crate) use managers::{Conflict, Managers, Who};
pub(crate) use typed::{compare, element, fields};
