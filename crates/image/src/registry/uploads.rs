//! Pushing blobs: whole, in chunks, or by mounting from another repository (end-4 to end-6, end-11).

use axum::body::{Body, HttpBody as _};
use http::{StatusCode, header};

use super::{Action, Answer, Call, Refusal, build, digest_header, empty};
use crate::digest::Digest;
use crate::ingest::{Ended, ingest};
use crate::reference::is_repository;
use crate::uploads::Session;

pub(super) async fn start(call: &Call<'_>, body: Body) -> Answer {
    if let Some(digest) = call.query.digest("mount")?
        && let Some(from) = call.query.get("from").filter(|from| is_repository(from))
    {
        let from = super::stored_name(call.headers, from);
        // Mounting is reading there: without that right it is an ordinary upload.
        let may_read = call
            .server
            .auth
            .allow(call.headers, &from, Action::Pull)
            .is_ok();
        let mounted = digest.clone();
        if may_read
            && call
                .on_store(move |store, repo| {
                    Ok(store.linked_size(&from, &mounted).is_some()
                        && store.link_blob(repo, &mounted)?)
                })
                .await?
        {
            return created(call, &digest);
        }
    }
    let images = call.server.images.clone();
    let max = images.0.config.limits.max_uploads;
    let id = call
        .on_store(move |store, repo| {
            images.0.uploads.begin(store, repo, max)?.ok_or_else(|| {
                Refusal::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "TOOMANYREQUESTS",
                    format!("{max} uploads are open; finish or cancel some, or wait"),
                )
                .header("retry-after", "30")
            })
        })
        .await?;
    if call.query.get("digest").is_some() {
        let done = finish(call, &id, body).await;
        // The client does not know this upload's name, so nobody could go on with it.
        if done.is_err() {
            let _ = cancel(call, &id).await;
        }
        return done;
    }
    let session = session(call, &id).await?;
    progress(call, &session, StatusCode::ACCEPTED)
}

pub(super) async fn append(call: &Call<'_>, id: &str, body: Body) -> Answer {
    let session = session(call, id).await?;
    let session = write(call, session, body).await?;
    progress(call, &session, StatusCode::ACCEPTED)
}

pub(super) async fn finish(call: &Call<'_>, id: &str, body: Body) -> Answer {
    let digest = call.query.digest("digest")?;
    let session = session(call, id).await?;
    let Some(digest) = digest else {
        return Err(Refusal::digest_invalid(
            "name the content: ?digest=sha256:…",
        ));
    };
    let session = if body.is_end_stream() {
        session
    } else {
        write(call, session, body).await?
    };
    let images = call.server.images.clone();
    let expected = digest.clone();
    call.on_store(move |store, repo| {
        // A wrong digest ends the upload: what was sent is worth nothing.
        let writer = images.0.uploads.finish(store, session)?;
        store.commit(writer, &expected)?;
        if store.link_blob(repo, &expected)? {
            Ok(())
        } else {
            Err(Refusal::blob_unknown(&expected))
        }
    })
    .await?;
    created(call, &digest)
}

pub(super) async fn status(call: &Call<'_>, id: &str) -> Answer {
    let session = session(call, id).await?;
    progress(call, &session, StatusCode::NO_CONTENT)
}

pub(super) async fn cancel(call: &Call<'_>, id: &str) -> Answer {
    let session = session(call, id).await?;
    let images = call.server.images.clone();
    call.on_store(move |_, _| {
        images.0.uploads.forget(session);
        Ok(())
    })
    .await?;
    build(
        axum::response::Response::builder().status(StatusCode::NO_CONTENT),
        Body::empty(),
    )
}

async fn session(call: &Call<'_>, id: &str) -> Result<Session, Refusal> {
    let store = call.store();
    let uploads = &call.server.images.0.uploads;
    uploads
        .take(&store, &call.repo, id)
        .await?
        .ok_or_else(|| Refusal::upload_unknown(id))
}

/// Writes a request's body behind what the upload holds.
async fn write(call: &Call<'_>, session: Session, body: Body) -> Result<Session, Refusal> {
    let header = |name| {
        call.headers
            .get(name)
            .and_then(|v: &http::HeaderValue| v.to_str().ok())
    };
    let announced = header(header::CONTENT_LENGTH).and_then(|v| v.parse::<u64>().ok());
    let at = session.len();
    if let Some(range) = header(header::CONTENT_RANGE) {
        let (start, end) = content_range(range)
            .ok_or_else(|| Refusal::upload_invalid("Content-Range must be <first>-<last>"))?;
        let fits = start == at
            && announced.is_none_or(|length| (end - start).checked_add(1) == Some(length));
        if !fits {
            let message = format!("the upload holds {at} bytes; go on there");
            return Err(Refusal::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "BLOB_UPLOAD_INVALID",
                message,
            )
            .header("location", &location(call, session.id()))
            .header("range", &held(at)));
        }
    }
    let limit = call.server.images.0.config.limits.max_blob;
    if announced.is_some_and(|length| at.saturating_add(length) > limit) {
        return Err(Refusal::too_large("a blob", limit));
    }
    let id = session.id().to_owned();
    let (session, ended) = ingest(session, body.into_data_stream(), limit).await;
    match ended {
        Ended::Whole => session.ok_or_else(|| Refusal::upload_unknown(&id)),
        Ended::TooLong => Err(Refusal::too_large("a blob", limit)),
        Ended::Source(error) => Err(Refusal::upload_invalid(format!(
            "the body broke off: {error}; ask where to go on"
        ))),
        Ended::Disk(error) => Err(error.into()),
    }
}

fn content_range(text: &str) -> Option<(u64, u64)> {
    let text = text
        .strip_prefix("bytes")
        .map_or(text, |t| t.trim_start_matches([' ', '=']));
    let (start, end) = text.split('/').next()?.split_once('-')?;
    let (start, end) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
    (start <= end).then_some((start, end))
}

fn location(call: &Call<'_>, id: &str) -> String {
    format!("/v2/{}/blobs/uploads/{id}", call.name)
}

/// The `Range` of an upload; the protocol has no way to say "nothing yet" but `0-0`.
fn held(bytes: u64) -> String {
    format!("0-{}", bytes.saturating_sub(1))
}

fn progress(call: &Call<'_>, session: &Session, status: StatusCode) -> Answer {
    let mut response = axum::response::Response::builder()
        .status(status)
        .header(header::LOCATION, location(call, session.id()))
        .header(header::RANGE, held(session.len()))
        .header("docker-upload-uuid", session.id());
    if status != StatusCode::NO_CONTENT {
        response = response.header(header::CONTENT_LENGTH, "0");
    }
    build(response, Body::empty())
}

fn created(call: &Call<'_>, digest: &Digest) -> Answer {
    let (name, value) = digest_header(digest);
    build(
        empty(StatusCode::CREATED)
            .header(
                header::LOCATION,
                format!("/v2/{}/blobs/{digest}", call.name),
            )
            .header(name, value),
        Body::empty(),
    )
}
