//! Reading and deleting blobs (end-2, end-10).

use axum::body::Body;
use http::{StatusCode, header};

use super::{Answer, Call, Refusal, build, digest_header, empty};
use crate::digest::Digest;
use crate::ingest::file_stream;

pub(super) async fn get(call: &Call<'_>, digest: Digest, head: bool) -> Answer {
    let wanted = digest.clone();
    let (size, path) = call
        .on_store(move |store, repo| {
            let size = store
                .linked_size(repo, &wanted)
                .ok_or_else(|| Refusal::blob_unknown(&wanted))?;
            // A client that sees the blob will not send it again: keep it for the manifest to come.
            store.touch(&wanted);
            Ok((size, store.blob_path(&wanted)))
        })
        .await?;
    let range = match call
        .headers
        .get(header::RANGE)
        .and_then(|v| v.to_str().ok())
    {
        Some(text) if !head => byte_range(text, size).map_err(|()| {
            Refusal::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "SIZE_INVALID",
                format!("the blob has {size} bytes"),
            )
            .header("content-range", &format!("bytes */{size}"))
        })?,
        _ => None,
    };
    let (name, value) = digest_header(&digest);
    let response = axum::response::Response::builder()
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, format!("\"{digest}\""))
        .header(header::CACHE_CONTROL, "max-age=31536000")
        .header(name, value);
    let (start, length, response) = match range {
        Some((start, end)) => (
            start,
            end - start + 1,
            response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {start}-{end}/{size}")),
        ),
        None => (0, size, response.status(StatusCode::OK)),
    };
    let response = response.header(header::CONTENT_LENGTH, length);
    let body = if head {
        Body::empty()
    } else {
        Body::from_stream(file_stream(path, start, length).await?)
    };
    build(response, body)
}

pub(super) async fn delete(call: &Call<'_>, digest: Digest) -> Answer {
    call.on_store(move |store, repo| {
        if store.unlink_blob(repo, &digest)? {
            Ok(())
        } else {
            Err(Refusal::blob_unknown(&digest))
        }
    })
    .await?;
    build(empty(StatusCode::ACCEPTED), Body::empty())
}

/// One `bytes=` range (RFC 9110, 14.2) as first and last byte; `None` for forms to be ignored, an
/// error for those that cannot be served.
fn byte_range(text: &str, size: u64) -> Result<Option<(u64, u64)>, ()> {
    let Some(spec) = text.strip_prefix("bytes=") else {
        return Ok(None);
    };
    if spec.contains(',') {
        return Ok(None);
    }
    let Some((start, end)) = spec.split_once('-') else {
        return Ok(None);
    };
    let number = |t: &str| t.trim().parse::<u64>();
    match (start.trim().is_empty(), end.trim().is_empty()) {
        (true, true) => Ok(None),
        (true, false) => {
            let Ok(last) = number(end) else {
                return Ok(None);
            };
            if last == 0 || size == 0 {
                return Err(());
            }
            Ok(Some((size.saturating_sub(last), size - 1)))
        }
        (false, open) => {
            let Ok(start) = number(start) else {
                return Ok(None);
            };
            let end = if open {
                u64::MAX
            } else {
                number(end).unwrap_or(0)
            };
            if end < start {
                return Ok(None);
            }
            if start >= size {
                return Err(());
            }
            Ok(Some((start, end.min(size - 1))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::byte_range;

    #[test]
    fn ranges_are_read_as_http_says() {
        let cases = [
            ("bytes=0-", Ok(Some((0, 9)))),
            ("bytes=2-4", Ok(Some((2, 4)))),
            ("bytes=2-400", Ok(Some((2, 9)))),
            ("bytes=-3", Ok(Some((7, 9)))),
            ("bytes=10-", Err(())),
            ("bytes=-0", Err(())),
            ("bytes=4-2", Ok(None)),
            ("bytes=0-1,3-4", Ok(None)),
            ("lines=0-1", Ok(None)),
        ];
        for (text, expected) in cases {
            assert_eq!(byte_range(text, 10), expected, "{text}");
        }
    }
}
