//! `lauf image list` and `lauf image delete`, over the distribution specification's protocol.

use ::http::{Method, StatusCode};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use lauf_image::Reference;
use serde_json::{Value, json};

use super::{reference, registry};
use crate::client::http::{Api, Face, refused_with};
use crate::client::output::{Cell, Out};

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// Names asked for at once.
const PAGE: &str = "1000";

/// Arguments of `lauf image list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lauf image list\n  lauf image list team/hello")]
pub(crate) struct ListArgs {
    /// Only this repository
    repository: Option<String>,
}

/// Arguments of `lauf image delete`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lauf image delete hello:v1            the tag\n  lauf image delete hello@sha256:...    the image and all its tags\n  lauf image delete us-docker.pkg.dev/p/r/hello:v1   names as in a deploy"
)]
pub(crate) struct DeleteArgs {
    /// The image, with a tag or a digest
    image: String,
}

/// Runs `lauf image list`.
pub(super) async fn list(api: &Api, out: &Out, args: &ListArgs) -> Result<()> {
    let mut images = Vec::new();
    match &args.repository {
        Some(name) => {
            let name = reference(name)?;
            first_found(api, &name, async |repository| {
                images.extend(tags(api, repository).await?);
                Ok(())
            })
            .await?;
        }
        None => {
            for repository in pages(api, &["_catalog"], "repositories").await? {
                images.extend(tags(api, &repository).await?);
            }
        }
    }
    if out.structured(&Value::from(images.clone()))? {
        return Ok(());
    }
    if images.is_empty() {
        out.note(
            "There are no images. Make one (`lauf image pack`), import one (`lauf image import`) \
             or push one with docker.",
        );
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = images
        .iter()
        .map(|image| {
            let cell = |key: &str| image[key].as_str().unwrap_or_default().into();
            vec![cell("repository"), cell("tag"), cell("digest")]
        })
        .collect();
    out.table(&["REPOSITORY", "TAG", "DIGEST"], &rows)
}

/// Runs `lauf image delete`.
pub(super) async fn delete(api: &Api, out: &Out, args: &DeleteArgs) -> Result<()> {
    let image = reference(&args.image)?;
    let which = match (&image.digest, &image.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.clone(),
        (None, None) => bail!(
            "Which one of '{0}'? Name a tag ({0}:latest) or a digest; `lauf image list {0}` shows \
             them.",
            args.image
        ),
    };
    first_found(api, &image, async |repository| {
        let path = parts(repository, &["manifests", &which]);
        let path: Vec<&str> = [&["v2"], path.as_slice()].concat();
        api.call(Method::DELETE, Face::Native, &path, &[], None)
            .await
            .map(drop)
    })
    .await?;
    out.note(&format!("Deleted {}.", args.image));
    Ok(())
}

/// Does something in the repository that a name means: the first of those a deploy would look at in
/// which there is such a thing.
async fn first_found(
    api: &Api,
    image: &Reference,
    mut work: impl AsyncFnMut(&str) -> Result<()>,
) -> Result<()> {
    let mut missing = None;
    for repository in registry(api)?.repositories(image)? {
        match work(&repository).await {
            Err(error) if refused_with(&error, StatusCode::NOT_FOUND) => {
                missing.get_or_insert(error);
            }
            done => return done,
        }
    }
    missing.map_or(Ok(()), Err)
}

/// The tags of a repository, as JSON for people's tools.
async fn tags(api: &Api, repository: &str) -> Result<Vec<Value>> {
    let mut images = Vec::new();
    for tag in pages(api, &parts(repository, &["tags", "list"]), "tags").await? {
        let digest = digest(api, repository, &tag).await?;
        images.push(json!({"repository": repository, "tag": tag, "digest": digest}));
    }
    Ok(images)
}

fn parts<'a>(repository: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    repository.split('/').chain(rest.iter().copied()).collect()
}

/// All names of a list that comes in pages.
async fn pages(api: &Api, path: &[&str], key: &str) -> Result<Vec<String>> {
    let path: Vec<&str> = [&["v2"], path].concat();
    let mut names: Vec<String> = Vec::new();
    loop {
        let last = names.last().cloned().unwrap_or_default();
        let mut query = vec![("n", PAGE)];
        if !last.is_empty() {
            query.push(("last", last.as_str()));
        }
        let page = api.get(Face::Native, &path, &query).await?;
        let before = names.len();
        let found = page[key].as_array().into_iter().flatten();
        names.extend(found.filter_map(Value::as_str).map(str::to_owned));
        if names.len() - before < 1000 {
            return Ok(names);
        }
    }
}

async fn digest(api: &Api, repository: &str, tag: &str) -> Result<String> {
    let path = parts(repository, &["manifests", tag]);
    let path: Vec<&str> = [&["v2"], path.as_slice()].concat();
    let reply = api
        .open(Method::HEAD, Face::Native, &path, &[], ACCEPT)
        .await?;
    let digest = reply.headers().get("docker-content-digest");
    let digest = digest.and_then(|value| value.to_str().ok());
    Ok(digest
        .context("the registry does not tell the digest")?
        .to_owned())
}
