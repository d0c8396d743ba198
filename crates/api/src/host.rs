//! Which API a request is for, and in which region: both are known only from its host name
//! (`us-central1-run.googleapis.com`), because v1 paths hold neither.

/// The APIs that are served, told apart by the first label of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// `run.googleapis.com`, and every host that is not Google's: the platform's own.
    Run,
    /// `serviceusage.googleapis.com`.
    ServiceUsage,
    /// `cloudresourcemanager.googleapis.com`.
    ResourceManager,
    /// `logging.googleapis.com`.
    Logging,
    /// `pubsub.googleapis.com`.
    PubSub,
    /// `cloudscheduler.googleapis.com`.
    Scheduler,
    /// `cloudtasks.googleapis.com`.
    Tasks,
    /// `eventarc.googleapis.com` and `eventarcpublishing.googleapis.com`.
    Eventarc,
}

/// What a host name says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// The API, or the name of one that is not served.
    pub(crate) service: Result<Target, String>,
    /// The region, where the host names one.
    pub(crate) region: Option<String>,
    /// Whether this is a Google host without a region: lists are then of all regions.
    pub(crate) global: bool,
}

impl Host {
    /// Whether it is the platform's own, which serves every API whose paths tell it apart.
    pub(crate) fn is_own(&self) -> bool {
        self.service == Ok(Target::Run) && self.region.is_none() && !self.global
    }
}

/// Whether a `Host` header or `:authority` names an API of Google's.
pub(crate) fn is_google(authority: &str) -> bool {
    without_port(authority)
        .to_ascii_lowercase()
        .ends_with(".googleapis.com")
}

fn without_port(authority: &str) -> &str {
    authority
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(authority, |(name, _)| name)
}

/// Reads a `Host` header or `:authority`, with or without a port.
pub(crate) fn parse(authority: &str) -> Host {
    let name = without_port(authority).to_ascii_lowercase();
    let Some(api) = name.strip_suffix(".googleapis.com") else {
        return Host {
            service: Ok(Target::Run),
            region: None,
            global: false,
        };
    };
    let (region, api) = match api.rsplit_once('-') {
        Some((region, "run")) => (Some(region.to_owned()), "run"),
        _ => (None, api),
    };
    let service = match api {
        "run" => Ok(Target::Run),
        "serviceusage" => Ok(Target::ServiceUsage),
        "cloudresourcemanager" => Ok(Target::ResourceManager),
        "logging" => Ok(Target::Logging),
        "pubsub" => Ok(Target::PubSub),
        "cloudscheduler" => Ok(Target::Scheduler),
        "cloudtasks" => Ok(Target::Tasks),
        "eventarc" | "eventarcpublishing" => Ok(Target::Eventarc),
        other => Err(format!("{other}.googleapis.com")),
    };
    Host {
        service,
        global: region.is_none(),
        region,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_and_api_come_from_the_host() {
        let host = parse("us-central1-run.googleapis.com:443");
        assert_eq!(host.service, Ok(Target::Run));
        assert_eq!(host.region.as_deref(), Some("us-central1"));
        assert!(!host.global);
        let host = parse("run.googleapis.com");
        assert_eq!((host.region, host.global), (None, true));
        assert_eq!(parse("Logging.googleapis.com").service, Ok(Target::Logging));
        assert_eq!(
            parse("translate.googleapis.com").service,
            Err("translate.googleapis.com".to_owned())
        );
        let host = parse("127.0.0.1:8080");
        assert_eq!((host.service, host.global), (Ok(Target::Run), false));
        assert_eq!(parse("[::1]").service, Ok(Target::Run));
    }
}
