//! The kinds that are served, one file each.

mod namespace;
mod revision;
mod service;
mod views;

use super::kind::Kind;

pub(crate) use service::carry;

static ALL: [&dyn Kind; 5] = [
    &namespace::Namespaces,
    &service::Services,
    &revision::Revisions,
    &views::CONFIGURATIONS,
    &views::ROUTES,
];

/// All of them, in the order in which they are listed.
pub(crate) fn all() -> &'static [&'static dyn Kind] {
    &ALL
}

/// The kind of a path.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static dyn Kind> {
    all().iter().copied().find(|kind| {
        let names = kind.names();
        names.group == group && names.version == version && names.plural == plural
    })
}
