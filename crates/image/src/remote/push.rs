//! Uploading blobs and manifests to a registry.

use std::path::PathBuf;

use http::{Method, StatusCode, header};
use reqwest::Url;

use super::{Remote, RemoteRepo, endpoint, said};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::ingest::file_stream;

impl Remote {
    /// Makes sure that the registry has a blob, sending it from `path` where it has not.
    pub(crate) async fn push_blob(
        &self,
        repo: &RemoteRepo,
        digest: &Digest,
        path: PathBuf,
        size: u64,
    ) -> Result<(), ImageError> {
        let base = self.base(&repo.host)?;
        let url = endpoint(&base, &repo.path, &format!("blobs/{digest}"))?;
        let found = self
            .ask(repo, "pull,push", Method::HEAD, &url, &|r| r)
            .await?;
        if found.status().is_success() {
            return Ok(());
        }
        let url = endpoint(&base, &repo.path, "blobs/uploads/")?;
        let begun = self
            .ask(repo, "pull,push", Method::POST, &url, &|r| {
                r.header(header::CONTENT_LENGTH, 0)
            })
            .await?;
        let refused = |why: String| {
            ImageError::unsupported(repo, format!("the registry does not take blobs: {why}"))
        };
        if begun.status() != StatusCode::ACCEPTED {
            return Err(refused(said(begun.status(), begun).await));
        }
        let mut target: Url = begun
            .headers()
            .get(header::LOCATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|location| url.join(location).ok())
            .ok_or_else(|| refused("it names no place to upload to".to_owned()))?;
        target
            .query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        // A body that streams cannot be sent twice, so this request is not retried.
        let scope = format!("repository:{}:pull,push", repo.path);
        let body = reqwest::Body::wrap_stream(file_stream(path, 0, size).await?);
        let mut request = self
            .client(super::url_host(&target))
            .put(target)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, size)
            .body(body);
        if let Some(authorization) = self.tokens.get(&repo.host, &scope) {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let done = request.send().await.map_err(|e| ImageError::Unreachable {
            registry: repo.host.clone(),
            why: super::innermost(&e),
        })?;
        if done.status() != StatusCode::CREATED {
            return Err(refused(said(done.status(), done).await));
        }
        Ok(())
    }

    /// Pushes a manifest under a tag or its digest.
    pub(crate) async fn push_manifest(
        &self,
        repo: &RemoteRepo,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), ImageError> {
        let url = endpoint(
            &self.base(&repo.host)?,
            &repo.path,
            &format!("manifests/{reference}"),
        )?;
        let done = self
            .ask(repo, "pull,push", Method::PUT, &url, &|r| {
                r.header(header::CONTENT_TYPE, media_type)
                    .body(bytes.to_vec())
            })
            .await?;
        if !done.status().is_success() {
            let why = said(done.status(), done).await;
            return Err(ImageError::unsupported(
                repo,
                format!("the registry does not take the manifest: {why}"),
            ));
        }
        Ok(())
    }
}

impl Remote {
    /// Lets a repository use a blob of another one of the same registry.
    pub(crate) async fn mount_blob(
        &self,
        repo: &RemoteRepo,
        from: &str,
        digest: &Digest,
    ) -> Result<(), ImageError> {
        let mut url = endpoint(&self.base(&repo.host)?, &repo.path, "blobs/uploads/")?;
        url.query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from);
        let done = self
            .ask(repo, "pull,push", Method::POST, &url, &|r| {
                r.header(header::CONTENT_LENGTH, 0)
            })
            .await?;
        if done.status() == StatusCode::CREATED {
            return Ok(());
        }
        Err(ImageError::unsupported(
            repo,
            format!(
                "the base image's layer {digest} is not in {from} on {}",
                repo.host
            ),
        ))
    }

    /// A blob of at most `max` bytes, checked.
    pub(crate) async fn small_blob(
        &self,
        repo: &RemoteRepo,
        digest: &Digest,
        max: u64,
    ) -> Result<Vec<u8>, ImageError> {
        let url = endpoint(
            &self.base(&repo.host)?,
            &repo.path,
            &format!("blobs/{digest}"),
        )?;
        let response = self.ask(repo, "pull", Method::GET, &url, &|r| r).await?;
        if !response.status().is_success() {
            return Err(ImageError::corrupt(
                digest,
                "the image names it, but the registry has it not",
            ));
        }
        let bytes = crate::ingest::collect(Box::pin(response.bytes_stream()), max)
            .await
            .map_err(|e| ImageError::Unreachable {
                registry: repo.host.clone(),
                why: super::innermost(&e),
            })?
            .ok_or_else(|| ImageError::TooLarge {
                what: format!("The blob {digest}"),
                found: format!("more than {max} bytes"),
                limit: format!("{max} bytes"),
            })?;
        let mut hasher = crate::digest::Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        if hasher.finish() == *digest {
            Ok(bytes)
        } else {
            Err(ImageError::corrupt(
                digest,
                "the registry sent other content",
            ))
        }
    }
}
