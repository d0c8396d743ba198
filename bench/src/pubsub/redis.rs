//! Redis Streams, in the few words of its protocol (RESP) that adding and reading need.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::server::Server;
use super::{Options, Peer, While, side_by_side};
use crate::machine::now;

pub(super) struct Redis {
    server: Server,
    round: usize,
}

impl Redis {
    pub(super) async fn start(dir: tempfile::TempDir) -> anyhow::Result<Self> {
        Ok(Self {
            server: Server::redis(dir).await?,
            round: 0,
        })
    }

    fn stream(&self) -> String {
        format!("bench-{}", self.round)
    }
}

/// A connection.
struct Connection(BufReader<TcpStream>);

/// An answer, as far as it matters here.
enum Said {
    Text(Vec<u8>),
    Many(Vec<Said>),
}

impl Connection {
    async fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::with_capacity(1 << 16, stream)))
    }

    async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.0.get_mut().write_all(bytes).await?)
    }

    async fn answer(&mut self) -> anyhow::Result<Said> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        let (kind, rest) = line
            .trim_end()
            .split_at_checked(1)
            .context("the connection has ended")?;
        Ok(match kind {
            "$" | "*" if rest == "-1" => Said::Many(Vec::new()),
            "$" => {
                let mut text = vec![0; rest.parse::<usize>()? + 2];
                self.0.read_exact(&mut text).await?;
                text.truncate(text.len() - 2);
                Said::Text(text)
            }
            "*" => {
                let mut many = Vec::new();
                for _ in 0..rest.parse::<usize>()? {
                    many.push(Box::pin(self.answer()).await?);
                }
                Said::Many(many)
            }
            "-" => bail!("Redis says {rest}"),
            _ => Said::Text(rest.as_bytes().to_vec()),
        })
    }

    async fn ask(&mut self, words: &[&[u8]]) -> anyhow::Result<Said> {
        self.send(&command(words)).await?;
        self.answer().await
    }
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn add(stream: &str, options: &Options) -> Vec<u8> {
    let body = vec![b'x'; options.size];
    command(&[b"XADD", stream.as_bytes(), b"*", b"data", &body])
}

#[async_trait]
impl Peer for Redis {
    fn name(&self) -> &'static str {
        "redis streams"
    }

    fn durability(&self) -> &'static str {
        "synced to the disk"
    }

    fn processes(&self) -> anyhow::Result<Vec<u32>> {
        Ok(vec![self.server.id()])
    }

    async fn begin(&mut self, round: usize) -> anyhow::Result<()> {
        self.round = round;
        let mut redis = Connection::open(self.server.port).await?;
        let stream = self.stream();
        let words: [&[u8]; 6] = [
            b"XGROUP",
            b"CREATE",
            stream.as_bytes(),
            b"bench",
            b"0",
            b"MKSTREAM",
        ];
        redis.ask(&words).await.map(drop)
    }

    async fn publish(&mut self, options: &Options) -> anyhow::Result<(usize, Duration)> {
        let batch = add(&self.stream(), options).repeat(options.batch);
        let (port, size) = (self.server.port, options.batch);
        let publisher = |publishing: While| {
            let batch = batch.clone();
            async move {
                let mut redis = Connection::open(port).await?;
                let mut messages = 0;
                while publishing.lasts() {
                    redis.send(&batch).await?;
                    for _ in 0..size {
                        redis.answer().await?;
                        messages += 1;
                    }
                }
                Ok(messages)
            }
        };
        side_by_side(options, publisher).await
    }

    async fn pull(
        &mut self,
        messages: usize,
        options: &Options,
    ) -> anyhow::Result<(usize, Duration)> {
        let begin = now();
        let mut redis = Connection::open(self.server.port).await?;
        let (stream, count) = (self.stream(), options.outstanding.to_string());
        let mut got = 0;
        while got < messages && begin.elapsed() < options.pulling() {
            let read: [&[u8]; 9] = [
                b"XREADGROUP",
                b"GROUP",
                b"bench",
                b"one",
                b"COUNT",
                count.as_bytes(),
                b"STREAMS",
                stream.as_bytes(),
                b">",
            ];
            let ids = ids(redis.ask(&read).await?);
            let mut words: Vec<&[u8]> = vec![b"XACK", stream.as_bytes(), b"bench"];
            words.extend(ids.iter().map(|id| &**id));
            redis.ask(&words).await?;
            got += ids.len();
        }
        Ok((got, begin.elapsed()))
    }

    async fn singles(&mut self, options: &Options) -> anyhow::Result<Vec<Duration>> {
        let mut redis = Connection::open(self.server.port).await?;
        let add = add("single", options);
        let mut times = Vec::new();
        for _ in 0..options.singles {
            let begin = now();
            redis.send(&add).await?;
            redis.answer().await?;
            times.push(begin.elapsed());
        }
        Ok(times)
    }

    async fn pushes(&mut self, _: &Options) -> anyhow::Result<Vec<Duration>> {
        Ok(Vec::new())
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        let mut redis = Connection::open(self.server.port).await?;
        let words: [&[u8]; 3] = [b"DEL", &self.stream().into_bytes(), b"single"];
        redis.ask(&words).await.map(drop)
    }
}

/// The ids in `[[stream, [[id, fields], ...]]]`.
fn ids(said: Said) -> Vec<Vec<u8>> {
    let many = |said| match said {
        Said::Many(many) => many,
        Said::Text(_) => Vec::new(),
    };
    let stream = many(said).pop().map(many).and_then(|mut of| of.pop());
    let entries = stream.map(many).unwrap_or_default();
    let id = |entry| match many(entry).into_iter().next() {
        Some(Said::Text(id)) => Some(id),
        _ => None,
    };
    entries.into_iter().filter_map(id).collect()
}
