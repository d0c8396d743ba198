//! WebSocket (RFC 6455) as a client needs it for one conversation: the handshake, masked frames out, frames in.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Target, timed};
use crate::samples::Answer;

/// The key and its answer from RFC 6455, section 1.3: any key will do, and for this one the answer is known.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Section 5.3 asks browsers for an unpredictable mask, against scripts that attack proxies; we are no browser.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const MAX_HEAD: usize = 16 * 1024;
const MAX_FRAME: usize = 64 * 1024;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// An open WebSocket.
pub(crate) struct Socket {
    stream: TcpStream,
}

impl Socket {
    /// Connects and upgrades.
    ///
    /// # Errors
    /// When the answer is not a proper `101`.
    pub(crate) async fn open(target: &Target, path: &str) -> Result<Self> {
        let mut stream = target.connect().await?;
        let ask = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
            target.host
        );
        stream.write_all(ask.as_bytes()).await?;
        let mut head = Vec::new();
        // One byte at a time: the first frame may stand right behind the head.
        while !head.ends_with(b"\r\n\r\n") {
            ensure!(head.len() < MAX_HEAD, "the answer's head does not end");
            head.push(
                stream
                    .read_u8()
                    .await
                    .context("the connection ended during the handshake")?,
            );
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let first = head.lines().next().unwrap_or_default();
        ensure!(
            first.starts_with("HTTP/1.1 101 "),
            "the upgrade was answered with {first:?}"
        );
        ensure!(
            head.contains(ACCEPT),
            "the upgrade was answered with a wrong Sec-WebSocket-Accept"
        );
        Ok(Self { stream })
    }

    /// Sends a text.
    pub(crate) async fn say(&mut self, text: &str) -> Result<()> {
        self.send(TEXT, text.as_bytes()).await
    }

    /// The next text; answers pings meanwhile. `None` when the server closed properly.
    pub(crate) async fn hear(&mut self) -> Result<Option<String>> {
        loop {
            let first = self.stream.read_u8().await?;
            ensure!(
                first & 0x80 != 0,
                "a message in pieces, which the sample does not send"
            );
            let second = self.stream.read_u8().await?;
            ensure!(second & 0x80 == 0, "a masked frame from a server");
            let length = match second {
                126 => usize::from(self.stream.read_u16().await?),
                127 => usize::try_from(self.stream.read_u64().await?)?,
                short => usize::from(short),
            };
            ensure!(length <= MAX_FRAME, "a frame of {length} bytes");
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await?;
            match first & 0x0f {
                TEXT => return Ok(Some(String::from_utf8(payload)?)),
                CLOSE => return Ok(None),
                PING => self.send(PONG, &payload).await?,
                PONG => {}
                other => bail!("a frame of kind {other}"),
            }
        }
    }

    /// Says good-bye and waits until the server has, too.
    pub(crate) async fn close(mut self) -> Result<()> {
        self.send(CLOSE, &1000_u16.to_be_bytes()).await?;
        while self.hear().await?.is_some() {}
        Ok(())
    }

    async fn send(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(&frame(kind, payload)?).await?)
    }
}

/// A masked frame.
fn frame(kind: u8, payload: &[u8]) -> Result<Vec<u8>> {
    let mut out = vec![0x80 | kind];
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => out.push(0x80 | short),
        _ => {
            out.push(0x80 | 126);
            out.extend_from_slice(
                &u16::try_from(payload.len())
                    .context("a message of over 64 KiB")?
                    .to_be_bytes(),
            );
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    Ok(out)
}

/// Two people in one room: what one says, the other hears. The time is that of the first handshake and welcome.
///
/// # Errors
/// When they do not hear each other.
pub(crate) async fn tour(target: &Target) -> Result<Answer> {
    // A room for each tour: a name is free again only a moment after its owner has gone.
    static ROOM: AtomicU32 = AtomicU32::new(1);
    let room = ROOM.fetch_add(1, Ordering::Relaxed);
    let ask = |name| format!("/ws?room=demo-{room}&name={name}");
    let (first, mut ann) = timed(async {
        let mut ann = Socket::open(target, &ask("Ann")).await?;
        until(&mut ann, "welcome").await?;
        Ok(ann)
    })
    .await?;
    timed(async {
        let mut bob = Socket::open(target, &ask("Bob")).await?;
        until(&mut bob, "welcome").await?;
        ann.say(r#"{"text":"hello, Bob"}"#).await?;
        let said = until(&mut bob, "said").await?;
        ensure!(
            said["name"] == "Ann" && said["text"] == "hello, Bob",
            "Bob heard {said}"
        );
        bob.close().await?;
        until(&mut ann, "left").await?;
        ann.close().await
    })
    .await?;
    Ok(Answer {
        first,
        seen: "two people in a room heard each other".to_owned(),
    })
}

/// The next message of a kind.
async fn until(socket: &mut Socket, kind: &str) -> Result<serde_json::Value> {
    loop {
        let text = socket
            .hear()
            .await?
            .with_context(|| format!("the server closed before {kind:?}"))?;
        let message: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("heard {text:?}"))?;
        if message["kind"] == kind {
            return Ok(message);
        }
        ensure!(
            message["kind"] != "refused",
            "the chat refused: {}",
            message["reason"]
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_masked_as_in_the_rfc() {
        // RFC 6455, section 5.7: a masked "Hello".
        assert_eq!(
            frame(TEXT, b"Hello").unwrap(),
            [
                0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
            ]
        );
        assert_eq!(frame(TEXT, &[0; 200]).unwrap()[1..4], [0xfe, 0, 200]);
    }
}
