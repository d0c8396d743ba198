//! Putting the threads together.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use lauf_engine::Engine;
use lauf_model::Clock;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use crate::config::GatewayConfig;
use crate::face::Face;
use crate::fleet::{Fleet, FleetDeps};
use crate::listener;
use crate::listening::Listening;
use crate::meter::{Collector, RequestSink};
use crate::route::Routes;
use crate::thread::{Shared, Thread};
use crate::tls::CertAuthority;
use crate::worker::FleetEvents;

/// What the gateway works with.
#[derive(Clone)]
pub struct Deps {
    /// Starts and stops instances.
    pub engine: Arc<dyn Engine>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Answers what is not a service's host.
    pub face: Arc<dyn Face>,
    /// Takes the request records.
    pub requests: Arc<dyn RequestSink>,
    /// Takes what happens to instances.
    pub events: Arc<dyn FleetEvents>,
    /// Makes certificates.
    pub certs: Arc<CertAuthority>,
    /// The runtime for everything that is not the data plane: the face, the fleet, the sink.
    pub control: Handle,
}

/// Why the gateway could not be started.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}. Choose another address with --listen, or end the program that has it"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a data-plane thread: {0}")]
    Thread(io::Error),
    /// The TLS settings are impossible.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// What the threads do with their listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Connections wait in the listeners' queues.
    Bound,
    /// Connections are accepted.
    Open,
    /// No more connections; requests in flight have this long to finish.
    Draining(Duration),
}

/// A running gateway. Dropping it without [`shutdown`](Self::shutdown) ends its threads at once.
pub struct Gateway {
    addresses: Vec<SocketAddr>,
    routes: Routes,
    fleet: Fleet,
    phase: watch::Sender<Phase>,
    done: mpsc::Receiver<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Binds and starts to serve at once. The route table is empty, so services are 404 until one is
    /// published.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn start(config: GatewayConfig, deps: Deps) -> Result<Self, GatewayError> {
        let gateway = Self::bind(config, Vec::new(), deps)?;
        gateway.open();
        Ok(gateway)
    }

    /// Binds, besides what is listened on already, but accepts nothing until [`open`](Self::open): who
    /// connects waits, so that nobody is told 404 while the routes are not there yet.
    ///
    /// # Errors
    /// When an address cannot be bound, or a thread not be started.
    pub fn bind(
        config: GatewayConfig,
        mut listening: Vec<Listening>,
        deps: Deps,
    ) -> Result<Self, GatewayError> {
        let tls = TlsAcceptor::from(Arc::new(
            deps.certs.server_config(config.certificates.clone())?,
        ));
        let fleet = Fleet::new(FleetDeps {
            engine: Arc::clone(&deps.engine),
            clock: Arc::clone(&deps.clock),
            control: deps.control.clone(),
            events: Arc::clone(&deps.events),
        });
        let routes = Routes::default();
        let shared = Arc::new(Shared {
            collector: Collector::new(Arc::clone(&deps.requests), &deps.control),
            clock: deps.clock,
            face: deps.face,
            control: deps.control,
            tls,
            routes: routes.clone(),
            config,
        });
        let config = &shared.config;
        let count = config.threads.max(1);
        for address in &config.listen {
            listening.push(Listening::on(*address, count)?);
        }
        let addresses = listening.iter().map(Listening::address).collect();
        let mut sockets: Vec<Vec<std::net::TcpListener>> = Vec::new();
        sockets.resize_with(count, Vec::new);
        for (i, socket) in listening.into_iter().flat_map(|l| l.sockets).enumerate() {
            sockets[i % count].push(socket);
        }
        let (phase, phases) = watch::channel(Phase::Bound);
        let (finished, done) = mpsc::channel(1);
        let mut threads = Vec::new();
        for (index, sockets) in sockets.into_iter().enumerate() {
            let (shared, phases) = (Arc::clone(&shared), phases.clone());
            let finished = finished.clone();
            let most = config.limits.connections.div_ceil(count);
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(GatewayError::Thread)?;
            let thread = std::thread::Builder::new()
                .name(format!("gateway-{index}"))
                .spawn(move || {
                    let _finished = finished;
                    LocalSet::new().block_on(&runtime, run(shared, sockets, most, phases));
                })
                .map_err(GatewayError::Thread)?;
            threads.push(thread);
        }
        Ok(Self {
            addresses,
            routes,
            fleet,
            phase,
            done,
            threads,
        })
    }

    /// Accepts connections from now on, those that wait already first.
    pub fn open(&self) {
        self.phase.send_replace(Phase::Open);
    }

    /// The addresses it listens on, with real ports: those it was given, then those of the
    /// configuration.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the route table is published.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// The instances of all revisions.
    #[must_use]
    pub fn fleet(&self) -> Fleet {
        self.fleet.clone()
    }

    /// Accepts no more, lets requests in flight finish for at most `patience`, then ends. Instances are
    /// left running, for the next server to adopt.
    pub async fn shutdown(mut self, patience: Duration) {
        self.phase.send_replace(Phase::Draining(patience));
        // All senders are gone when all threads have ended.
        let _ = self.done.recv().await;
        for thread in self.threads.drain(..) {
            // It has ended or is just ending.
            let _ = thread.join();
        }
    }
}

/// One thread's life.
async fn run(
    shared: Arc<Shared>,
    sockets: Vec<std::net::TcpListener>,
    most: usize,
    mut phases: watch::Receiver<Phase>,
) {
    // A gateway that is dropped before it was opened ends here.
    if phases
        .wait_for(|phase| *phase != Phase::Bound)
        .await
        .is_err()
    {
        return;
    }
    let thread = Rc::new(Thread::new(shared));
    let mut accepting = Vec::new();
    for socket in sockets {
        match TcpListener::from_std(socket) {
            Ok(socket) => accepting.push(tokio::task::spawn_local(listener::accept(
                Rc::clone(&thread),
                socket,
                most,
            ))),
            Err(error) => tracing::error!("a listener was lost: {error}"),
        }
    }
    let draining = phases.wait_for(|phase| matches!(phase, Phase::Draining(_)));
    let patience = match draining.await.map(|phase| *phase) {
        Ok(Phase::Draining(patience)) => patience,
        _ => Duration::ZERO,
    };
    for accepting in accepting {
        accepting.abort();
    }
    thread.drain.begin();
    let _ = tokio::time::timeout(patience, thread.drain.fewer_than(1)).await;
    thread.meter.flush();
}
