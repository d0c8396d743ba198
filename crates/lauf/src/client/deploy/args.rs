//! What can be typed after `lauf deploy`, and what it means as a change to a service.

use anyhow::{Result, bail};
use clap::Args;

use crate::client::container::ProgramArgs;
use crate::client::pairs;

const EXAMPLES: &str = "\
Examples:
  Put an image on the web, for everybody:
    lauf deploy hello --image hello --allow-unauthenticated

  Change one setting; everything else stays:
    lauf deploy hello --memory 1Gi

  Try a new revision under an address of its own, without traffic:
    lauf deploy hello --image hello:v2 --no-traffic --tag green
    lauf traffic hello --to LATEST=100";

/// Arguments of `lauf deploy`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeployArgs {
    /// The service's name
    pub(super) name: String,
    /// The container image; may be left out when the service exists
    #[arg(long, short)]
    pub(super) image: Option<String>,

    #[command(flatten)]
    program: ProgramArgs,
    /// The port the container listens on, told to it as PORT
    #[arg(long, value_name = "NUMBER", help_heading = "Container")]
    port: Option<u16>,
    /// The container speaks HTTP/2 without TLS (gRPC does)
    #[arg(long, help_heading = "Container", overrides_with = "no_use_http2")]
    use_http2: bool,
    /// The container speaks HTTP/1.1
    #[arg(long, help_heading = "Container", overrides_with = "use_http2")]
    no_use_http2: bool,

    /// CPUs of an instance, such as 1, 2 or 500m
    #[arg(long, value_name = "CPU", help_heading = "Resources and scaling")]
    cpu: Option<String>,
    /// Memory of an instance, such as 512Mi or 2Gi
    #[arg(long, value_name = "SIZE", help_heading = "Resources and scaling")]
    memory: Option<String>,
    /// More CPU while an instance starts and ten seconds longer; new services have it
    #[arg(
        long,
        help_heading = "Resources and scaling",
        overrides_with = "no_cpu_boost"
    )]
    cpu_boost: bool,
    /// No more CPU than ever while an instance starts
    #[arg(
        long,
        help_heading = "Resources and scaling",
        overrides_with = "cpu_boost"
    )]
    no_cpu_boost: bool,
    /// A client gets the instance again that it had before
    #[arg(
        long,
        help_heading = "Resources and scaling",
        overrides_with = "no_session_affinity"
    )]
    session_affinity: bool,
    /// Any instance for any client
    #[arg(
        long,
        help_heading = "Resources and scaling",
        overrides_with = "session_affinity"
    )]
    no_session_affinity: bool,
    /// Requests that one instance serves at the same time
    #[arg(long, value_name = "NUMBER", help_heading = "Resources and scaling")]
    concurrency: Option<u32>,
    /// How long a request may take, such as 30s, 5m or 300
    #[arg(long, value_name = "DURATION", help_heading = "Resources and scaling")]
    timeout: Option<String>,
    /// Instances kept running without requests
    #[arg(long, value_name = "NUMBER", help_heading = "Resources and scaling")]
    min_instances: Option<u32>,
    /// Instances at most
    #[arg(long, value_name = "NUMBER", help_heading = "Resources and scaling")]
    max_instances: Option<u32>,
    /// Instances of the whole service kept running, divided over its revisions by traffic
    #[arg(long, value_name = "NUMBER", help_heading = "Resources and scaling")]
    min: Option<u32>,
    /// Instances of the whole service at most, divided likewise
    #[arg(long, value_name = "NUMBER", help_heading = "Resources and scaling")]
    max: Option<u32>,
    /// auto, or exactly this many instances of the whole service
    #[arg(long, value_name = "MODE", help_heading = "Resources and scaling", value_parser = scaling)]
    scaling: Option<Manual>,
    /// How busy CPUs are to be on average, from 0.1 to 0.95; disabled, or default
    #[arg(long, value_name = "TARGET", help_heading = "Resources and scaling")]
    scaling_cpu_target: Option<String>,
    /// How full instances are to be on average, likewise
    #[arg(long, value_name = "TARGET", help_heading = "Resources and scaling")]
    scaling_concurrency_target: Option<String>,

    /// Everybody may call the service
    #[arg(
        long,
        help_heading = "Access and traffic",
        overrides_with = "no_allow_unauthenticated"
    )]
    allow_unauthenticated: bool,
    /// Only callers with a token may call the service
    #[arg(
        long,
        help_heading = "Access and traffic",
        overrides_with = "allow_unauthenticated"
    )]
    no_allow_unauthenticated: bool,
    /// The new revision gets no traffic yet
    #[arg(long, help_heading = "Access and traffic")]
    pub(super) no_traffic: bool,
    /// A tag for the new revision, which gives it an address of its own
    #[arg(long, value_name = "TAG", help_heading = "Access and traffic")]
    pub(super) tag: Option<String>,

    /// The account the service runs as
    #[arg(long, value_name = "EMAIL", help_heading = "Description")]
    service_account: Option<String>,
    /// A label of the service and its revisions. May be given more than once
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Description")]
    label: Vec<String>,
    /// Labels to set; the others stay
    #[arg(
        long,
        visible_alias = "update-labels",
        value_name = "NAME=VALUE,...",
        help_heading = "Description"
    )]
    labels: Vec<String>,
    /// Labels to remove
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        help_heading = "Description"
    )]
    remove_labels: Vec<String>,
    /// A sentence about the service
    #[arg(long, value_name = "TEXT", help_heading = "Description")]
    description: Option<String>,

    /// Do not wait until the revision is ready
    #[arg(long = "async")]
    pub(super) no_wait: bool,
}

/// Manual scaling: `Some` of a number of instances, or none.
pub(crate) type Manual = Option<u32>;

fn scaling(text: &str) -> Result<Manual, String> {
    match text {
        "auto" => Ok(None),
        count => match count.parse() {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err("it must be auto or a number of instances".to_owned()),
        },
    }
}

/// What `lauf deploy` shall change; `None` and empty leave things as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) image: Option<String>,
    pub(crate) clear_env: bool,
    pub(crate) set_env: Vec<(String, String)>,
    pub(crate) remove_env: Vec<String>,
    pub(crate) command: Option<Vec<String>>,
    pub(crate) args: Option<Vec<String>>,
    pub(crate) working_dir: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) http2: Option<bool>,
    pub(crate) cpu: Option<String>,
    pub(crate) memory: Option<String>,
    pub(crate) cpu_boost: Option<bool>,
    pub(crate) session_affinity: Option<bool>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) min_instances: Option<u32>,
    pub(crate) max_instances: Option<u32>,
    pub(crate) service_min: Option<u32>,
    pub(crate) service_max: Option<u32>,
    pub(crate) scaling: Option<Manual>,
    pub(crate) cpu_target: Option<String>,
    pub(crate) concurrency_target: Option<String>,
    pub(crate) service_account: Option<String>,
    pub(crate) set_labels: Vec<(String, String)>,
    pub(crate) remove_labels: Vec<String>,
    pub(crate) description: Option<String>,
    pub(crate) no_traffic: bool,
    pub(crate) tag: Option<String>,
}

impl DeployArgs {
    /// Whether everybody shall be let in, or nobody without a token; `None` leaves it.
    pub(super) fn open(&self) -> Option<bool> {
        either(self.allow_unauthenticated, self.no_allow_unauthenticated)
    }

    /// What the arguments mean.
    pub(super) fn change(&self) -> Result<Change> {
        let mut set_labels = pairs::list("--labels", &self.labels)?;
        set_labels.extend(pairs::single("--label", &self.label)?);
        Ok(Change {
            image: self.image.clone(),
            port: self.port,
            http2: either(self.use_http2, self.no_use_http2),
            cpu: self.cpu.clone(),
            memory: self.memory.clone(),
            cpu_boost: either(self.cpu_boost, self.no_cpu_boost),
            session_affinity: either(self.session_affinity, self.no_session_affinity),
            concurrency: self.concurrency,
            timeout_seconds: self
                .timeout
                .as_deref()
                .map(|text| seconds("--timeout", text))
                .transpose()?,
            min_instances: self.min_instances,
            max_instances: self.max_instances,
            service_min: self.min,
            service_max: self.max,
            scaling: self.scaling,
            cpu_target: self.scaling_cpu_target.clone(),
            concurrency_target: self.scaling_concurrency_target.clone(),
            service_account: self.service_account.clone(),
            set_labels,
            remove_labels: self.remove_labels.clone(),
            description: self.description.clone(),
            no_traffic: self.no_traffic,
            tag: self.tag.clone(),
            ..self.program.change()?
        })
    }
}

/// What a pair of opposite options says; `None` when neither was given.
fn either(yes: bool, no: bool) -> Option<bool> {
    (yes || no).then_some(yes)
}

/// Reads `300`, `300s`, `5m` or `1h` of an option.
pub(crate) fn seconds(option: &str, text: &str) -> Result<u64> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((i, 's')) => (&text[..i], 1),
        Some((i, 'm')) => (&text[..i], 60),
        Some((i, 'h')) => (&text[..i], 3600),
        _ => (text, 1),
    };
    match number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)) {
        Some(seconds) => Ok(seconds),
        None => bail!("{option} takes a duration such as 30s or 5m, not '{text}'."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let seconds = |text| seconds("--timeout", text);
        assert_eq!(seconds("300").unwrap(), 300);
        assert_eq!(seconds("30s").unwrap(), 30);
        assert_eq!(seconds("5m").unwrap(), 300);
        for wrong in ["", "s", "1.5m", "-1", "5 m", "é"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
