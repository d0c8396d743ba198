//! Given our registry, when skopeo, buildah and umoci images come, then they are stored, resolved,
//! unpacked and come back unchanged.

mod common;

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use common::{Registry, UID_BASE, has, is_root, run, umoci_layout};

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pushes_and_pulls_every_form() {
    if !has("skopeo") || !has("umoci") || !is_root() {
        return;
    }
    let registry = Registry::start().await;
    let work = tempfile::tempdir().unwrap();
    let layout = umoci_layout(work.path()).await;
    let source = format!("oci:{}:v1", layout.display());
    let mut sizes = Vec::new();
    for (tag, extra) in [
        ("gzip", &["--dest-compress-format", "gzip"][..]),
        ("zstd", &["--dest-compress-format", "zstd"]),
        ("docker", &["--format", "v2s2"]),
    ] {
        let target = format!("docker://{}/team/hello:{tag}", registry.address);
        let mut arguments = vec!["copy", "--dest-tls-verify=false"];
        arguments.extend_from_slice(extra);
        arguments.extend_from_slice(&[&source, &target]);
        run("skopeo", &arguments).await;

        let name = format!("{}/team/hello:{tag}", registry.address)
            .parse()
            .unwrap();
        let resolved = registry.images.resolve(&name).await.unwrap();
        let image = registry.images.prepare(&resolved).await.unwrap();
        assert_eq!(image.config.cmd, ["/bin/hello"]);
        assert_eq!(
            image.config.env.last().map(String::as_str),
            Some("PORT=8080")
        );
        assert_eq!(image.config.working_dir, "/app");
        assert!(image.config.exposed_ports.contains_key("8080/tcp"));
        let user = image.resolve_user(&image.config.user).unwrap();
        assert_eq!(
            (user.uid, user.gid, user.groups.as_slice()),
            (1000, 1001, &[50][..])
        );
        let top = image.layers.last().unwrap();
        let hello = top.join("bin/hello").metadata().unwrap();
        assert_eq!((hello.uid(), hello.mode() & 0o7777), (UID_BASE, 0o4755));
        assert_eq!(
            hello.ino(),
            top.join("bin/hello-again").metadata().unwrap().ino()
        );
        assert_eq!(top.join("tmp").metadata().unwrap().mode() & 0o7777, 0o1777);
        assert!(top.join("app/run").is_symlink());
        sizes.push(image.size_bytes);

        // And back out.
        let back = work.path().join(format!("back-{tag}"));
        let dir = format!("dir:{}", back.display());
        run("skopeo", &["copy", "--src-tls-verify=false", &target, &dir]).await;
        assert!(back.join("manifest.json").exists());
    }
    assert!(sizes.iter().all(|s| *s == sizes[0]), "{sizes:?}");
    let tags = format!("docker://{}/team/hello", registry.address);
    let listed = run("skopeo", &["list-tags", "--tls-verify=false", &tags]).await;
    for tag in ["docker", "gzip", "zstd"] {
        assert!(listed.contains(tag));
    }
    run(
        "skopeo",
        &["delete", "--tls-verify=false", &format!("{tags}:gzip")],
    )
    .await;
    let gone = format!("{}/team/hello:gzip", registry.address)
        .parse()
        .unwrap();
    assert!(
        registry
            .images
            .resolve(&gone)
            .await
            .unwrap_err()
            .to_string()
            .contains("not found")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn umoci_whiteouts_hide_what_is_below() {
    if !has("skopeo") || !has("umoci") || !is_root() {
        return;
    }
    let registry = Registry::start().await;
    let work = tempfile::tempdir().unwrap();
    let layout = umoci_layout(work.path()).await;
    let image = format!("{}:v1", layout.display());
    run(
        "umoci",
        &[
            "insert",
            "--image",
            &image,
            "--whiteout",
            "/bin/hello-again",
        ],
    )
    .await;
    let data = work.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("new"), "x").unwrap();
    let data = data.to_str().unwrap();
    run(
        "umoci",
        &["insert", "--image", &image, "--opaque", data, "/app"],
    )
    .await;
    let target = format!("docker://{}/h:1", registry.address);
    run(
        "skopeo",
        &[
            "copy",
            "--dest-tls-verify=false",
            &format!("oci:{image}"),
            &target,
        ],
    )
    .await;
    let resolved = registry
        .images
        .resolve(&"h:1".parse().unwrap())
        .await
        .unwrap();
    let image = registry.images.prepare(&resolved).await.unwrap();
    assert_eq!(image.layers.len(), 3);
    let whiteout = image.layers[1]
        .join("bin/hello-again")
        .symlink_metadata()
        .unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    assert_eq!(image.read_file("bin/hello-again", 100).unwrap(), None);
    assert!(
        image
            .read_file("bin/hello", 100)
            .unwrap()
            .unwrap()
            .contains("echo hello")
    );
    // The link was below the opaque folder.
    assert_eq!(image.read_file("app/run", 100).unwrap(), None);
    assert_eq!(
        image.read_file("app/new", 100).unwrap().as_deref(),
        Some("x")
    );
    // And the kernel agrees with our reading.
    let mount = work.path().join("mount");
    std::fs::create_dir(&mount).unwrap();
    let lower: Vec<_> = image
        .layers
        .iter()
        .rev()
        .map(|l| l.to_str().unwrap())
        .collect();
    let script = format!(
        "mount -t overlay overlay -o lowerdir={} {m} && ls -R {m}",
        lower.join(":"),
        m = mount.display()
    );
    let listed = run("unshare", &["-m", "sh", "-c", &script]).await;
    assert!(!listed.contains("hello-again") && !listed.contains("run\n") && listed.contains("new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_pulls_from_another() {
    if !has("skopeo") || !has("umoci") || !is_root() {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let far = Registry::start().await;
    let near = Registry::start().await;
    let layout = umoci_layout(work.path()).await;
    let source = format!("oci:{}:v1", layout.display());
    let target = format!("docker://{}/a/b:v1", far.address);
    run(
        "skopeo",
        &["copy", "--dest-tls-verify=false", &source, &target],
    )
    .await;
    let name = format!("{}/a/b:v1", far.address).parse().unwrap();
    let resolved = near.images.resolve(&name).await.unwrap();
    let callers = (0..16).map(|_| {
        let (images, resolved) = (near.images.clone(), resolved.clone());
        tokio::spawn(async move { images.prepare(&resolved).await.unwrap() })
    });
    let mut prepared = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        prepared.push(caller.await.unwrap());
    }
    assert!(
        prepared
            .iter()
            .all(|p| p.digest == resolved.digest && p.layers == prepared[0].layers)
    );
    let missing = format!("{}/a/none", far.address).parse().unwrap();
    let error = near.images.resolve(&missing).await.unwrap_err();
    assert!(error.to_string().contains("not found"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn buildah_pushes() {
    if !has("buildah") || !is_root() {
        return;
    }
    let registry = Registry::start().await;
    let work = tempfile::tempdir().unwrap();
    let root = common::sample_root(work.path());
    let script = format!(
        "set -e; export STORAGE_DRIVER=vfs; R='--root {w}/s --runroot {w}/r'; \
         c=$(buildah $R from scratch); buildah $R add $c {root} / >/dev/null; \
         buildah $R config --cmd /bin/hello $c; buildah $R commit --format docker $c i >/dev/null 2>&1; \
         buildah $R push --tls-verify=false i docker://{a}/us-docker.pkg.dev/p/r/i:b; buildah $R rm $c >/dev/null",
        w = work.path().display(),
        root = root.display(),
        a = registry.address
    );
    run("sh", &["-c", &script]).await;
    // An unchanged deploy script finds it by its Artifact Registry name.
    let name = "us-docker.pkg.dev/p/r/i:b".parse().unwrap();
    let resolved = registry.images.resolve(&name).await.unwrap();
    let image = registry.images.prepare(&resolved).await.unwrap();
    assert_eq!(image.config.cmd, ["/bin/hello"]);
}
