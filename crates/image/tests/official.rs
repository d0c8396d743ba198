//! Given our registry, when the OCI's own conformance suite runs against it, then nothing fails.
//!
//! The suite is a Go program; it comes through the Go module proxy at a pinned version. Where Go or
//! the proxy is missing the test says so and passes; `conformance.rs` holds the cases in any event.

mod common;

use common::{Registry, has};

const SUITE: &str =
    "github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111";

#[tokio::test(flavor = "multi_thread")]
async fn the_official_suite_finds_nothing() {
    if !has("go") {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let built = tokio::process::Command::new("go")
        .args(["install", SUITE])
        .env("GOBIN", work.path())
        .output()
        .await
        .unwrap();
    if !built.status.success() {
        eprintln!(
            "SKIPPED: the suite cannot be built: {}",
            String::from_utf8_lossy(&built.stderr)
        );
        return;
    }
    for version in ["1.1", "dev"] {
        let registry = Registry::start().await;
        let results = work.path().join(version);
        let output = tokio::process::Command::new(work.path().join("conformance"))
            .current_dir(work.path())
            .env("OCI_VERSION", version)
            .env("OCI_RESULTS_DIR", &results)
            .env("OCI_REGISTRY", registry.address.to_string())
            .env("OCI_TLS", "disabled")
            .env("OCI_API_BLOBS_UPLOAD_CANCEL", "true")
            .env("OCI_API_BLOBS_DIGEST_HEADER", "true")
            .env("OCI_API_MANIFESTS_DIGEST_HEADER", "true")
            .env("OCI_API_MANIFESTS_TAG_PARAM", "true")
            .output()
            .await
            .unwrap();
        let report = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let failed = |line: &str| {
            let count = line.split(':').nth(1).map(str::trim);
            (line.contains("FAIL....") || line.contains("Error....")) && count != Some("0")
        };
        let clean = report.contains("OCI Conformance Result: Pass") && !report.lines().any(failed);
        assert!(output.status.success() && clean, "{version}: {report}");
    }
}
