//! Stop 3: may this caller reach this service?

use std::fmt;
use std::sync::Arc;

use lauf_model::{Ingress, ServiceKey};

use crate::fields::{Fields, Known, Set};
use crate::route::ServiceRoute;

/// Who may call a service.
#[derive(Clone)]
pub enum Access {
    /// Anybody.
    Public,
    /// Who the check lets in.
    Restricted(Arc<dyn InvokerCheck>),
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "Public",
            Self::Restricted(_) => "Restricted",
        })
    }
}

/// Decides whether a caller holds `run.routes.invoke` on a service. It is asked on the data plane,
/// so it answers from memory.
pub trait InvokerCheck: Send + Sync + 'static {
    /// `token` is the bearer token the caller sent, if any. `host` is what the caller asked for,
    /// without port; identity tokens name it as their audience.
    fn check(&self, service: &ServiceKey, host: &str, token: Option<&str>) -> Result<(), Denied>;
}

/// Why a caller was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// There is a token, but it is not valid: 401.
    Unauthenticated,
    /// No token, or a caller without the permission: 403.
    Forbidden,
}

/// What admission says about a request that may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Ingress hides the service from this network: 404.
    Hidden,
    /// The invoker check failed.
    Denied(Denied),
}

/// Checks ingress and invoker. A token that was used up by the check is made unusable for the
/// service, as in Cloud Run: a signed one loses its signature, an opaque one goes.
pub(crate) fn admit(
    route: &ServiceRoute,
    host: &str,
    internal: bool,
    fields: &mut Fields,
) -> Result<(), Refusal> {
    if route.ingress != Ingress::All && !internal {
        return Err(Refusal::Hidden);
    }
    let Access::Restricted(check) = &route.access else {
        return Ok(());
    };
    // It carries the caller's token when `Authorization` is taken by the service's own scheme.
    let known = if fields.has(Known::ServerlessAuthorization) {
        Known::ServerlessAuthorization
    } else {
        Known::Authorization
    };
    let token = fields.get_str(known).and_then(bearer);
    check
        .check(&route.key, host, token)
        .map_err(Refusal::Denied)?;
    if let Some(token) = token {
        match without_signature(token) {
            Some(rest) => fields.set(known, rest.as_bytes()),
            None => fields.remove(Set::of(&[known])),
        }
    }
    Ok(())
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim())
        .filter(|token| !token.is_empty())
}

fn without_signature(token: &str) -> Option<String> {
    let (signed, _) = token.rsplit_once('.')?;
    (signed.matches('.').count() == 1)
        .then(|| format!("Bearer {signed}.SIGNATURE_REMOVED_BY_GOOGLE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Only(&'static str);
    impl InvokerCheck for Only {
        fn check(&self, _: &ServiceKey, _: &str, token: Option<&str>) -> Result<(), Denied> {
            match token {
                None => Err(Denied::Forbidden),
                Some(t) if t == self.0 => Ok(()),
                Some(_) => Err(Denied::Unauthenticated),
            }
        }
    }

    fn route(access: Access, ingress: Ingress) -> ServiceRoute {
        ServiceRoute {
            key: ServiceKey {
                project: "p".into(),
                region: "r".into(),
                name: "s".into(),
            },
            access,
            ingress,
            targets: Vec::new(),
        }
    }

    #[test]
    fn the_token_that_let_a_caller_in_does_not_reach_the_service() {
        let signed = route(Access::Restricted(Arc::new(Only("h.p.s"))), Ingress::All);
        let mut fields = Fields::from([("authorization", "bearer h.p.s")]);
        assert_eq!(admit(&signed, "h", false, &mut fields), Ok(()));
        assert_eq!(
            fields.get_str(Known::Authorization),
            Some("Bearer h.p.SIGNATURE_REMOVED_BY_GOOGLE")
        );

        let opaque = route(Access::Restricted(Arc::new(Only("secret"))), Ingress::All);
        let mut fields = Fields::from([
            ("x-serverless-authorization", "Bearer secret"),
            ("authorization", "Basic own"),
        ]);
        assert_eq!(admit(&opaque, "h", false, &mut fields), Ok(()));
        assert_eq!(fields, [("authorization", "Basic own")].into());
    }

    #[test]
    fn strangers_are_told_apart_from_forgers() {
        let restricted = route(Access::Restricted(Arc::new(Only("x"))), Ingress::All);
        let none = admit(&restricted, "h", false, &mut Fields::new());
        assert_eq!(none, Err(Refusal::Denied(Denied::Forbidden)));
        let wrong = admit(
            &restricted,
            "h",
            false,
            &mut [("authorization", "Bearer y")].into(),
        );
        assert_eq!(wrong, Err(Refusal::Denied(Denied::Unauthenticated)));
    }

    #[test]
    fn internal_services_are_hidden_from_outside() {
        let hidden = route(Access::Public, Ingress::Internal);
        assert_eq!(
            admit(&hidden, "h", false, &mut Fields::new()),
            Err(Refusal::Hidden)
        );
        assert_eq!(admit(&hidden, "h", true, &mut Fields::new()), Ok(()));
    }
}
