//! Reading, pushing and deleting manifests (end-3, end-7, end-9).

use axum::body::Body;
use http::{StatusCode, header};

use super::route::ManifestRef;
use super::{Answer, Call, Refusal, build, digest_header, empty};
use crate::digest::{Digest, Hasher};
use crate::ingest::collect;
use crate::manifest::{Descriptor, Document, media};
use crate::store::Store;

pub(super) async fn get(call: &Call<'_>, reference: ManifestRef, head: bool) -> Answer {
    let max = call.server.images.0.config.limits.max_manifest;
    let (digest, media_type, bytes) = call
        .on_store(move |store, repo| {
            let digest = find(store, repo, &reference)?;
            let unknown = || Refusal::manifest_unknown(&reference.to_string());
            let media_type = store.manifest_type(repo, &digest).ok_or_else(unknown)?;
            let bytes = store.read_blob(&digest, max)?.ok_or_else(unknown)?;
            Ok((digest, media_type, bytes))
        })
        .await?;
    let (name, value) = digest_header(&digest);
    let response = axum::response::Response::builder()
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, bytes.len())
        .header(header::ETAG, format!("\"{digest}\""))
        .header(name, value);
    build(
        response,
        if head {
            Body::empty()
        } else {
            Body::from(bytes)
        },
    )
}

pub(super) async fn put(call: &Call<'_>, reference: ManifestRef, body: Body) -> Answer {
    let max = call.server.images.0.config.limits.max_manifest;
    let bytes = collect(body.into_data_stream(), max)
        .await
        .map_err(|e| Refusal::manifest_invalid(format!("the body broke off: {e}")))?
        .ok_or_else(|| Refusal::too_large("a manifest", max))?;
    let content_type = call
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(';').next())
        .unwrap_or_default()
        .trim()
        .to_owned();
    // Distribution-spec 1.1.1, end-7b: a push by digest may name tags as well.
    let mut tags: Vec<String> = call.query.all("tag").map(str::to_owned).collect();
    if tags.len() > 10 || tags.iter().any(|tag| !crate::reference::is_tag(tag)) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "TAG_INVALID",
            "name at most 10 tags, each of letters, digits, '.', '_' and '-'",
        ));
    }
    let named_tags = tags.clone();
    let (digest, subject) = call
        .on_store(move |store, repo| {
            let document = Document::parse(&reference, &bytes)
                .map_err(|e| Refusal::manifest_invalid(e.to_string()))?;
            let media_type = media_type(&document, &content_type)?;
            let digest = match &reference {
                ManifestRef::Digest(digest) => {
                    let mut hasher = Hasher::new(digest.algorithm());
                    hasher.update(&bytes);
                    let actual = hasher.finish();
                    if actual != *digest {
                        return Err(Refusal::digest_invalid(format!(
                            "the manifest has digest {actual}, not {digest}"
                        )));
                    }
                    digest.clone()
                }
                ManifestRef::Tag(tag) => {
                    tags.push(tag.clone());
                    Digest::of(&bytes)
                }
            };
            check_references(store, repo, &document)?;
            store.put_bytes_as(&digest, &bytes)?;
            store.link_manifest(repo, &digest, &media_type)?;
            let subject = document.subject().map(|s| s.digest.clone());
            if let Some(subject) = &subject {
                store.add_referrer(repo, subject, &digest)?;
            }
            for tag in &tags {
                store.set_tag(repo, tag, &digest)?;
            }
            Ok((digest, subject))
        })
        .await?;
    let (name, value) = digest_header(&digest);
    let mut response = empty(StatusCode::CREATED)
        .header(
            header::LOCATION,
            format!("/v2/{}/manifests/{digest}", call.name),
        )
        .header(name, value);
    if let Some(subject) = subject {
        response = response.header("oci-subject", subject.to_string());
    }
    for tag in named_tags {
        response = response.header("oci-tag", tag);
    }
    build(response, Body::empty())
}

pub(super) async fn delete(call: &Call<'_>, reference: ManifestRef) -> Answer {
    let max = call.server.images.0.config.limits.max_manifest;
    call.on_store(move |store, repo| {
        let gone = match &reference {
            ManifestRef::Tag(tag) => store.delete_tag(repo, tag)?,
            ManifestRef::Digest(digest) => {
                if let Some(bytes) = store.read_blob(digest, max)?
                    && let Ok(document) = Document::parse(digest, &bytes)
                    && let Some(subject) = document.subject()
                {
                    store.remove_referrer(repo, &subject.digest, digest)?;
                }
                store.unlink_manifest(repo, digest)?
            }
        };
        if gone {
            Ok(())
        } else {
            Err(Refusal::manifest_unknown(&reference.to_string()))
        }
    })
    .await?;
    build(empty(StatusCode::ACCEPTED), Body::empty())
}

fn find(store: &Store, repo: &str, reference: &ManifestRef) -> Result<Digest, Refusal> {
    match reference {
        ManifestRef::Digest(digest) => Ok(digest.clone()),
        ManifestRef::Tag(tag) => store.tag(repo, tag).ok_or_else(|| {
            if store.repo_exists(repo) {
                Refusal::manifest_unknown(tag)
            } else {
                Refusal::name_unknown(repo)
            }
        }),
    }
}

/// The type a manifest is kept under: the header's and the document's word must agree.
fn media_type(document: &Document, header: &str) -> Result<String, Refusal> {
    let own = match document {
        Document::Manifest(m) => &m.media_type,
        Document::Index(i) => &i.media_type,
    };
    if !own.is_empty() && !header.is_empty() && own != header {
        return Err(Refusal::manifest_invalid(format!(
            "Content-Type says {header}, the manifest says {own}"
        )));
    }
    let found = if header.is_empty() {
        document.media_type()
    } else {
        header
    };
    let is_index = matches!(document, Document::Index(_));
    let fits = match found {
        media::OCI_MANIFEST | media::DOCKER_MANIFEST => !is_index,
        media::OCI_INDEX | media::DOCKER_LIST => is_index,
        _ => false,
    };
    if !fits {
        return Err(Refusal::manifest_invalid(format!(
            "\"{found}\" is not the type of this manifest; use OCI manifests and indexes or Docker schema 2"
        )));
    }
    Ok(found.to_owned())
}

/// A manifest is accepted only when everything it is made of is here.
fn check_references(store: &Store, repo: &str, document: &Document) -> Result<(), Refusal> {
    let missing = |d: &Descriptor| {
        Refusal::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_BLOB_UNKNOWN",
            format!("the repository does not hold {}; push it first", d.digest),
        )
    };
    match document {
        Document::Manifest(manifest) => {
            for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                match store.linked_size(repo, &blob.digest) {
                    // Foreign layers live elsewhere.
                    None if !blob.urls.is_empty() => {}
                    None => return Err(missing(blob)),
                    Some(size) if size != blob.size => {
                        return Err(Refusal::new(
                            StatusCode::BAD_REQUEST,
                            "SIZE_INVALID",
                            format!(
                                "{} has {size} bytes, the manifest says {}",
                                blob.digest, blob.size
                            ),
                        ));
                    }
                    Some(_) => {
                        store.touch(&blob.digest);
                    }
                }
            }
        }
        Document::Index(index) => {
            for entry in &index.manifests {
                let known = store.manifest_type(repo, &entry.digest).is_some()
                    || store.linked_size(repo, &entry.digest).is_some();
                if !known {
                    return Err(missing(entry));
                }
                store.touch(&entry.digest);
            }
        }
    }
    Ok(())
}
