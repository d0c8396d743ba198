//! `lauf up`: the whole platform in one process, plus the keeper.

mod aside;
mod banner;
mod events;
mod face;
mod garbage;
mod host_ports;
mod logs;
mod memory;
mod pushed;
mod record;
mod server_file;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use lauf_engine::{Engine as _, InstanceState, LocalConfig, LocalEngine};
use lauf_gateway::{CertAuthority, CertificateFiles, Gateway, GatewayConfig, Listening, Network};
use lauf_iam::{Iam, Issuer};
use lauf_image::{Images, ImagesConfig};
use lauf_model::url::Site;
use lauf_model::{Clock, Project, SystemClock};
use lauf_observe::{LogConfig, LogStore};
use lauf_sandbox::doctor::remedy;
use lauf_sandbox::net::dns::{DnsServer, host_resolvers};
use lauf_sandbox::settings::Egress;
use lauf_sandbox::{KeeperConfig, KeeperSettings};
use lauf_store::{Resource as _, Store, Txn};

pub(crate) use events::Nats;

use crate::settings::{Settings, UpArgs, find_program};

/// The hidden subcommand that is the keeper.
pub(crate) const KEEPER_WORD: &str = "keeper";
/// How long requests in flight may go on after SIGTERM.
const DRAIN: Duration = Duration::from_secs(10);
/// The host id of user 0 in instances.
const UID_BASE: u32 = 1_000_000;
/// Instances reach this port of their gateway for names.
const DNS_PORT: u16 = 53;

pub(crate) async fn run(data: &Path, arguments: &UpArgs) -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("LAUF_LOG")
                .unwrap_or_else(|_| "warn".into()),
        )
        .init();
    let settings = Settings::new(data, arguments)?;
    // Connections and instances take descriptors of this process, too.
    lauf_sandbox::raise_file_limit();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let begin = clock.monotonic();
    fs::create_dir_all(&settings.data)
        .with_context(|| format!("cannot make the data folder {}", settings.data.display()))?;
    let _lock = lock(&settings.data)?;

    // First of all, so that a taken address is told before anything is made, and so that everything
    // that is told the port is told the one that port 0 has become.
    let listening = Listening::on(settings.listen, settings.threads)?;
    let listen = listening.address();
    let certificates = match settings.certificates.as_slice() {
        [] => None,
        files => Some(Arc::new(CertificateFiles::load(files.to_vec())?)),
    };
    let (scheme, usual) = match certificates {
        None => ("http", 80),
        Some(_) => ("https", 443),
    };
    let site = Site {
        scheme: scheme.into(),
        domain: settings.domain.clone(),
        port: Some(listen.port()).filter(|port| *port != usual),
    };

    // Tokens name the platform's own address, where the keys to check them with are.
    let issuer = Arc::new(Issuer::new(site.root(), Arc::clone(&clock)));
    let iam = Iam::open(&settings.data, &settings.domain)?.trusting(Arc::clone(&issuer));
    let iam = Arc::new(iam);
    let store = open_store(&settings.data).await?;
    let project = default_project(&store, &settings.default_project).await?;
    let logs = LogStore::open(
        settings.data.join("logs"),
        &LogConfig {
            max_bytes: settings.log_bytes,
            ..LogConfig::default()
        },
    )?;
    let certs = Arc::new(CertAuthority::open_or_create(
        &settings.data.join("tls"),
        &settings.domain,
        Arc::clone(&clock),
    )?);
    let images = Images::open(images_config(&settings, listen))?;

    let journal = Arc::new(logs::Journal::new(logs.sink(), Arc::clone(&clock)));
    let egress = settings
        .egress
        .unwrap_or_else(|| find_program("nft").is_some());
    let engine = LocalEngine::start(
        LocalConfig {
            keeper: keeper_config(&settings, listen.port(), egress)?,
            name_server: true,
        },
        images.clone(),
        Arc::clone(&clock),
        Arc::clone(&journal) as _,
    )
    .await
    .context("cannot start the keeper; `lauf doctor` says what is missing")?;
    let running = engine.running().await;
    let gateways = engine.gateways();
    serve_names(&gateways, &settings.domain).await;
    host_ports::open(&gateways, &settings.egress_host_ports).await;

    let events = events::start(events::Parts {
        data: &settings.data,
        nats: settings.message_log.as_ref(),
        store: &store,
        clock: &clock,
        issuer: &issuer,
        listen,
        domain: &settings.domain,
    })
    .await?;
    let underway = lauf_control::Underway::default();
    let live = Arc::new(record::LiveFleet::new(underway.clone()));
    let api_deps = lauf_api::Deps {
        store: store.clone(),
        iam: Arc::clone(&iam),
        logs: Arc::new(logs::StoredLogs(logs.clone())),
        pubsub: events.pubsub.clone(),
        scheduler: events.scheduler.clone(),
        tasks: events.tasks.clone(),
        eventarc: events.eventarc.clone(),
        clock: Arc::clone(&clock),
        live: Arc::clone(&live) as _,
    };
    let emulator = match settings.pubsub_emulator {
        Some(address) => {
            let config = api_config(&settings, &site, &certs);
            let router = lauf_api::pubsub_emulator(config, api_deps.clone());
            Some(events::serve_emulator(address, router).await?)
        }
        None => None,
    };
    let api = lauf_api::router(api_config(&settings, &site, &certs), api_deps);
    let registry = images.registry_router(Arc::new(face::AdminOnly(Arc::clone(&iam))));
    let mut config = GatewayConfig::new(
        gateways
            .iter()
            .map(|ip| SocketAddr::from((*ip, listen.port())))
            // An address for all of the machine's takes in theirs.
            .filter(|_| !listen.ip().is_unspecified())
            .collect(),
        &settings.domain,
    );
    config.threads = settings.threads;
    if let Some(certificates) = &certificates {
        tokio::spawn(Arc::clone(certificates).follow());
    }
    config.certificates = certificates;
    config.internal = gateways
        .iter()
        .map(|ip| Network {
            address: (*ip).into(),
            prefix: 16,
        })
        .collect();
    let gateway = Gateway::bind(
        config,
        vec![listening],
        lauf_gateway::Deps {
            engine: Arc::new(engine.clone()),
            clock: Arc::clone(&clock),
            face: Arc::new(face::Faces {
                api,
                registry,
                pushed: Arc::new(pushed::Pushed {
                    pubsub: events.pubsub.clone(),
                    default_project: settings.default_project.clone(),
                }),
                issuer,
            }),
            requests: Arc::new(record::RequestLog::new(logs.sink())),
            events: Arc::clone(&journal) as _,
            certs: Arc::clone(&certs),
            control: tokio::runtime::Handle::current(),
        },
    )?;
    live.connect(gateway.fleet());
    let adopted = running
        .iter()
        .filter(|i| !matches!(*i.state.borrow(), InstanceState::Exited(_)))
        .count();
    gateway.fleet().adopt(running.clone());
    let controllers = lauf_control::start(lauf_control::Deps {
        store: store.clone(),
        images: Arc::new(engine.clone()),
        engine: Arc::new(engine.clone()),
        running,
        jobs: settings.jobs,
        underway,
        fleet: gateway.fleet(),
        routes: gateway.routes().clone(),
        iam: Arc::clone(&iam),
        clock: Arc::clone(&clock),
        site: site.clone(),
        projects: BTreeMap::from([(project.id.clone(), project.number)]),
        idle_timeout: settings.idle_timeout,
    })
    .await?;
    gateway.fleet().stop_unclaimed();
    gateway.open();
    let (reading, keeping) = (engine.clone(), Arc::clone(&journal));
    let reader = logs::SpoolFollower::start(reading, keeping, logs.clone(), &settings.data)?;

    let garbage = garbage::collect(images.clone(), store.clone());
    let memory = memory::give_back();

    server_file::write(&settings, listen, &project, &iam, certs.ca_file())?;
    banner::print(&banner::Facts {
        settings: &settings,
        listen,
        site: &site,
        project: &project,
        iam: &iam,
        ca_file: certs.ca_file(),
        egress,
        adopted,
        ready_in: clock.monotonic().saturating_sub(begin),
    });

    for kept in engine.kept_settings() {
        eprintln!(
            "lauf: warning: the keeper that was running is used, and {kept}; `lauf down` ends it and \
             its instances, and the next `lauf up` makes one as asked"
        );
    }

    let trial = tokio::spawn(try_runtime(engine.clone(), settings.runtime.clone()));

    wait_for_the_end().await?;
    trial.abort();
    eprintln!("lauf: finishing the requests in flight; instances stay for the next `lauf up`");
    server_file::remove(&settings.data);
    if let Some(emulator) = emulator {
        emulator.abort();
    }
    gateway.shutdown(DRAIN).await;
    drop(controllers);
    garbage.abort();
    memory.abort();
    tokio::task::spawn_blocking(move || reader.finish()).await?;
    events.close().await;
    logs.close().await;
    store.close().await;
    Ok(ExitCode::SUCCESS)
}

/// One server for each data folder.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("server.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        // Who can open it can take it, and so keep the server from starting.
        .mode(0o600)
        .open(&path)
        .with_context(|| {
            format!(
                "cannot open {}; run as root or choose another --data",
                path.display()
            )
        })?;
    if file.try_lock().is_err() {
        bail!(
            "a server is running on {} already; `lauf down` stops it, --data chooses another folder",
            data.display()
        );
    }
    Ok(file)
}

async fn open_store(data: &Path) -> anyhow::Result<Store> {
    let path = data.join("state.db");
    Ok(tokio::task::spawn_blocking(move || Store::open(path)).await??)
}

/// The project of people who have only one, made at the first start.
async fn default_project(store: &Store, id: &str) -> anyhow::Result<Project> {
    if let Some(found) = store.find::<Project>(id).await? {
        return Ok(found.value);
    }
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random)?;
    // Twelve digits, not beginning with a zero, as Google's project numbers have.
    let number = 100_000_000_000 + u64::from_le_bytes(random) % 900_000_000_000;
    let project = Project {
        id: id.to_owned(),
        number,
    };
    let create = Txn::create(Project::at(id), project.body());
    store.write(create).await?;
    Ok(project)
}

fn images_config(settings: &Settings, listen: SocketAddr) -> ImagesConfig {
    let mut config = ImagesConfig::new(settings.data.join("images"), UID_BASE);
    config
        .short_name_registries
        .clone_from(&settings.short_name_registries);
    config.auth_files.clone_from(&settings.registry_auth);
    let port = listen.port();
    config.own_hosts = ["localhost", "127.0.0.1", "[::1]", &settings.domain]
        .iter()
        .map(|host| format!("{host}:{port}"))
        .chain([listen.to_string(), settings.domain.clone()])
        .collect();
    config
}

fn keeper_config(settings: &Settings, port: u16, egress: bool) -> anyhow::Result<KeeperConfig> {
    let state_dir = settings.data.join("keeper");
    let mut keeper = KeeperSettings::new(state_dir);
    keeper.pool_size = settings.pool;
    keeper.uid_base = UID_BASE;
    keeper.runtime = settings.runtime.clone();
    keeper.layer_dirs = vec![settings.data.join("images")];
    keeper.memory_max = settings.memory;
    keeper.max_instances = settings.max_instances;
    if egress {
        let mut ports = vec![port];
        ports.extend(&settings.egress_host_ports);
        let mut network = network_config(&keeper, ports);
        network.private.clone_from(&settings.egress_private);
        keeper.network = Some(network);
    }
    Ok(KeeperConfig {
        exe: std::env::current_exe().context("cannot find the lauf program itself")?,
        args: vec![KEEPER_WORD.to_owned()],
        settings: keeper,
    })
}

/// The instances' network. Its name, that of links and rules, is the same for the same data folder:
/// at most 8 letters and digits with a letter at both ends.
pub(crate) fn network_config(keeper: &KeeperSettings, allow_host_ports: Vec<u16>) -> Egress {
    let tail: String = keeper
        .host_name()
        .chars()
        .rev()
        .filter(char::is_ascii_hexdigit)
        .take(5)
        .collect();
    Egress {
        name: format!("lf{tail}n"),
        subnet: None,
        private: Vec::new(),
        allow_host_ports,
        dns_port: None,
        metadata_port: None,
    }
}

/// The process id of the server of a data folder.
pub(crate) fn server_pid(data: &Path) -> Option<i32> {
    server_file::pid(data)
}

fn api_config(settings: &Settings, site: &Site, certs: &CertAuthority) -> lauf_api::ApiConfig {
    let mut config = lauf_api::ApiConfig::new(
        site.clone(),
        &settings.regions[0],
        &settings.default_project,
    );
    config.regions.clone_from(&settings.regions);
    config.ca_file = Some(certs.ca_file().to_owned());
    config
}

/// Names for instances: services of the platform, and whatever the host can look up.
async fn serve_names(gateways: &[Ipv4Addr], domain: &str) {
    let resolvers = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    for gateway in gateways {
        let address = SocketAddr::from((*gateway, DNS_PORT));
        match DnsServer::bind(address, domain, *gateway, host_resolvers(&resolvers)).await {
            Ok(server) => {
                tokio::spawn(async move {
                    if let Err(error) = server.run().await {
                        tracing::error!(%error, "the name server for instances ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, %address, "instances cannot look up names");
            }
        }
    }
}

/// A foreign runtime that does not work here is told at once, and not by the first deploy. Nothing waits for it.
async fn try_runtime(engine: LocalEngine, runtime: lauf_sandbox::Runtime) {
    if runtime == lauf_sandbox::Runtime::Own {
        return;
    }
    if let Err(text) = engine.try_runtime().await {
        eprintln!(
            "lauf: warning: no instance will start, for the runtime {runtime} does not work here: {text}\n  mend it with: {}",
            remedy(&runtime)
        );
    }
}

async fn wait_for_the_end() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
