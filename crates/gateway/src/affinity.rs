//! Session affinity: a client that shows the cookie it was given gets the same instance again, as long as that is there and has
//! room (Cloud Run, "Session affinity for services"). It goes before the split of the traffic.

use std::sync::Arc;

use crate::fields::{Fields, Known};
use crate::pool::RevisionPool;
use crate::route::ServiceRoute;
use crate::slot::Slots;

/// The cookie's name, which is Cloud Run's.
const NAME: &[u8] = b"GAESA=";
/// How long a client keeps it: 30 days. Whether it is a secure one depends on how the client came.
const PLAIN: &[u8] = b"; Max-Age=2592000; Path=/; HttpOnly";
const SECURE: &[u8] = b"; Max-Age=2592000; Path=/; HttpOnly; Secure";

/// The instance that a client is to stay with, if its revision still has traffic and asks for that.
pub(crate) fn of(route: &ServiceRoute, fields: &Fields) -> Option<(Arc<RevisionPool>, Arc<Slots>)> {
    if !route.targets.iter().any(|(_, pool)| pool.session_affinity) {
        return None;
    }
    let named = cookie(fields)?;
    let only = route.targets.len() == 1;
    let targets = route.targets.iter();
    targets
        .filter(|(share, pool)| pool.session_affinity && (only || *share > 0))
        .find_map(|(_, pool)| Some((Arc::clone(pool), pool.ready_one(named)?)))
}

/// Tells a client which instance it is with, unless it said so itself.
pub(crate) fn tell(said: bool, slots: &Slots, scheme: &str, answer: &mut Fields) {
    if !said {
        let rest = if scheme == "https" { SECURE } else { PLAIN };
        let id = slots.instance.id().0.as_bytes();
        answer.append(Known::SetCookie, &[NAME, id, rest]);
    }
}

/// What the cookie says (RFC 6265, section 4.2).
fn cookie(fields: &Fields) -> Option<&str> {
    fields
        .get_all(Known::Cookie)
        .flat_map(|line| line.split(|byte| *byte == b';'))
        .find_map(|pair| pair.trim_ascii().strip_prefix(NAME))
        .and_then(|value| std::str::from_utf8(value).ok())
}
