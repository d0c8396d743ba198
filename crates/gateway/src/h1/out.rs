//! What is to be written to a connection, gathered so that a small message takes one system call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// Up to here copying is cheaper than a second slice for the kernel.
const JOIN: usize = 8 * 1024;
/// With this much waiting, nothing more is taken in.
const FULL: usize = 64 * 1024;
/// A buffer that grew beyond this is given back when it is empty.
const KEEP: usize = 16 * 1024;

/// Bytes on their way out: a buffer, and at most one large piece behind it that is not copied.
#[derive(Debug, Default)]
pub(crate) struct Out {
    buffer: Vec<u8>,
    written: usize,
    piece: Bytes,
}

impl Out {
    /// The buffer, to append to. Only while there [is room](Self::has_room).
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        debug_assert!(
            self.piece.is_empty(),
            "what is appended would overtake the piece"
        );
        &mut self.buffer
    }

    /// Appends a piece of a body. Only while there [is room](Self::has_room). `false` when it has to be
    /// written before anything else can be appended.
    pub(crate) fn push(&mut self, piece: Bytes) -> bool {
        debug_assert!(self.piece.is_empty(), "there is room for one piece");
        if piece.len() <= JOIN {
            self.buffer.extend_from_slice(&piece);
            true
        } else {
            self.piece = piece;
            false
        }
    }

    /// Whether nothing of what was appended since it was last empty has been written.
    pub(crate) fn is_untouched(&self) -> bool {
        self.written == 0
    }

    /// Whether more may be appended before something is written.
    pub(crate) fn has_room(&self) -> bool {
        self.piece.is_empty() && self.buffer.len() - self.written < FULL
    }

    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len() - self.written + self.piece.len()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.piece.is_empty() && self.written == self.buffer.len()
    }

    /// Writes all there is.
    pub(crate) fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let head = &self.buffer[self.written..];
            let n = if self.piece.is_empty() {
                ready!(Pin::new(&mut *to).poll_write(cx, head))?
            } else if head.is_empty() {
                ready!(Pin::new(&mut *to).poll_write(cx, &self.piece))?
            } else if to.is_write_vectored() {
                let both = [IoSlice::new(head), IoSlice::new(&self.piece)];
                ready!(Pin::new(&mut *to).poll_write_vectored(cx, &both))?
            } else {
                ready!(Pin::new(&mut *to).poll_write(cx, head))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_buffer = n.min(self.buffer.len() - self.written);
            self.written += of_buffer;
            self.piece.advance(n - of_buffer);
            if self.written == self.buffer.len() {
                self.written = 0;
                self.buffer.clear();
                self.buffer.shrink_to(KEEP);
            }
            if self.piece.is_empty() {
                self.piece = Bytes::new();
            }
        }
        Pin::new(to).poll_flush(cx)
    }
}
