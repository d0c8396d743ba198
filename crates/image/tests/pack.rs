//! Given a folder or a file, when a user packs or imports it, then the image runs from our store.

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use common::{Registry, has, is_root, run, sample_root, umoci_layout};
use lauf_image::{
    Compression, GarbagePolicy, GarbageStats, ImageError, Images, Limits, PackOptions, Reference,
    RegistryClient, import, pack_directory,
};

fn options() -> PackOptions {
    PackOptions {
        entrypoint: vec!["/bin/hello".into()],
        env: vec!["PORT=8080".into()],
        user: Some("web".into()),
        ports: vec!["8080".into()],
        ..PackOptions::default()
    }
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_folder_is_the_same_image_each_time_and_runs() {
    if !is_root() {
        return;
    }
    let registry = Registry::start().await;
    let work = tempfile::tempdir().unwrap();
    let root = sample_root(work.path());
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        let options = PackOptions {
            compression,
            ..options()
        };
        let first = pack_directory(&root, &options).unwrap();
        let other = tempfile::tempdir().unwrap();
        let again = pack_directory(&sample_root(other.path()), &options).unwrap();
        assert_eq!(
            first.images[0].digest, again.images[0].digest,
            "{compression:?}"
        );
        // Into the store at once, and through the running server as the command line does.
        let stored = registry
            .images
            .store_bundle(&Arc::new(first), 0, &name("own:1"))
            .await
            .unwrap();
        let client = RegistryClient::new(&format!("http://{}", registry.address), None).unwrap();
        let pushed = client.push(&again, 0, &name("pushed:1")).await.unwrap();
        assert_eq!(stored.digest, pushed.digest);
        let resolved = registry.images.resolve(&name("pushed:1")).await.unwrap();
        let image = registry.images.prepare(&resolved).await.unwrap();
        assert_eq!(image.config.entrypoint, ["/bin/hello"]);
        assert_eq!(image.resolve_user("web").unwrap().gid, 1001);
        assert_eq!(image.resolve_user("").unwrap().uid, 0);
        assert_eq!(image.resolve_user("7:logs").unwrap().gid, 50);
        assert_eq!(image.resolve_user("4242:4343").unwrap().gid, 4343);
        assert!(matches!(
            image.resolve_user("nobody-here"),
            Err(ImageError::UnknownUser { .. })
        ));
    }
    // On top of another image, through the server.
    let client = RegistryClient::new(&registry.address.to_string(), None).unwrap();
    let base = client.base_image(&name("pushed:1")).await.unwrap();
    let extra = work.path().join("extra");
    std::fs::create_dir(&extra).unwrap();
    std::fs::write(extra.join("x"), "extra").unwrap();
    let options = PackOptions {
        base: Some(base),
        prefix: "opt/app".into(),
        ..PackOptions::default()
    };
    let bundle = pack_directory(&extra, &options).unwrap();
    client.push(&bundle, 0, &name("derived")).await.unwrap();
    let resolved = registry.images.resolve(&name("derived")).await.unwrap();
    let image = registry.images.prepare(&resolved).await.unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.config.entrypoint, ["/bin/hello"]);
    assert_eq!(
        image.read_file("opt/app/x", 10).unwrap().as_deref(),
        Some("extra")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn layouts_and_docker_archives_are_imported() {
    if !has("skopeo") || !has("umoci") || !is_root() {
        return;
    }
    let registry = Registry::start().await;
    let work = tempfile::tempdir().unwrap();
    let layout = umoci_layout(work.path()).await;
    let at = work.path().display();
    let source = format!("oci:{}:v1", layout.display());
    run(
        "tar",
        &[
            "-C",
            layout.to_str().unwrap(),
            "-czf",
            &format!("{at}/layout.tar.gz"),
            ".",
        ],
    )
    .await;
    run(
        "skopeo",
        &[
            "copy",
            &source,
            &format!("docker-archive:{at}/docker.tar:team/app:v3"),
        ],
    )
    .await;
    run(
        "skopeo",
        &["copy", &source, &format!("oci-archive:{at}/oci.tar:v1")],
    )
    .await;
    for file in ["layout", "layout.tar.gz", "docker.tar", "oci.tar"] {
        let path = work.path().join(file);
        let bundle = Arc::new(import(&path, &Limits::default()).unwrap());
        assert_eq!(bundle.images.len(), 1, "{file}");
        if file == "docker.tar" {
            assert_eq!(bundle.images[0].names, ["docker.io/team/app:v3"]);
        }
        let tag = name(&format!("imported:{file}"));
        let stored = registry
            .images
            .store_bundle(&bundle, 0, &tag)
            .await
            .unwrap();
        let image = registry.images.prepare(&stored).await.unwrap();
        assert_eq!(image.config.cmd, ["/bin/hello"], "{file}");
    }
    let error = import(&work.path().join("root/bin/hello"), &Limits::default()).unwrap_err();
    assert!(matches!(error, ImageError::Unsupported { .. }), "{error}");
    // A layout that lost a blob says which.
    let blobs = layout.join("blobs/sha256");
    let largest = std::fs::read_dir(&blobs)
        .unwrap()
        .max_by_key(|e| e.as_ref().unwrap().metadata().unwrap().len());
    std::fs::remove_file(largest.unwrap().unwrap().path()).unwrap();
    assert!(matches!(
        import(&layout, &Limits::default()),
        Err(ImageError::Corrupt { .. })
    ));
}

/// Collects until that many layers went: the task that prepared an image lets go of it a moment after
/// its caller has it.
async fn collect_layers(images: &Images, policy: GarbagePolicy, layers: u64) -> GarbageStats {
    let mut sum = GarbageStats::default();
    while sum.layers < layers {
        let stats = images
            .collect_garbage(&HashSet::new(), policy)
            .await
            .unwrap();
        sum.blobs += stats.blobs;
        sum.manifests += stats.manifests;
        sum.layers += stats.layers;
    }
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_goes_and_everything_needed_stays() {
    if !is_root() {
        return;
    }
    let registry = Registry::start().await;
    let work = tempfile::tempdir().unwrap();
    let root = sample_root(work.path());
    let pack = |text: &str| {
        std::fs::write(root.join("app/data/text"), text).unwrap();
        Arc::new(pack_directory(&root, &options()).unwrap())
    };
    let images = &registry.images;
    let running = images
        .store_bundle(&pack("one"), 0, &name("app"))
        .await
        .unwrap();
    let held = images.prepare(&running).await.unwrap();
    let tagged = images
        .store_bundle(&pack("two"), 0, &name("app"))
        .await
        .unwrap();
    images.prepare(&tagged).await.unwrap();
    let now = GarbagePolicy {
        grace: Duration::ZERO,
        untagged_after: Some(Duration::ZERO),
        uploads_after: Duration::ZERO,
    };
    // Within the grace period nothing goes but unpacked layers that nobody keeps.
    let stats = collect_layers(images, GarbagePolicy::default(), 1).await;
    assert_eq!((stats.blobs, stats.manifests, stats.layers), (0, 0, 1));
    assert!(held.layers[0].exists());
    // A running image keeps its content although its tag moved on.
    let keep = HashSet::from([running.digest.clone()]);
    let stats = images.collect_garbage(&keep, now).await.unwrap();
    assert_eq!((stats.blobs, stats.layers), (0, 0));
    images.prepare(&tagged).await.unwrap();
    // Nothing keeps the first any more.
    drop(held);
    let stats = collect_layers(images, now, 2).await;
    assert!(stats.blobs >= 3 && stats.layers == 2, "{stats:?}");
    let again = images.resolve(&name("app")).await.unwrap();
    assert_eq!(again.digest, tagged.digest);
    images.prepare(&again).await.unwrap();
    assert!(matches!(
        images.prepare(&running).await,
        Err(ImageError::NotFound { .. })
    ));
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for bad in [
        PackOptions {
            env: vec!["NOVALUE".into()],
            ..PackOptions::default()
        },
        PackOptions {
            ports: vec!["99999".into()],
            ..PackOptions::default()
        },
        PackOptions {
            working_dir: Some("relative".into()),
            ..PackOptions::default()
        },
        PackOptions {
            prefix: "../x".into(),
            ..PackOptions::default()
        },
    ] {
        assert!(pack_directory(dir.path(), &bad).is_err(), "{bad:?}");
    }
    assert!(pack_directory(&dir.path().join("none"), &PackOptions::default()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_of_a_name_leads_a_push_and_a_deploy_to_the_same_repository() {
    let registry = Registry::start().await;
    let work = tempfile::tempdir().unwrap();
    std::fs::write(work.path().join("x"), "x").unwrap();
    let bundle = pack_directory(work.path(), &options()).unwrap();
    let client = RegistryClient::new(&registry.address.to_string(), None).unwrap();
    let own = format!("{}/own/app:1", registry.address);
    for (written, kept) in [
        ("app:1", "app"),
        ("team/app:1", "team/app"),
        ("docker.io/app:1", "docker.io/library/app"),
        ("index.docker.io/team/app:1", "docker.io/team/app"),
        ("gcr.io/p/app:1", "gcr.io/p/app"),
        ("us-docker.pkg.dev/p/r/app:1", "us-docker.pkg.dev/p/r/app"),
        (own.as_str(), "own/app"),
    ] {
        let written = name(written);
        let pushed = client.push(&bundle, 0, &written).await.unwrap();
        assert_eq!(client.repositories(&written).unwrap()[0], kept);
        let resolved = registry.images.resolve(&written).await.unwrap();
        assert_eq!(resolved.digest, pushed.digest, "{written}");
    }
    // What is here under Docker Hub's name is found by its short one, as a base too.
    let hub = pack_directory(work.path(), &PackOptions::default()).unwrap();
    let pushed = client.push(&hub, 0, &name("docker.io/base")).await.unwrap();
    let short = registry.images.resolve(&name("base")).await.unwrap();
    assert_eq!(short.digest, pushed.digest);
    client.base_image(&name("base")).await.unwrap();

    let elsewhere = client.repositories(&name("example.com:5000/app"));
    assert!(
        elsewhere
            .unwrap_err()
            .to_string()
            .contains("leave the host out")
    );
}

#[test]
fn a_file_that_is_no_image_is_named_for_what_it_is() {
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name);
    std::fs::create_dir(at("folder")).unwrap();
    for (file, content) in [
        ("empty", &b""[..]),
        ("program", b"\x7fELF\x02\x01\x01"),
        ("zip", b"PK\x03\x04 and more"),
        ("json", b"{\"schemaVersion\": 2}"),
        ("words", &b"these are words, nothing else. ".repeat(40)),
        ("zeros", &[0; 4096]),
    ] {
        std::fs::write(at(file), content).unwrap();
    }
    let tar = |to: &str, what: &str| {
        let at = work.path().to_str().unwrap();
        let done = std::process::Command::new("tar")
            .args(["-C", at, "-cf", &format!("{at}/{to}"), what])
            .status();
        assert!(done.unwrap().success());
    };
    tar("tar", "words");
    let whole = std::fs::read(at("tar")).unwrap();
    std::fs::write(at("cut"), &whole[..700]).unwrap();
    for (file, what) in [
        ("folder", "the folder holds no index.json"),
        ("empty", "it is empty"),
        ("program", "it is a program"),
        ("zip", "it is a zip file"),
        ("json", "it is JSON"),
        ("words", "it is no tar"),
        ("zeros", "neither an index.json nor a manifest.json"),
        ("tar", "neither an index.json nor a manifest.json"),
        ("cut", "cut short or damaged"),
    ] {
        let error = import(&at(file), &Limits::default()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ImageError::Unsupported { .. }), "{text}");
        assert!(text.contains(what), "{file}: {text}");
        assert!(file == "cut" || text.contains("docker save"), "{text}");
    }
}
