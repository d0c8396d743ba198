//! A plain HTTP/1.1 client without threads or pools, so that what is measured is the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::machine::now;

/// Longer than anything measured here should take.
const PATIENCE: Duration = Duration::from_secs(120);

/// An answer, and when its status line was there.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
}

/// One `GET` on a connection of its own.
///
/// # Errors
/// When there is no connection, or no answer on it.
pub(crate) fn get(address: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(address)?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    exchange(&mut connection(stream)?, head.as_bytes())
}

/// A connection for many requests, opened again when the server has closed it.
pub(crate) struct Client {
    address: SocketAddr,
    head: String,
    open: Option<BufReader<TcpStream>>,
}

impl Client {
    /// Requests for `host`, with a bearer token.
    pub(crate) fn new(address: SocketAddr, host: &str, token: &str) -> Self {
        let head = format!(
            "host: {host}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n"
        );
        Self {
            address,
            head,
            open: None,
        }
    }

    /// Sends a request and reads the answer. A connection that was idle may be gone; then it is
    /// tried once more, on a new one.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\n{}content-length: {}\r\n\r\n",
            self.head,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        if let Some(open) = &mut self.open
            && let Ok(answer) = exchange(open, &request)
        {
            return Ok(answer);
        }
        let mut fresh = connection(TcpStream::connect(self.address)?)?;
        let answer = exchange(&mut fresh, &request)?;
        self.open = Some(fresh);
        Ok(answer)
    }
}

fn connection(stream: TcpStream) -> anyhow::Result<BufReader<TcpStream>> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

fn exchange(stream: &mut BufReader<TcpStream>, request: &[u8]) -> anyhow::Result<Answer> {
    stream.get_mut().write_all(request)?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let at = now();
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("no status in the answer {line:?}"))?;
    let (mut length, mut chunked) = (None, false);
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            bail!("the answer broke off");
        }
        let lower = line.trim().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = Some(value.trim().parse::<usize>()?);
        }
        chunked |= lower.starts_with("transfer-encoding:") && lower.ends_with("chunked");
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16)?;
            let from = body.len();
            body.resize(from + size, 0);
            stream.read_exact(&mut body[from..])?;
            stream.read_exact(&mut [0; 2])?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = length {
        body.resize(length, 0);
        stream.read_exact(&mut body)?;
    } else {
        stream.read_to_end(&mut body)?;
    }
    Ok(Answer { status, body, at })
}
