//! A registry on loopback, and images to put into it.
#![allow(dead_code, unreachable_pub, clippy::missing_panics_doc)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lauf_image::{AllowAll, Images, ImagesConfig, RegistryAuth};

pub const UID_BASE: u32 = 200_000;

pub struct Registry {
    pub images: Images,
    pub address: SocketAddr,
    pub dir: tempfile::TempDir,
}

impl Registry {
    pub async fn start() -> Self {
        Self::with(|_| {}, Arc::new(AllowAll)).await
    }

    pub async fn with(change: impl FnOnce(&mut ImagesConfig), auth: Arc<dyn RegistryAuth>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = ImagesConfig::new(dir.path().join("images"), UID_BASE);
        config.own_hosts = vec![address.to_string()];
        config.short_name_registries = Vec::new();
        change(&mut config);
        let images = Images::open(config).unwrap();
        let router = images.registry_router(auth);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            images,
            address,
            dir,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// Runs a program; the test fails with its words when it fails.
pub async fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments);
    let output = command.output().await.unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a program is there; says so loudly when it is not.
pub fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("SKIPPED: {program} is not installed (apt-get install {program})");
    }
    found
}

pub fn is_root() -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| {
        use std::os::unix::fs::MetadataExt;
        m.uid() == 0
    });
    if !root {
        eprintln!("SKIPPED: unpacking layers needs root");
    }
    root
}

/// A small root folder: a program, links, odd modes, users.
pub fn sample_root(dir: &Path) -> PathBuf {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let root = dir.join("root");
    for folder in ["bin", "etc", "app/data", "tmp"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::write(root.join("bin/hello"), "#!/bin/sh\necho hello\n").unwrap();
    let mode = |path: &str, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(root.join(path), permissions).unwrap();
    };
    mode("bin/hello", 0o4755);
    mode("tmp", 0o1777);
    std::fs::hard_link(root.join("bin/hello"), root.join("bin/hello-again")).unwrap();
    symlink("/bin/hello", root.join("app/run")).unwrap();
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:Web:/app:/bin/false\n";
    std::fs::write(root.join("etc/passwd"), passwd).unwrap();
    std::fs::write(
        root.join("etc/group"),
        "root:x:0:\nweb:x:1001:\nlogs:x:50:web,other\n",
    )
    .unwrap();
    root
}

/// An OCI layout made by umoci from that folder, tagged `v1`.
pub async fn umoci_layout(dir: &Path) -> PathBuf {
    let root = sample_root(dir);
    let layout = dir.join("layout");
    let at = layout.to_str().unwrap();
    let image = format!("{at}:v1");
    run("umoci", &["init", "--layout", at]).await;
    run("umoci", &["new", "--image", &image]).await;
    run(
        "umoci",
        &["insert", "--image", &image, root.to_str().unwrap(), "/"],
    )
    .await;
    run(
        "umoci",
        &[
            "config",
            "--image",
            &image,
            "--config.cmd",
            "/bin/hello",
            "--config.env",
            "PORT=8080",
            "--config.user",
            "web",
            "--config.exposedports",
            "8080/tcp",
            "--config.workingdir",
            "/app",
        ],
    )
    .await;
    layout
}

/// A plain HTTP client.
pub fn client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .build()
        .unwrap()
}
