//! What the faces need to know about the platform they speak for.

use std::path::PathBuf;
use std::time::Duration;

use lauf_model::url::Site;

/// The settings of the API. The binary fills them from its own.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Where services are reached.
    pub site: Site,
    /// The regions this Lauf serves, in the order in which they are listed.
    pub regions: Vec<String>,
    /// The region of a request that names none; one of `regions`.
    pub default_region: String,
    /// The project of native requests that name none.
    pub default_project: String,
    /// The certificate that clients must trust, for those who ask where it is.
    pub ca_file: Option<PathBuf>,
    /// The largest request body, in bytes.
    pub max_body: usize,
    /// How long a client may take to send its request body.
    pub body_timeout: Duration,
}

impl ApiConfig {
    /// Settings for one region, with the bounds that suit one machine.
    #[must_use]
    pub fn new(site: Site, region: &str, project: &str) -> Self {
        Self {
            site,
            regions: vec![region.to_owned()],
            default_region: region.to_owned(),
            default_project: project.to_owned(),
            ca_file: None,
            max_body: 4 << 20,
            body_timeout: Duration::from_secs(30),
        }
    }
}
