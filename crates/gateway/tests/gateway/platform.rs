//! A platform for the tests: a real gateway on loopback, and an engine whose instances are small servers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lauf_engine::*;
use lauf_gateway::*;
use lauf_model::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

pub const HOST: &str = "hello-1.us-central1.run.localhost";
pub type Body = BoxBody<Bytes, Infallible>;

/// What the instances do, and what they have seen.
pub struct App {
    /// Requests to `/hold` and `/stream` wait for a permit.
    pub gate: Semaphore,
    /// The most requests any instance had at once.
    pub peak: AtomicU32,
    pub started: AtomicUsize,
    pub starts_fail: Mutex<Option<StartError>>,
    /// Starts wait for a permit.
    pub start_gate: Semaphore,
    pub arrived: Semaphore,
    pub cancelled: Semaphore,
    instances: Mutex<HashMap<InstanceId, Running>>,
}

struct Running {
    state: watch::Sender<InstanceState>,
    server: tokio::task::JoinHandle<()>,
}

impl App {
    pub fn running(&self) -> usize {
        self.instances.lock().unwrap().len()
    }

    /// Ends an instance as if it had crashed.
    pub fn kill(&self, reason: ExitReason) {
        let (id, running) = {
            let mut all = self.instances.lock().unwrap();
            let id = all.keys().next().unwrap().clone();
            let running = all.remove(&id).unwrap();
            (id, running)
        };
        running.server.abort();
        running.state.send_replace(exited(reason));
        drop(id);
    }
}

fn exited(reason: ExitReason) -> InstanceState {
    InstanceState::Exited(Exit {
        code: Some(1),
        signal: None,
        reason,
        at: jiff::Timestamp::UNIX_EPOCH,
    })
}

#[derive(Debug)]
struct Loopback(SocketAddr);

impl Endpoint for Loopback {
    fn connect(&self, _port: u16) -> io::Result<StdStream> {
        StdStream::connect(self.0)
    }
}

pub struct FakeEngine(pub Arc<App>);

#[async_trait]
impl Engine for FakeEngine {
    async fn prepare(&self, _: &str) -> Result<(), StartError> {
        Ok(())
    }

    async fn start(&self, spec: InstanceSpec) -> Result<Arc<Instance>, StartError> {
        let app = Arc::clone(&self.0);
        app.started.fetch_add(1, Ordering::SeqCst);
        app.start_gate.acquire().await.unwrap().forget();
        app.start_gate.add_permits(1);
        if let Some(error) = app.starts_fail.lock().unwrap().clone() {
            return Err(error);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, watch) = watch::channel(InstanceState::Ready);
        let h2 = spec.container.port.protocol == Protocol::H2c;
        let server = tokio::spawn(serve(Arc::clone(&app), listener, h2));
        app.instances
            .lock()
            .unwrap()
            .insert(spec.id.clone(), Running { state, server });
        Ok(Arc::new(Instance {
            first: FirstConnection::default(),
            spec,
            started: jiff::Timestamp::UNIX_EPOCH,
            phases: StartPhases::default(),
            endpoint: Arc::new(Loopback(address)),
            state: watch,
        }))
    }

    async fn stop(&self, id: &InstanceId, _: Duration) {
        let running = self.0.instances.lock().unwrap().remove(id);
        if let Some(running) = running {
            running.server.abort();
            running.state.send_replace(exited(ExitReason::Stopped));
        }
    }

    async fn running(&self) -> Vec<Arc<Instance>> {
        Vec::new()
    }
}

async fn serve(app: Arc<App>, listener: TcpListener, h2: bool) {
    let mut connections = JoinSet::new();
    let now = Arc::new(AtomicU32::new(0));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (app, now) = (Arc::clone(&app), Arc::clone(&now));
        let service = service_fn(move |request| {
            let (app, now) = (Arc::clone(&app), Arc::clone(&now));
            async move {
                let count = now.fetch_add(1, Ordering::SeqCst) + 1;
                app.peak.fetch_max(count, Ordering::SeqCst);
                let _guard = Leave(now);
                answer(&app, request).await
            }
        });
        connections.spawn(async move {
            let io = TokioIo::new(stream);
            if h2 {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(io, service).await;
            } else {
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(io, service).with_upgrades().await;
            }
        });
    }
}

struct Leave(Arc<AtomicU32>);
impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Cancelled(Arc<App>);
impl Drop for Cancelled {
    fn drop(&mut self) {
        self.0.cancelled.add_permits(1);
    }
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

async fn answer(
    app: &Arc<App>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    app.arrived.add_permits(1);
    let path = request.uri().path().to_owned();
    let mut response = Response::new(full("hello"));
    match path.as_str() {
        "/hold" => app.gate.acquire().await.unwrap().forget(),
        "/never" => {
            let _cancelled = Cancelled(Arc::clone(app));
            std::future::pending::<()>().await;
        }
        "/broken" => return Err(io::Error::other("broken")),
        "/cookie" => {
            response
                .headers_mut()
                .insert("set-cookie", HeaderValue::from_static("a=1"));
        }
        "/headers" => {
            let mut text = format!("{} {:?}\n", request.uri(), request.version());
            for (name, value) in request.headers() {
                text += &format!("{name}: {}\n", value.to_str().unwrap());
            }
            response = Response::new(full(text));
        }
        "/echo" => {
            let stream = request
                .into_body()
                .into_data_stream()
                .map(|d| Ok(Frame::data(d.unwrap_or_default())));
            response = Response::new(BodyExt::boxed(StreamBody::new(stream)));
        }
        "/grpc" => {
            let body = request
                .into_body()
                .collect()
                .await
                .map_err(io::Error::other)?
                .to_bytes();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames = [Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
            response = Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(
                frames,
            ))));
        }
        "/stream" => {
            let app = Arc::clone(app);
            let (sender, receiver) = mpsc::channel(1);
            tokio::spawn(async move {
                for event in ["first", "second"] {
                    let _ = sender
                        .send(Ok(Frame::data(Bytes::from_static(event.as_bytes()))))
                        .await;
                    app.gate.acquire().await.unwrap().forget();
                }
            });
            let stream = futures_util::stream::unfold(receiver, |mut r| async {
                r.recv().await.map(|f| (f, r))
            });
            response = Response::new(BodyExt::boxed(StreamBody::new(stream)));
        }
        "/ws" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let mut all = Vec::new();
                // Answers only when the client has closed its side.
                io.read_to_end(&mut all).await.unwrap();
                io.write_all(&all).await.unwrap();
                io.shutdown().await.unwrap();
            });
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
                .headers_mut()
                .insert("connection", HeaderValue::from_static("upgrade"));
            response
                .headers_mut()
                .insert("upgrade", HeaderValue::from_static("websocket"));
            *response.body_mut() = full("");
        }
        _ => {}
    }
    Ok(response)
}

struct TestFace;
impl Face for TestFace {
    fn serve(&self, request: Request<axum_core::body::Body>, info: ConnInfo) -> FaceFuture {
        Box::pin(async move {
            let text = format!(
                "face {} {} {} {}",
                info.host,
                info.scheme,
                info.via_proxy,
                request.uri().path()
            );
            Response::new(axum_core::body::Body::from(text))
        })
    }
}

pub struct Records(pub Mutex<Vec<RequestRecord>>);
impl RequestSink for Records {
    fn record(&self, batch: Vec<RequestRecord>) {
        self.0.lock().unwrap().extend(batch);
    }
}

pub struct Platform {
    pub gateway: Gateway,
    pub app: Arc<App>,
    pub address: SocketAddr,
    pub records: Arc<Records>,
    pub certs: Arc<CertAuthority>,
    pub config: RevisionConfig,
    _dir: tempfile::TempDir,
}

pub fn revision(protocol: Protocol, concurrency: u32, max: u32) -> RevisionConfig {
    let service = ServiceKey {
        project: "p".into(),
        region: "us-central1".into(),
        name: "hello".into(),
    };
    RevisionConfig {
        key: service.revision("hello-00001-abc"),
        image_digest: "hello@sha256:0".into(),
        spec: RevisionSpec {
            concurrency,
            timeout: Duration::from_secs(60),
            ..RevisionSpec::new(Container {
                port: Port {
                    number: 8080,
                    protocol,
                },
                ..Container::new("hello")
            })
        },
        min: 0,
        max: Some(max),
        manual: None,
        idle_timeout: Duration::from_secs(900),
    }
}

pub fn platform(config: RevisionConfig) -> Platform {
    platform_with(config, Access::Public, |_| {})
}

pub fn platform_with(
    config: RevisionConfig,
    access: Access,
    change: impl FnOnce(&mut GatewayConfig),
) -> Platform {
    let dir = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let certs = Arc::new(
        CertAuthority::open_or_create(dir.path(), "run.localhost", Arc::clone(&clock)).unwrap(),
    );
    let app = Arc::new(App {
        gate: Semaphore::new(0),
        peak: AtomicU32::new(0),
        started: AtomicUsize::new(0),
        starts_fail: Mutex::default(),
        start_gate: Semaphore::new(1),
        arrived: Semaphore::new(0),
        cancelled: Semaphore::new(0),
        instances: Mutex::default(),
    });
    let records = Arc::new(Records(Mutex::default()));
    let mut settings = GatewayConfig::new(vec!["127.0.0.1:0".parse().unwrap()], "run.localhost");
    settings.threads = 3;
    change(&mut settings);
    let gateway = Gateway::start(
        settings,
        Deps {
            engine: Arc::new(FakeEngine(Arc::clone(&app))),
            clock,
            face: Arc::new(TestFace),
            requests: Arc::clone(&records) as Arc<dyn RequestSink>,
            events: Arc::new(()),
            certs: Arc::clone(&certs),
            control: tokio::runtime::Handle::current(),
        },
    )
    .unwrap();
    let pool = gateway.fleet().ensure(config.clone());
    let mut table = RouteTable::new();
    table.insert(
        HOST,
        Arc::new(ServiceRoute {
            key: config.key.service.clone(),
            access,
            ingress: Ingress::All,
            targets: vec![(100, Arc::clone(&pool))],
        }),
    );
    gateway.routes().publish(table);
    let address = gateway.local_addrs()[0];
    Platform {
        gateway,
        app,
        address,
        records,
        certs,
        config,
        _dir: dir,
    }
}

impl Platform {
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes and reads until the gateway closes.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        String::from_utf8_lossy(&all).into_owned()
    }

    pub async fn get(&self, path: &str) -> String {
        self.raw(format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
        ))
        .await
    }

    /// A request that goes on in the background.
    pub fn spawn_get(&self, path: &str) -> tokio::task::JoinHandle<String> {
        let text = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        let address = self.address;
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut all = String::new();
            let _ = stream.read_to_string(&mut all).await;
            all
        })
    }

    pub async fn arrived(&self, n: u32) {
        self.app.arrived.acquire_many(n).await.unwrap().forget();
    }

    pub async fn records(&self, n: usize) -> Vec<RequestRecord> {
        eventually(|| self.records.0.lock().unwrap().len() >= n).await;
        let mut records = self.records.0.lock().unwrap().clone();
        // Each thread hands over its own.
        records.sort_by_key(|record| record.received);
        records
    }
}

/// Waits until something is so.
pub async fn eventually(mut so: impl FnMut() -> bool) {
    tokio::time::timeout(Duration::from_secs(30), async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it never became so");
}
