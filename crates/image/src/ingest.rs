//! Streaming bytes from the network to disk without holding a thread while the network is slow.
//!
//! Bytes are gathered to a batch, then hashed and written on the blocking pool while the next batch
//! arrives. The writer travels with the work and comes back, so a dropped request leaves it whole.

use std::ops::DerefMut;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use crate::error::ImageError;
use crate::store::{BlobWriter, blocking};

const BATCH: usize = 1 << 20;

/// How a stream ended.
#[derive(Debug)]
pub(crate) enum Ended<E> {
    /// All of it is written.
    Whole,
    /// The limit was reached and more was to come; what fits is written.
    TooLong,
    /// The source failed; what came before is written.
    Source(E),
    /// The disk failed.
    Disk(ImageError),
}

/// Writes `source` behind what `writer` holds, up to `limit` bytes in all. The writer is given back
/// unless background work was torn down.
pub(crate) async fn ingest<G, S, E>(writer: G, mut source: S, limit: u64) -> (Option<G>, Ended<E>)
where
    G: DerefMut<Target = BlobWriter> + Send + 'static,
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let mut room = limit.saturating_sub(writer.len());
    let mut idle = Some(writer);
    let mut flying: Option<tokio::task::JoinHandle<(G, std::io::Result<()>)>> = None;
    let mut ended = Ended::Whole;
    let mut more = true;
    while more {
        let mut batch: Vec<Bytes> = Vec::new();
        let mut gathered = 0;
        while gathered < BATCH {
            match source.next().await {
                Some(Ok(mut bytes)) => {
                    let fits = usize::try_from(room).unwrap_or(usize::MAX);
                    if bytes.len() > fits {
                        bytes.truncate(fits);
                        ended = Ended::TooLong;
                        more = false;
                    }
                    room -= bytes.len() as u64;
                    gathered += bytes.len();
                    batch.push(bytes);
                }
                Some(Err(error)) => {
                    ended = Ended::Source(error);
                    more = false;
                }
                None => more = false,
            }
            if !more {
                break;
            }
        }
        if let Some(work) = flying.take() {
            match work.await {
                Ok((writer, Ok(()))) => idle = Some(writer),
                Ok((writer, Err(error))) => {
                    let error = ImageError::storage("write a blob", error);
                    return (Some(writer), Ended::Disk(error));
                }
                Err(error) => {
                    return (
                        None,
                        Ended::Disk(ImageError::storage("write a blob", error)),
                    );
                }
            }
        }
        if gathered > 0
            && let Some(mut writer) = idle.take()
        {
            flying = Some(tokio::task::spawn_blocking(move || {
                let outcome = batch.iter().try_for_each(|bytes| writer.write(bytes));
                (writer, outcome)
            }));
        }
    }
    match flying {
        None => (idle, ended),
        Some(work) => match work.await {
            Ok((writer, Ok(()))) => (Some(writer), ended),
            Ok((writer, Err(error))) => (
                Some(writer),
                Ended::Disk(ImageError::storage("write a blob", error)),
            ),
            Err(error) => (
                None,
                Ended::Disk(ImageError::storage("write a blob", error)),
            ),
        },
    }
}

/// Reads a whole small body, at most `limit` bytes; `None` when it is longer.
pub(crate) async fn collect<S, E>(mut source: S, limit: u64) -> Result<Option<Vec<u8>>, E>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let mut all = Vec::new();
    while let Some(bytes) = source.next().await {
        let bytes = bytes?;
        if (all.len() + bytes.len()) as u64 > limit {
            return Ok(None);
        }
        all.extend_from_slice(&bytes);
    }
    Ok(Some(all))
}

/// A file's content from `start`, `length` bytes, read in large pieces.
pub(crate) async fn file_stream(
    path: std::path::PathBuf,
    start: u64,
    length: u64,
) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + 'static, ImageError> {
    use std::io::{Seek, SeekFrom};
    let file = blocking(move || -> std::io::Result<std::fs::File> {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        Ok(file)
    })
    .await?
    .map_err(|e| ImageError::storage("open a blob", e))?;
    Ok(futures_util::stream::unfold(
        Some((file, length)),
        |state| async move {
            let (file, left) = state.filter(|(_, left)| *left > 0)?;
            let piece = tokio::task::spawn_blocking(move || {
                use std::io::Read;
                let want = usize::try_from(left).unwrap_or(usize::MAX).min(BATCH / 2);
                let mut buffer = Vec::with_capacity(want);
                (&file)
                    .take(want as u64)
                    .read_to_end(&mut buffer)
                    .map(|_| (buffer, file))
            })
            .await
            .map_err(std::io::Error::other)
            .flatten();
            Some(match piece {
                Ok((buffer, _)) if buffer.is_empty() => (
                    Err(std::io::Error::new(
                        std::io::ErrorKind::UnexpectedEof,
                        "the blob is too short",
                    )),
                    None,
                ),
                Ok((buffer, file)) => {
                    let left = left - buffer.len() as u64;
                    (Ok(Bytes::from(buffer)), Some((file, left)))
                }
                Err(error) => (Err(error), None),
            })
        },
    ))
}
