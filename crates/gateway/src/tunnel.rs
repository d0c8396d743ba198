//! The forward proxy: where `CONNECT` and absolute URIs may lead, which is only to ourselves.

use std::rc::Rc;

use http::StatusCode;

use crate::body::Outgoing;
use crate::config::GatewayConfig;
use crate::error_page;
use crate::host;
use crate::listener::Origin;
use crate::message::{Answer, RequestHead};
use crate::switch::Switch;
use crate::thread::Thread;

/// What a client reads that takes the gateway for an open proxy.
const REFUSED: &str = "This proxy leads only to the services and APIs of this platform.\n";

/// Whether `CONNECT` may lead to a host.
pub(crate) fn leads_to(config: &GatewayConfig, name: &str) -> bool {
    host::within(name, &config.domain)
        || config
            .impersonated
            .iter()
            .any(|domain| host::within(name, domain))
}

/// 403 for any other host.
pub(crate) fn refused() -> Answer {
    error_page::text(StatusCode::FORBIDDEN, REFUSED)
}

/// Answers `CONNECT`. The tunnel is then served like a connection of its own.
pub(crate) fn connect(thread: &Rc<Thread>, origin: Origin, head: &RequestHead) -> Answer {
    let leads = head
        .authority()
        .is_some_and(|authority| leads_to(&thread.shared.config, &host::normalize(authority)));
    // A tunnel in a tunnel has no use.
    if !leads || origin.via_proxy || head.version == http::Version::HTTP_2 {
        return refused();
    }
    let inside = Origin {
        via_proxy: true,
        ..origin
    };
    let switch = Switch::Tunnel(Rc::clone(thread), inside);
    Answer::new(StatusCode::OK, Outgoing::Switch(switch))
}
