//! The gateway as the product runs it (accounting on), with an engine whose one instance is a server
//! that is there already.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lauf_engine::{
    Endpoint, Engine, FirstConnection, Instance, InstanceSpec, InstanceState, StartError,
    StartPhases,
};
use lauf_gateway::{
    Access, CertAuthority, ConnInfo, Deps, Face, FaceFuture, Gateway, GatewayConfig, RequestRecord,
    RequestSink, RevisionConfig, RouteTable, ServiceRoute,
};
use lauf_model::{Clock, Container, Ingress, InstanceId, RevisionSpec, ServiceKey, SystemClock};
use tokio::sync::watch;

/// The host that the route is for.
pub(crate) const HOST: &str = "bench-1.us-central1.run.localhost";

#[derive(Debug)]
struct Fixed(SocketAddr);

impl Endpoint for Fixed {
    fn connect(&self, _: u16) -> io::Result<TcpStream> {
        TcpStream::connect(self.0)
    }
}

struct Static {
    backend: SocketAddr,
    state: watch::Sender<InstanceState>,
}

#[async_trait]
impl Engine for Static {
    async fn prepare(&self, _: &str) -> Result<(), StartError> {
        Ok(())
    }

    async fn start(&self, spec: InstanceSpec) -> Result<Arc<Instance>, StartError> {
        Ok(Arc::new(Instance {
            first: FirstConnection::default(),
            spec,
            started: jiff::Timestamp::UNIX_EPOCH,
            phases: StartPhases::default(),
            endpoint: Arc::new(Fixed(self.backend)),
            state: self.state.subscribe(),
        }))
    }

    async fn stop(&self, _: &InstanceId, _: Duration) {}

    async fn running(&self) -> Vec<Arc<Instance>> {
        Vec::new()
    }
}

struct Nobody;

impl Face for Nobody {
    fn serve(&self, _: http::Request<axum_core::body::Body>, _: ConnInfo) -> FaceFuture {
        Box::pin(async { http::Response::new(axum_core::body::Body::empty()) })
    }
}

/// Reads every record, as a logger would have to.
struct Count;

impl RequestSink for Count {
    fn record(&self, batch: Vec<RequestRecord>) {
        let bytes: u64 = batch.iter().map(|record| record.response_bytes).sum();
        std::hint::black_box(bytes);
    }
}

/// Serves until killed.
pub(crate) fn serve_gateway(listen: SocketAddr, backend: SocketAddr) -> anyhow::Result<()> {
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    control.block_on(async {
        let dir = tempfile::tempdir()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let certs = CertAuthority::open_or_create(dir.path(), "run.localhost", Arc::clone(&clock))?;
        let gateway = Gateway::start(
            GatewayConfig::new(vec![listen], "run.localhost"),
            Deps {
                engine: Arc::new(Static {
                    backend,
                    state: watch::Sender::new(InstanceState::Ready),
                }),
                clock,
                face: Arc::new(Nobody),
                requests: Arc::new(Count),
                events: Arc::new(()),
                certs: Arc::new(certs),
                control: tokio::runtime::Handle::current(),
            },
        )?;
        let key = ServiceKey {
            project: "bench".to_owned(),
            region: "us-central1".to_owned(),
            name: "bench".to_owned(),
        };
        let pool = gateway.fleet().ensure(RevisionConfig {
            key: key.revision("bench-00001-abc"),
            image_digest: "bench@sha256:0".to_owned(),
            spec: spec(),
            min: 1,
            max: Some(1),
            manual: None,
            idle_timeout: Duration::from_secs(900),
        });
        let mut table = RouteTable::new();
        let route = ServiceRoute {
            key,
            access: Access::Public,
            ingress: Ingress::All,
            targets: vec![(100, pool)],
        };
        table.insert(HOST, Arc::new(route));
        gateway.routes().publish(table);
        std::future::pending::<()>().await;
        Ok(())
    })
}

fn spec() -> RevisionSpec {
    RevisionSpec {
        concurrency: 1000,
        min_instances: 1,
        max_instances: Some(1),
        ..RevisionSpec::new(Container::new("bench"))
    }
}
