//! The forward proxy: where `CONNECT` and absolute URIs may lead, which is only to ourselves.

use std::rc::Rc;

use http::{Request, Response, StatusCode};

use crate::body::{FromClient, Outgoing};
use crate::config::GatewayConfig;
use crate::error_page;
use crate::host;
use crate::listener::Origin;
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
pub(crate) fn refused() -> Response<Outgoing> {
    error_page::text(StatusCode::FORBIDDEN, REFUSED)
}

/// Answers `CONNECT`. The tunnel is then served like a connection of its own.
pub(crate) fn connect(
    thread: &Rc<Thread>,
    origin: Origin,
    request: &Request<FromClient>,
) -> Response<Outgoing> {
    let leads = request.uri().authority().is_some_and(|authority| {
        leads_to(&thread.shared.config, &host::normalize(authority.as_str()))
    });
    // A tunnel in a tunnel has no use.
    if !leads || origin.via_proxy || request.version() == http::Version::HTTP_2 {
        return refused();
    }
    let inside = Origin {
        via_proxy: true,
        ..origin
    };
    Response::new(Outgoing::Switch(Switch::Tunnel(Rc::clone(thread), inside)))
}
