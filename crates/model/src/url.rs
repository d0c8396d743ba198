//! Service URLs: `http://SERVICE-PROJECTNUMBER.REGION.DOMAIN[:PORT]` in the deterministic form of
//! Cloud Run, and `TAG---` before the host for tags.

use serde::{Deserialize, Serialize};

/// Where the platform is reached, as its users see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// `http` or `https`.
    pub scheme: String,
    /// The domain under which services live, such as `run.localhost`.
    pub domain: String,
    /// The port, unless it is the scheme's own.
    pub port: Option<u16>,
}

impl Site {
    /// The platform's own address, which is no service's.
    #[must_use]
    pub fn root(&self) -> String {
        match self.port {
            Some(port) => format!("{}://{}:{port}", self.scheme, self.domain),
            None => format!("{}://{}", self.scheme, self.domain),
        }
    }

    /// The host name (without port) of a service.
    #[must_use]
    pub fn host(&self, service: &str, project_number: u64, region: &str) -> String {
        format!("{service}-{project_number}.{region}.{}", self.domain)
    }

    /// The URL of a service, or of a tag of it.
    #[must_use]
    pub fn url(
        &self,
        service: &str,
        project_number: u64,
        region: &str,
        tag: Option<&str>,
    ) -> String {
        let host = self.host(service, project_number, region);
        let tag = tag.map(|t| format!("{t}---")).unwrap_or_default();
        match self.port {
            Some(port) => format!("{}://{tag}{host}:{port}", self.scheme),
            None => format!("{}://{tag}{host}", self.scheme),
        }
    }
}
