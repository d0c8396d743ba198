//! Given registries that lie, break off or never end, and a server that is killed, then what a user
//! gets is an error that says so, and a store that works.

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Registry, client, is_root, sample_root};
use lauf_image::{
    AllowAll, Digest, ImageError, Images, ImagesConfig, PackOptions, Platform, Reference,
    ResolvedImage, pack_directory,
};

/// What a lying registry does with its one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    /// Sends more than the manifest says, without an end.
    Endless,
    /// Sends other bytes of the right length.
    Other,
    /// Breaks off after each 40,000 bytes, honours ranges.
    BreaksOff,
    /// Fails twice with 503, then is honest.
    Busy,
    /// Wants credentials nobody has.
    Locked,
    /// Says it is for a machine of another kind.
    Foreign,
}

/// A registry of few words on a thread; ends with the test.
fn lying_registry(lie: Lie) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    // Not compressible, so that the sizes are what they seem.
    let mut layer: Vec<u8> = Vec::new();
    let mut state = 1_u32;
    layer.resize_with(200_000, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    let plain = one_file_tar(&layer);
    let platform = Platform::host();
    let architecture = if lie == Lie::Foreign {
        "s390x"
    } else {
        platform.architecture.as_str()
    };
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::of(&plain)
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
        Digest::of(config.as_bytes()),
        config.len(),
        Digest::of(&plain),
        plain.len()
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut head = Vec::new();
            let mut byte = [0_u8; 1];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).to_lowercase();
            let start: usize = head
                .split("range: bytes=")
                .nth(1)
                .and_then(|r| r.split('-').next())
                .and_then(|n| n.parse().ok())
                .unwrap_or(0);
            let turn = count.fetch_add(1, Ordering::SeqCst);
            let mut answer = |status: &str, extra: &str, length: usize, body: &[u8]| {
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{extra}\r\n"
                );
                let _ = stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(body));
            };
            if lie == Lie::Locked {
                answer(
                    "401 Unauthorized",
                    "www-authenticate: Basic realm=\"x\"\r\n",
                    0,
                    b"",
                );
            } else if lie == Lie::Busy && turn < 2 {
                answer("503 Service Unavailable", "", 0, b"");
            } else if head.contains("/manifests/") {
                answer("200 OK", "", manifest.len(), manifest.as_bytes());
            } else if head.contains(Digest::of(config.as_bytes()).hex()) {
                answer("200 OK", "", config.len(), config.as_bytes());
            } else {
                match lie {
                    Lie::Endless => {
                        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
                        let _ = stream.write_all(head.as_bytes());
                        while stream.write_all(&plain).is_ok() {}
                    }
                    Lie::Other => answer("200 OK", "", plain.len(), &vec![7; plain.len()]),
                    Lie::BreaksOff => {
                        let rest = &plain[start..];
                        let range = format!(
                            "content-range: bytes {start}-{}/{}\r\n",
                            plain.len() - 1,
                            plain.len()
                        );
                        let status = if start > 0 {
                            "206 Partial Content"
                        } else {
                            "200 OK"
                        };
                        answer(status, &range, rest.len(), &rest[..rest.len().min(40_000)]);
                    }
                    _ => answer("200 OK", "", plain.len(), &plain),
                }
            }
        }
    });
    (host, asked)
}

/// A tar of one file, by GNU tar.
fn one_file_tar(content: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data"), content).unwrap();
    let arguments = [
        "-C",
        dir.path().to_str().unwrap(),
        "--mtime=@0",
        "-c",
        "data",
    ];
    let output = Command::new("tar").args(arguments).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

async fn pull(registry: &Registry, host: &str) -> Result<u64, ImageError> {
    let reference: Reference = format!("{host}/x/y:1").parse().unwrap();
    let resolved = registry.images.resolve(&reference).await?;
    registry
        .images
        .prepare(&resolved)
        .await
        .map(|image| image.size_bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn lying_registries_are_found_out() {
    if !is_root() {
        return;
    }
    let registry = Registry::start().await;
    let (host, _) = lying_registry(Lie::Endless);
    let error = pull(&registry, &host).await.unwrap_err();
    assert!(matches!(&error, ImageError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("more than"), "{error}");
    let (host, _) = lying_registry(Lie::Other);
    let error = pull(&registry, &host).await.unwrap_err();
    assert!(matches!(&error, ImageError::Corrupt { .. }), "{error}");
    let (host, _) = lying_registry(Lie::Locked);
    let error = pull(&registry, &host).await.unwrap_err();
    assert!(
        matches!(&error, ImageError::Unauthorized { registry, .. } if *registry == host),
        "{error}"
    );
    let (host, _) = lying_registry(Lie::Foreign);
    let error = pull(&registry, &host).await.unwrap_err();
    assert!(
        matches!(&error, ImageError::WrongPlatform { has, .. } if has == "linux/s390x"),
        "{error}"
    );
    let (host, _) = lying_registry(Lie::Busy);
    assert_eq!(pull(&registry, &host).await.unwrap(), 200_000);
    let error = pull(&registry, "127.0.0.1:1").await.unwrap_err();
    assert!(matches!(&error, ImageError::Unreachable { .. }), "{error}");
    // Nothing half-done stays behind.
    let tmp = registry.dir.path().join("images/tmp");
    assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_where_it_broke_off() {
    if !is_root() {
        return;
    }
    let registry = Registry::start().await;
    let (host, asked) = lying_registry(Lie::BreaksOff);
    assert_eq!(pull(&registry, &host).await.unwrap(), 200_000);
    // Manifest, config, and six pieces of 40,000 bytes.
    assert!(asked.load(Ordering::SeqCst) <= 9);
}

/// The part of the test that is killed: a server that pushes and unpacks without end.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by killed_at_any_moment"]
async fn child() {
    let dir = std::path::PathBuf::from(std::env::var("LAUF_IMAGE_CHILD").unwrap());
    let images = Images::open(ImagesConfig::new(dir.join("images"), common::UID_BASE)).unwrap();
    for round in 0_u64.. {
        std::fs::write(
            dir.join("root/app/data/round"),
            format!("{}{round}", std::process::id()),
        )
        .unwrap();
        let bundle = Arc::new(pack_directory(&dir.join("root"), &PackOptions::default()).unwrap());
        let name: Reference = "app".parse().unwrap();
        let image = images.store_bundle(&bundle, 0, &name).await.unwrap();
        images.prepare(&image).await.unwrap();
        println!("{image}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = sample_root(dir.path());
    for i in 0..200 {
        std::fs::write(root.join(format!("app/data/f{i}")), vec![b'x'; 5000]).unwrap();
    }
    let mut acknowledged: Vec<ResolvedImage> = Vec::new();
    // At least twelve moments, and later ones until some round got far enough to prove anything.
    let mut round = 0_u64;
    while round < 12 || acknowledged.is_empty() {
        round += 1;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child", "--nocapture"])
            .env("LAUF_IMAGE_CHILD", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A different moment each round.
        tokio::time::sleep(std::time::Duration::from_millis(60 + round * 37)).await;
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let told: Vec<ResolvedImage> = whole.lines().filter_map(|l| l.parse().ok()).collect();
        let images = Images::open(ImagesConfig::new(
            dir.path().join("images"),
            common::UID_BASE,
        ))
        .unwrap();
        for image in told.iter().rev().take(2) {
            let prepared = images.prepare(image).await.unwrap();
            assert!(
                prepared
                    .read_file("app/data/f199", 10_000)
                    .unwrap()
                    .is_some()
            );
            // Whole layers only: as many files as were packed.
            let data = prepared.layers[0].join("app/data");
            assert_eq!(std::fs::read_dir(data).unwrap().count(), 201);
        }
        acknowledged.extend(told);
        if let Some(image) = acknowledged.last() {
            let tagged = images.resolve(&"app".parse().unwrap()).await.unwrap();
            images.prepare(&tagged).await.unwrap();
            images.prepare(image).await.unwrap();
        }
    }
}

/// What a crash of the machine does: files that were not flushed are torn, and the kernel has a new boot id.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_was_not_flushed_before_a_crash_is_unpacked_anew() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    sample_root(dir.path());
    let config = || ImagesConfig::new(dir.path().join("images"), common::UID_BASE);
    let images = Images::open(config()).unwrap();
    let bundle = pack_directory(&dir.path().join("root"), &PackOptions::default()).unwrap();
    let name: Reference = "app".parse().unwrap();
    let image = images
        .store_bundle(&Arc::new(bundle), 0, &name)
        .await
        .unwrap();
    let layer = images.prepare(&image).await.unwrap().layers[0].clone();
    let meta = layer.with_file_name("meta.json");
    let read = || std::fs::read_to_string(&meta).unwrap();
    // It is flushed by itself, and then bears no mark any more.
    while read().contains("boot") {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let whole = read();
    let file = layer.join("etc/passwd");
    let content = std::fs::read(&file).unwrap();
    drop(images);
    for torn in [whole.replace('{', r#"{"boot":"another","#), String::new()] {
        std::fs::write(&meta, torn).unwrap();
        std::fs::write(&file, "").unwrap();
        let images = Images::open(config()).unwrap();
        let again = images.prepare(&image).await.unwrap();
        assert_eq!(again.layers[0], layer);
        assert_eq!(std::fs::read(&file).unwrap(), content);
        while read().contains("boot") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    // One that was flushed is left as it is.
    std::fs::write(&file, "left alone").unwrap();
    let images = Images::open(config()).unwrap();
    images.prepare(&image).await.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = || ImagesConfig::new(dir.path().join("images"), common::UID_BASE);
    let serve = |images: Images| async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = images.registry_router(Arc::new(AllowAll));
        (
            address,
            tokio::spawn(async move { axum::serve(listener, router).await }),
        )
    };
    let images = Images::open(config()).unwrap();
    assert!(
        matches!(Images::open(config()), Err(ImageError::Storage { .. })),
        "the folder is locked"
    );
    let (address, server) = serve(images.clone()).await;
    let http = client();
    let begun = http
        .post(format!("http://{address}/v2/a/blobs/uploads/"))
        .send()
        .await
        .unwrap();
    let location = begun.headers()["location"].to_str().unwrap().to_owned();
    let sent = http
        .patch(format!("http://{address}{location}"))
        .body("first ")
        .send()
        .await
        .unwrap();
    assert_eq!(sent.headers()["range"], "0-5");
    drop(http);
    server.abort();
    let _ = server.await;
    drop(images);
    // Connections may hold the store for a moment longer.
    let images = loop {
        match Images::open(config()) {
            Ok(images) => break images,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
        }
    };
    let (address, _server) = serve(images).await;
    let http = client();
    let status = http
        .get(format!("http://{address}{location}"))
        .send()
        .await
        .unwrap();
    assert_eq!(status.headers()["range"], "0-5");
    let digest = Digest::of(b"first second");
    let done = http
        .put(format!("http://{address}{location}?digest={digest}"))
        .body("second")
        .send()
        .await
        .unwrap();
    assert_eq!(done.status(), 201);
    let blob = http
        .get(format!("http://{address}/v2/a/blobs/{digest}"))
        .send()
        .await
        .unwrap();
    assert_eq!(blob.text().await.unwrap(), "first second");
}
