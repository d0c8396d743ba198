//! Prints how fast a 200 MB layer is packed, pushed, pulled and unpacked over loopback HTTP, and what
//! looking up an image that is ready costs: `cargo run --release -p lauf-image --example measure`.
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use lauf_image::{
    AllowAll, Compression, Images, ImagesConfig, PackOptions, Reference, RegistryClient,
    pack_directory,
};

const SIZE: u64 = 200 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let root = dir.path().join("root");
    std::fs::create_dir(&root)?;
    let mut random = std::fs::File::open("/dev/urandom")?.take(SIZE);
    std::io::copy(&mut random, &mut std::fs::File::create(root.join("data"))?)?;
    let open = |name: &str| Images::open(ImagesConfig::new(dir.path().join(name), 100_000));
    let far = open("far")?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = far.registry_router(Arc::new(AllowAll));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let megabytes = |what: &str, start: Instant| {
        let seconds = start.elapsed().as_secs_f64();
        println!("{what}: {seconds:.2} s, {:.0} MiB/s", 200.0 / seconds);
    };
    for compression in [Compression::None, Compression::Zstd, Compression::Gzip] {
        let options = PackOptions {
            compression,
            ..PackOptions::default()
        };
        let start = Instant::now();
        let bundle = pack_directory(&root, &options)?;
        megabytes(&format!("pack {compression:?}"), start);
        let name: Reference = format!("{address}/m/{compression:?}")
            .to_lowercase()
            .parse()?;
        let client = RegistryClient::new(&address.to_string(), None)?;
        let start = Instant::now();
        client.push(&bundle, 0, &name).await?;
        megabytes("  push", start);
        let near = open(&format!("near-{compression:?}"))?;
        let resolved = near.resolve(&name).await?;
        let start = Instant::now();
        near.prepare(&resolved).await?;
        megabytes("  pull and unpack", start);
        drop(near);
        let near = open(&format!("near-{compression:?}"));
        // The old store is let go of by its last task.
        let near = near.or_else(|_| open(&format!("again-{compression:?}")))?;
        let start = Instant::now();
        near.prepare(&resolved).await?;
        println!("  first prepare after a restart: {:?}", start.elapsed());
        let start = Instant::now();
        for _ in 0..100_000 {
            near.prepare(&resolved).await?;
        }
        println!(
            "  prepare of a ready image: {:?}",
            start.elapsed() / 100_000
        );
        let image = near.prepare(&resolved).await?;
        let start = Instant::now();
        for _ in 0..1000 {
            image.resolve_user("1000")?;
        }
        println!("  resolve_user: {:?}", start.elapsed() / 1000);
    }
    Ok(())
}
