//! gRPC as the sample `grpc` speaks it (`samples/grpc/route.proto`): all four kinds of call over cleartext HTTP/2.
//!
//! The few messages are written and read by hand: a generated client would cost a minute of building for five fields.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

use super::{Target, timed};
use crate::samples::Answer;

/// A stream of messages from us; ends when its sender is dropped.
struct Outgoing(mpsc::Receiver<Bytes>);

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|message| message.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// One call in progress.
struct Call {
    to_server: Option<mpsc::Sender<Bytes>>,
    from_server: Incoming,
    unread: BytesMut,
    status: Option<(String, String)>,
}

struct Client {
    host: String,
    sender: SendRequest<Outgoing>,
}

impl Client {
    async fn open(target: &Target) -> Result<Self> {
        let (sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(target.connect().await?)).await?;
        tokio::spawn(connection);
        Ok(Self {
            host: target.host.clone(),
            sender,
        })
    }

    /// Begins a call with its first messages; more can follow until [`Call::finish_sending`].
    async fn call(&mut self, method: &str, messages: &[Vec<u8>]) -> Result<Call> {
        let (to_server, from_us) = mpsc::channel(16);
        for message in messages {
            to_server.send(framed(message)).await?;
        }
        let request = Request::post(format!("http://{}/{method}", self.host))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Outgoing(from_us))?;
        self.sender.ready().await?;
        let sending = self.sender.send_request(request);
        let response = sending.await.with_context(|| format!("calling {method}"))?;
        ensure!(
            response.status() == 200,
            "{method}: HTTP status {}",
            response.status()
        );
        let status = grpc_status(response.headers());
        Ok(Call {
            to_server: Some(to_server),
            from_server: response.into_body(),
            unread: BytesMut::new(),
            status,
        })
    }

    /// A call with one message each way.
    async fn unary(&mut self, method: &str, message: Vec<u8>) -> Result<Bytes> {
        // Without the end of our side a unary call would wait for more, so the channel is closed with the first message in it.
        let mut call = self.call_once(method, &[message]).await?;
        let reply = call
            .next()
            .await?
            .with_context(|| format!("{method} answered nothing"))?;
        call.end().await?;
        Ok(reply)
    }

    /// A call whose messages are all known at its beginning.
    async fn call_once(&mut self, method: &str, messages: &[Vec<u8>]) -> Result<Call> {
        let (to_server, from_us) = mpsc::channel(messages.len().max(1));
        for message in messages {
            to_server.send(framed(message)).await?;
        }
        drop(to_server);
        let request = Request::post(format!("http://{}/{method}", self.host))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Outgoing(from_us))?;
        self.sender.ready().await?;
        let response = self
            .sender
            .send_request(request)
            .await
            .with_context(|| format!("calling {method}"))?;
        ensure!(
            response.status() == 200,
            "{method}: HTTP status {}",
            response.status()
        );
        let status = grpc_status(response.headers());
        Ok(Call {
            to_server: None,
            from_server: response.into_body(),
            unread: BytesMut::new(),
            status,
        })
    }
}

impl Call {
    async fn send(&mut self, message: &[u8]) -> Result<()> {
        let to_server = self
            .to_server
            .as_ref()
            .context("this side of the call has ended")?;
        Ok(to_server.send(framed(message)).await?)
    }

    fn finish_sending(&mut self) {
        self.to_server = None;
    }

    /// The next message, or `None` when the server has ended the call.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(mut head) = self.unread.get(..5) {
                ensure!(
                    head.get_u8() == 0,
                    "a compressed message, which was not asked for"
                );
                let length = usize::try_from(head.get_u32())?;
                if self.unread.len() >= 5 + length {
                    self.unread.advance(5);
                    return Ok(Some(self.unread.split_to(length).freeze()));
                }
            }
            match self.from_server.frame().await.transpose()? {
                None => return Ok(None),
                Some(frame) => match frame.into_data() {
                    Ok(data) => self.unread.extend_from_slice(&data),
                    Err(frame) => self.status = frame.trailers_ref().and_then(grpc_status),
                },
            }
        }
    }

    /// Reads to the end and checks that the server was content.
    async fn end(mut self) -> Result<()> {
        while self.next().await?.is_some() {}
        match self.status {
            Some((code, _)) if code == "0" => Ok(()),
            Some((code, message)) => bail!("gRPC status {code}: {message}"),
            None => bail!("the call ended without a grpc-status: trailers were lost"),
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<(String, String)> {
    let text = |name: &str| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    text("grpc-status").map(|code| (code, text("grpc-message").unwrap_or_default()))
}

/// The length prefix of gRPC before a message.
fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + message.len());
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
    out.freeze()
}

/// A `Point`.
fn point(latitude: f64, longitude: f64) -> Vec<u8> {
    let mut out = vec![0x09];
    out.extend_from_slice(&latitude.to_le_bytes());
    out.push(0x11);
    out.extend_from_slice(&longitude.to_le_bytes());
    out
}

/// A field that holds bytes, a text or a message; ours are all shorter than 128 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len())
        .ok()
        .filter(|length| *length < 128)
        .unwrap_or_default();
    [&[number << 3 | 2, length], &content[..usize::from(length)]].concat()
}

/// A field of a message that was read.
#[derive(Debug, PartialEq)]
enum Field {
    Number(u64),
    Content(Bytes),
}

/// Reads a message's fields in order.
fn fields(mut message: Bytes) -> Result<Vec<(u64, Field)>> {
    let mut out = Vec::new();
    while message.has_remaining() {
        let key = varint(&mut message)?;
        let value = match key & 7 {
            0 => Field::Number(varint(&mut message)?),
            1 if message.len() >= 8 => Field::Number(message.get_u64_le()),
            2 => {
                let length = usize::try_from(varint(&mut message)?)?;
                ensure!(
                    length <= message.len(),
                    "a field that is longer than its message"
                );
                Field::Content(message.split_to(length))
            }
            5 if message.len() >= 4 => Field::Number(message.get_u32_le().into()),
            kind => bail!("a field of wire type {kind}, or cut off"),
        };
        out.push((key >> 3, value));
    }
    Ok(out)
}

fn varint(bytes: &mut Bytes) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        ensure!(bytes.has_remaining(), "a number that is cut off");
        let byte = bytes.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    bail!("a number of more than 64 bits")
}

/// The text in the first field of that number.
fn text(message: Bytes, number: u64) -> Result<String> {
    let found = fields(message)?
        .into_iter()
        .find_map(|(n, value)| match value {
            Field::Content(bytes) if n == number => {
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => None,
        });
    found.with_context(|| format!("no text in field {number}"))
}

/// The number in the first field of that number; zero when it is left out, as proto3 does.
fn number(message: Bytes, number: u64) -> Result<u64> {
    Ok(fields(message)?
        .into_iter()
        .find_map(|(n, value)| match value {
            Field::Number(found) if n == number => Some(found),
            _ => None,
        })
        .unwrap_or(0))
}

const ROUTE: &str = "lauf.samples.route.Route";
const MUNICH: (f64, f64) = (48.1, 11.6);
const BERLIN: (f64, f64) = (52.5, 13.4);

/// One unary call: the place nearest to Munich.
pub(crate) async fn nearest(target: &Target) -> Result<String> {
    let mut client = Client::open(target).await?;
    text(
        client
            .unary(&format!("{ROUTE}/GetPlace"), point(MUNICH.0, MUNICH.1))
            .await?,
        1,
    )
}

/// Every kind of call, each checked for the right answer; the time is that of the first.
///
/// # Errors
/// When a call fails or answers wrongly.
pub(crate) async fn tour(target: &Target) -> Result<Answer> {
    let (first, name) = timed(nearest(target)).await?;
    ensure!(name == "München", "GetPlace near Munich answered {name:?}");
    let (_, seen) = timed(streams(target)).await?;
    Ok(Answer { first, seen })
}

async fn streams(target: &Target) -> Result<String> {
    let mut client = Client::open(target).await?;

    let health = client
        .unary("grpc.health.v1.Health/Check", field(1, ROUTE.as_bytes()))
        .await?;
    ensure!(
        number(health, 1)? == 1,
        "the health service does not say SERVING"
    );

    let area = [field(1, &point(54.0, 9.0)), field(2, &point(51.0, 14.0))].concat();
    let mut places = client
        .call_once(&format!("{ROUTE}/ListPlaces"), &[area])
        .await?;
    let mut listed = Vec::new();
    while let Some(place) = places.next().await? {
        listed.push(text(place, 1)?);
    }
    places.end().await?;
    ensure!(
        listed == ["Hamburg", "Berlin", "Leipzig", "Dresden"],
        "ListPlaces answered {listed:?}"
    );

    let trip = [point(MUNICH.0, MUNICH.1), point(BERLIN.0, BERLIN.1)];
    let mut record = client
        .call_once(&format!("{ROUTE}/RecordTrip"), &trip)
        .await?;
    let summary = record
        .next()
        .await?
        .context("RecordTrip answered nothing")?;
    record.end().await?;
    let km = f64::from_bits(number(summary.clone(), 2)?);
    ensure!(
        number(summary, 1)? == 2 && (500.0..520.0).contains(&km),
        "RecordTrip summed up to {km} km"
    );

    // Each note waits for the echo of the one before: a proxy that buffers would hang here.
    let mut chat = client
        .call(&format!("{ROUTE}/Chat"), &[field(1, b"note 0")])
        .await?;
    for round in 0..3_u64 {
        let echo = chat.next().await?.context("Chat ended early")?;
        ensure!(
            text(echo.clone(), 1)? == format!("note {round}") && number(echo, 2)? == round,
            "Chat echoed wrongly"
        );
        if round < 2 {
            chat.send(&field(1, format!("note {}", round + 1).as_bytes()))
                .await?;
        }
    }
    chat.finish_sending();
    chat.end().await?;
    Ok(format!(
        "all four kinds of call, health SERVING, {km:.0} km"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let place = [
            field(1, b"Berlin"),
            field(2, &point(52.5, 13.4)),
            vec![0x18, 0xac, 0x02],
        ]
        .concat();
        let place = Bytes::from(place);
        assert_eq!(text(place.clone(), 1).unwrap(), "Berlin");
        assert_eq!(number(place.clone(), 3).unwrap(), 300);
        let Field::Content(at) = fields(place).unwrap().remove(1).1 else {
            panic!("not a message")
        };
        assert!((f64::from_bits(number(at, 2).unwrap()) - 13.4).abs() < 1e-9);
    }

    #[test]
    fn a_message_that_is_cut_off_is_an_error() {
        assert!(fields(Bytes::from_static(&[0x0a, 9, b'x'])).is_err());
        assert!(fields(Bytes::from_static(&[0x08, 0xff])).is_err());
        assert!(fields(Bytes::from_static(&[0x09, 1, 2])).is_err());
    }
}
