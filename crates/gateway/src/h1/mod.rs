//! HTTP/1.1 on both sides of the data plane (RFC 9112), written for a proxy: one task drives the client's
//! connection and the instance's, a small message costs one read and one write on each, and a connection
//! that waits holds no buffer.
//!
//! `head` and `body` turn bytes into messages and back and know no socket; `client` is a connection to an
//! instance, `server` one from a client. HTTP/2 is hyper's.
//!
//! Laws:
//!
//! - Both sides may be hostile. What can be read in two ways is refused: two lengths, a length and a coding,
//!   a coding other than `chunked`. A message is written anew, never passed on as it came.
//! - Everything is bounded: heads, lines of chunks and their extensions, trailers, interim responses.
//! - A connection on which anything was left unread, or came unasked, is never used again.

pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod head;
pub(crate) mod out;
pub(crate) mod scratch;
pub(crate) mod server;
