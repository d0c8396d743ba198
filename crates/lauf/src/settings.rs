//! The settings of `lauf up`: what was typed, set in the environment or written in the file
//! ([`UpArgs`]), and what it means ([`Settings`]).

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use lauf_control::JobLimits;
use lauf_gateway::CertificateFile;
use serde::Deserialize;

use crate::up::Nats;

/// As typed. Each has a variable `LAUF_...` and, in the file, a key of the same name with `_` for
/// `-`. The command line wins over the environment, and that over the file.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UpArgs {
    /// A TOML file with settings [default: DATA/lauf.toml, if there is one].
    #[arg(long, env = "LAUF_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:8080].
    #[arg(long, env = "LAUF_LISTEN", value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The domain of services' URLs [default: run.localhost].
    #[arg(long, env = "LAUF_DOMAIN", value_name = "NAME")]
    domain: Option<String>,
    /// Certificates for the domain from files in PEM form, each with those that lead to its root. Services' URLs
    /// are then https [default: none].
    #[arg(
        long,
        env = "LAUF_TLS_CERTIFICATE",
        value_name = "FILE",
        value_delimiter = ','
    )]
    tls_certificate: Option<Vec<PathBuf>>,
    /// The private keys of those certificates, in the same order.
    #[arg(long, env = "LAUF_TLS_KEY", value_name = "FILE", value_delimiter = ',')]
    tls_key: Option<Vec<PathBuf>>,
    /// The regions served, the first being the default one [default: us-central1].
    #[arg(long, env = "LAUF_REGIONS", value_name = "NAME", value_delimiter = ',')]
    regions: Option<Vec<String>>,
    /// The project made at the first start [default: demo].
    #[arg(long, env = "LAUF_DEFAULT_PROJECT", value_name = "ID")]
    default_project: Option<String>,
    /// Stop instances after this long without a request [default: 15m].
    #[arg(long, env = "LAUF_IDLE_TIMEOUT", value_name = "DURATION")]
    idle_timeout: Option<String>,
    /// What starts containers: `own`, or the path of an OCI runtime such as runc or runsc
    /// [default: own].
    #[arg(long, env = "LAUF_RUNTIME", value_name = "RUNTIME")]
    runtime: Option<String>,
    /// Arguments put before the OCI runtime's subcommand, such as --network=host for runsc.
    #[arg(
        long,
        env = "LAUF_RUNTIME_ARGS",
        value_name = "ARG",
        value_delimiter = ' ',
        allow_hyphen_values = true
    )]
    runtime_args: Option<Vec<String>>,
    /// Prepared sandboxes that wait for a container [default: 8].
    #[arg(long, env = "LAUF_POOL", value_name = "N")]
    pool: Option<u32>,
    /// Whether instances reach the outside: true, false [default: true where nft is installed].
    #[arg(long, env = "LAUF_EGRESS", value_name = "BOOL")]
    egress: Option<bool>,
    /// Private networks that instances may reach with egress, such as 192.168.1.0/24, or `all`
    /// [default: none].
    #[arg(
        long,
        env = "LAUF_EGRESS_PRIVATE",
        value_name = "NETWORK",
        value_delimiter = ','
    )]
    egress_private: Option<Vec<String>>,
    /// Ports of this machine that instances may reach with egress, at host.lauf.internal
    /// [default: none].
    #[arg(
        long,
        env = "LAUF_EGRESS_HOST_PORTS",
        value_name = "PORT",
        value_delimiter = ','
    )]
    egress_host_ports: Option<Vec<u16>>,
    /// The most memory of all instances together: 20Gi, 512Mi, 80% [default: the machine's, less a
    /// tenth and at least 512 MiB].
    #[arg(long, env = "LAUF_MEMORY", value_name = "SIZE")]
    memory: Option<String>,
    /// The most instances on this machine [default: by how many files a process may have open].
    #[arg(long, env = "LAUF_MAX_INSTANCES", value_name = "N")]
    max_instances: Option<u32>,
    /// Data-plane threads [default: one a core].
    #[arg(long, env = "LAUF_THREADS", value_name = "N")]
    threads: Option<usize>,
    /// Registries asked for names without a host, after the own one; empty for none
    /// [default: docker.io].
    #[arg(
        long,
        env = "LAUF_SHORT_NAME_REGISTRIES",
        value_name = "HOST",
        value_delimiter = ','
    )]
    short_name_registries: Option<Vec<String>>,
    /// Files with credentials for other registries, in the form of Docker's config.json
    /// [default: DATA/registry-auth.json, ~/.docker/config.json].
    #[arg(
        long,
        env = "LAUF_REGISTRY_AUTH",
        value_name = "FILE",
        value_delimiter = ','
    )]
    registry_auth: Option<Vec<PathBuf>>,
    /// Serve Pub/Sub without credentials on this address, for clients that are given it as
    /// PUBSUB_EMULATOR_HOST, such as 127.0.0.1:8085 [default: nowhere].
    #[arg(long, env = "LAUF_PUBSUB_EMULATOR", value_name = "ADDR")]
    pubsub_emulator: Option<SocketAddr>,
    /// Keep messages and tasks on the NATS JetStream servers at these addresses, such as
    /// nats://10.0.0.5:4222,nats://10.0.0.6:4222 [default: in files of the data folder].
    #[arg(
        long,
        env = "LAUF_MESSAGE_LOG",
        value_name = "URL",
        hide_env_values = true
    )]
    message_log: Option<String>,
    /// On how many of those servers each message is to be [default: 1].
    #[arg(long, env = "LAUF_MESSAGE_LOG_REPLICAS", value_name = "N")]
    message_log_replicas: Option<usize>,
    /// The most bytes of logs kept, in MiB [default: 1024].
    #[arg(long, env = "LAUF_LOG_MIB", value_name = "MIB")]
    log_mib: Option<u64>,
    /// The memory that tasks of jobs may have together, in MiB: the sum of their limits
    /// [default: the machine's].
    #[arg(long, env = "LAUF_JOB_MEMORY_MIB", value_name = "MIB")]
    job_memory_mib: Option<u64>,
    /// The most tasks of jobs that run at once [default: 1000].
    #[arg(long, env = "LAUF_JOB_TASKS", value_name = "COUNT")]
    job_tasks: Option<usize>,
}

/// What they mean.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) domain: String,
    pub(crate) regions: Vec<String>,
    pub(crate) default_project: String,
    pub(crate) idle_timeout: Duration,
    pub(crate) runtime: lauf_sandbox::Runtime,
    pub(crate) pool: u32,
    pub(crate) egress: Option<bool>,
    pub(crate) egress_private: Vec<String>,
    pub(crate) egress_host_ports: Vec<u16>,
    pub(crate) memory: Option<u64>,
    pub(crate) max_instances: Option<u32>,
    pub(crate) threads: usize,
    pub(crate) short_name_registries: Vec<String>,
    pub(crate) registry_auth: Vec<PathBuf>,
    pub(crate) certificates: Vec<CertificateFile>,
    pub(crate) log_bytes: u64,
    pub(crate) message_log: Option<Nats>,
    pub(crate) jobs: JobLimits,
    pub(crate) pubsub_emulator: Option<SocketAddr>,
}

impl Settings {
    /// Puts command line and environment (which clap has read) over the file, over the defaults.
    pub(crate) fn new(data: &Path, typed: &UpArgs) -> anyhow::Result<Self> {
        let file = file(data, typed.config.as_deref())?;
        let domain = typed
            .domain
            .clone()
            .or(file.domain)
            .unwrap_or_else(|| "run.localhost".into());
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        let regions = typed.regions.clone().or(file.regions).unwrap_or_default();
        let regions = if regions.is_empty() {
            vec!["us-central1".to_owned()]
        } else {
            regions
        };
        for (name, setting) in regions
            .iter()
            .map(|r| (r, "regions"))
            .chain([(&domain, "domain")])
        {
            if name.is_empty()
                || !name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
            {
                bail!("{setting}: '{name}' must be lowercase letters, digits, hyphens and dots");
            }
        }
        let idle = typed.idle_timeout.clone().or(file.idle_timeout);
        let runtime = typed
            .runtime
            .clone()
            .or(file.runtime)
            .unwrap_or_else(|| "own".into());
        let runtime = match runtime.as_str() {
            "own" => lauf_sandbox::Runtime::Own,
            program => lauf_sandbox::Runtime::Oci {
                path: find_program(program)
                    .with_context(|| format!("runtime: there is no program '{program}'"))?,
                args: typed
                    .runtime_args
                    .clone()
                    .or(file.runtime_args)
                    .unwrap_or_default(),
            },
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let data = std::path::absolute(data)?;
        let registry_auth = typed.registry_auth.clone().or(file.registry_auth);
        let registry_auth = registry_auth.unwrap_or_else(|| {
            let home = std::env::home_dir().map(|home| home.join(".docker/config.json"));
            std::iter::once(data.join("registry-auth.json"))
                .chain(home)
                .collect()
        });
        Ok(Self {
            data,
            listen: typed
                .listen
                .or(file.listen)
                .unwrap_or(([127, 0, 0, 1], 8080).into()),
            domain,
            regions,
            default_project: typed
                .default_project
                .clone()
                .or(file.default_project)
                .unwrap_or_else(|| "demo".into()),
            idle_timeout: idle.map_or(Ok(Duration::from_secs(15 * 60)), |text| {
                duration(&text).context("idle-timeout")
            })?,
            runtime,
            pool: typed.pool.or(file.pool).unwrap_or(8).clamp(1, 1024),
            egress: typed.egress.or(file.egress),
            egress_private: networks(typed.egress_private.clone().or(file.egress_private))?,
            egress_host_ports: typed
                .egress_host_ports
                .clone()
                .or(file.egress_host_ports)
                .unwrap_or_default(),
            memory: typed
                .memory
                .clone()
                .or(file.memory)
                .map(|text| memory(&text))
                .transpose()?,
            max_instances: typed.max_instances.or(file.max_instances),
            threads: typed.threads.or(file.threads).unwrap_or(cores).max(1),
            short_name_registries: typed
                .short_name_registries
                .clone()
                .or(file.short_name_registries)
                .unwrap_or_else(|| vec!["docker.io".into()])
                .into_iter()
                .filter(|host| !host.is_empty())
                .collect(),
            registry_auth,
            certificates: certificates(
                typed.tls_certificate.clone().or(file.tls_certificate),
                typed.tls_key.clone().or(file.tls_key),
            )?,
            message_log: typed
                .message_log
                .clone()
                .or(file.message_log)
                .map(|url| Nats {
                    url,
                    replicas: typed
                        .message_log_replicas
                        .or(file.message_log_replicas)
                        .unwrap_or(1),
                }),
            pubsub_emulator: typed.pubsub_emulator.or(file.pubsub_emulator),
            log_bytes: typed.log_mib.or(file.log_mib).unwrap_or(1024).max(16) << 20,
            jobs: JobLimits {
                memory: typed
                    .job_memory_mib
                    .or(file.job_memory_mib)
                    .map_or_else(machine_memory, |mib| mib << 20),
                tasks: typed.job_tasks.or(file.job_tasks).unwrap_or(1000).max(1),
            },
        })
    }
}

/// The memory of this machine in bytes; a guess where it does not say.
fn machine_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(4 << 30, |kib| kib << 10)
}

fn file(data: &Path, named: Option<&Path>) -> anyhow::Result<UpArgs> {
    let path = named.map_or_else(|| data.join("lauf.toml"), Path::to_owned);
    match fs::read_to_string(&path) {
        Ok(text) => {
            toml::from_str(&text).with_context(|| format!("the settings file {}", path.display()))
        }
        Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => {
            Ok(UpArgs::default())
        }
        Err(e) => Err(e).with_context(|| format!("the settings file {}", path.display())),
    }
}

/// `90s`, `15m`, `1h`, `500ms`, or a number of seconds.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let parsed = number.parse::<u64>().ok().and_then(|n| match unit {
        "ms" => Some(Duration::from_millis(n)),
        "" | "s" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_secs(n.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(n.checked_mul(3600)?)),
        _ => None,
    });
    parsed.with_context(|| format!("'{text}' is not a duration; write it like 90s, 15m or 1h"))
}

/// Certificates with their keys.
fn certificates(
    certificates: Option<Vec<PathBuf>>,
    keys: Option<Vec<PathBuf>>,
) -> anyhow::Result<Vec<CertificateFile>> {
    let (certificates, keys) = (certificates.unwrap_or_default(), keys.unwrap_or_default());
    if certificates.len() != keys.len() {
        bail!(
            "tls-certificate names {} files and tls-key {}; each certificate needs its key, in the same order",
            certificates.len(),
            keys.len()
        );
    }
    let pairs = certificates.into_iter().zip(keys);
    Ok(pairs
        .map(|(certificate, key)| CertificateFile { certificate, key })
        .collect())
}

/// Networks in CIDR notation, or `all`.
fn networks(list: Option<Vec<String>>) -> anyhow::Result<Vec<String>> {
    let list: Vec<String> = list.unwrap_or_default();
    let list: Vec<String> = list.into_iter().filter(|text| !text.is_empty()).collect();
    for text in list.iter().filter(|text| *text != "all") {
        if let Err(error) = text.parse::<lauf_sandbox::net::Subnet>() {
            bail!("egress-private: {error}, or `all`");
        }
    }
    Ok(list)
}

/// `20Gi`, `512Mi`, or a part of the machine's memory such as `80%`.
fn memory(text: &str) -> anyhow::Result<u64> {
    let wrong = || {
        format!("memory: '{text}' is no size; write it like 20Gi, 512Mi or 80%, and 64Mi or more")
    };
    let bytes = match text.strip_suffix('%') {
        Some(part) => {
            let part: u64 = part
                .parse()
                .ok()
                .filter(|p| *p <= 100)
                .with_context(wrong)?;
            let total = lauf_sandbox::doctor::memory_total()
                .context("memory: /proc/meminfo does not say how much this machine has")?;
            total / 100 * part
        }
        None => lauf_model::quantity::parse_memory(text).with_context(wrong)?,
    };
    if bytes < 64 << 20 {
        bail!(wrong());
    }
    Ok(bytes)
}

/// A program by its path, or by its name in `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("5s", 5_000),
            ("15m", 900_000),
            ("1h", 3_600_000),
            ("7", 7_000),
            ("20ms", 20),
        ] {
            assert_eq!(
                duration(text).unwrap(),
                Duration::from_millis(expected),
                "{text}"
            );
        }
        for text in ["", "s", "1d", "-1s", "1.5s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_certificate_has_its_key() {
        let files = |names: &[&str]| Some(names.iter().map(PathBuf::from).collect());
        let two = certificates(files(&["a.pem", "b.pem"]), files(&["a.key", "b.key"])).unwrap();
        assert_eq!(two[1].key, PathBuf::from("b.key"));
        let error = certificates(files(&["a.pem"]), None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("tls-key 0"), "{error}");
    }

    #[test]
    fn sizes_and_networks() {
        assert_eq!(memory("20Gi").unwrap(), 20 << 30);
        assert!(memory("50%").unwrap() > 64 << 20);
        for text in ["", "20", "1Ki", "120%", "-5%", "lots"] {
            let error = memory(text).unwrap_err().to_string();
            assert!(error.contains("20Gi"), "{error}");
        }
        let list = |words: &[&str]| Some(words.iter().map(|w| (*w).to_owned()).collect());
        assert_eq!(networks(None).unwrap(), [""; 0]);
        assert_eq!(
            networks(list(&["10.0.0.0/8", "all", ""])).unwrap(),
            ["10.0.0.0/8", "all"]
        );
        let error = networks(list(&["192.168.1.1/33"])).unwrap_err().to_string();
        assert!(
            error.contains("192.168.1.1/33") && error.contains("all"),
            "{error}"
        );
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("lauf.toml"),
            "domain = \"file.test\"\nidle_timeout = \"1m\"\n",
        )
        .unwrap();
        let typed = UpArgs {
            domain: Some("typed.test".into()),
            ..UpArgs::default()
        };
        let settings = Settings::new(dir.path(), &typed).unwrap();
        assert_eq!(settings.domain, "typed.test");
        assert_eq!(settings.idle_timeout, Duration::from_secs(60));
        fs::write(dir.path().join("lauf.toml"), "domian = \"x\"").unwrap();
        let error = format!("{:#}", Settings::new(dir.path(), &typed).unwrap_err());
        assert!(error.contains("domian"), "{error}");
    }
}
