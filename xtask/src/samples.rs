//! The samples: what each is, how it is built, how it is spoken to. The one list that images, demo and tests share.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use crate::client::{self, Target};
use crate::images::recipes;
use crate::images::rootfs::Rootfs;
use crate::images::spec::ImageSpec;
use crate::tools;

/// A sample application in `samples/`.
pub(crate) struct Sample {
    /// Its folder, its image and its service are all called so.
    pub(crate) name: &'static str,
    /// What it is, in a few words.
    pub(crate) what: &'static str,
    /// Whether the container speaks HTTP/2 without TLS (`--use-http2`).
    pub(crate) http2: bool,
    /// Fills the root directory and says how the image is started.
    pub(crate) build: fn(&mut Rootfs) -> Result<ImageSpec>,
    /// The programs whose versions decide whether a cached build is still good: each with the argument that prints its version.
    pub(crate) tools: &'static [(&'static str, &'static str)],
    /// Whether it does asynchronous work: the demo then shows it at work instead of calling it.
    pub(crate) work: bool,
    kind: Kind,
}

/// How a sample is asked for proof that it works.
enum Kind {
    /// A GET of the path answers 200 and the body contains the text.
    Http {
        path: &'static str,
        contains: &'static str,
    },
    /// All four kinds of call, and the health service.
    Grpc,
    /// A handshake, a message said, and the message heard.
    Chat,
    /// It is no server: run with these arguments it ends well and says this.
    Once {
        args: &'static [&'static str],
        says: &'static str,
    },
}

/// What a sample answered.
pub(crate) struct Answer {
    /// From the first packet to the first right answer.
    pub(crate) first: Duration,
    /// What was seen, for a person.
    pub(crate) seen: String,
}

/// All samples, the quickest to build first.
pub(crate) const ALL: &[Sample] = &[
    Sample {
        name: "hello",
        what: "static Rust",
        http2: false,
        build: recipes::hello,
        tools: &[("rustc", "-vV")],
        work: false,
        kind: Kind::Http {
            path: "/",
            contains: "Hello ",
        },
    },
    Sample {
        name: "node",
        what: "Node.js, Express: task list",
        http2: false,
        build: recipes::node,
        tools: &[("node", "--version")],
        work: false,
        kind: Kind::Http {
            path: "/api/tasks",
            contains: "[]",
        },
    },
    Sample {
        name: "flask",
        what: "Python, Flask: guestbook",
        http2: false,
        build: recipes::flask,
        tools: &[("/usr/bin/python3", "--version")],
        work: false,
        kind: Kind::Http {
            path: "/",
            contains: "Guestbook",
        },
    },
    Sample {
        name: "java",
        what: "Java: short links",
        http2: false,
        build: recipes::java,
        tools: &[("java", "-version")],
        work: false,
        kind: Kind::Http {
            path: "/api/links",
            contains: "[]",
        },
    },
    Sample {
        name: "grpc",
        what: "gRPC streams, Python",
        http2: true,
        build: recipes::grpc,
        tools: &[("/usr/bin/python3", "--version")],
        work: false,
        kind: Kind::Grpc,
    },
    Sample {
        name: "chat",
        what: "WebSocket chat, Node.js",
        http2: false,
        build: recipes::chat,
        tools: &[("node", "--version")],
        work: false,
        kind: Kind::Chat,
    },
    Sample {
        name: "transcode",
        what: "parallel job, ffmpeg",
        http2: false,
        build: recipes::transcode,
        tools: &[("/usr/bin/python3", "--version"), ("ffmpeg", "-version")],
        work: true,
        kind: Kind::Once {
            args: &["--dry-run"],
            says: "part 0 of 6: 100 frames",
        },
    },
    Sample {
        name: "etl",
        what: "nightly job, PostgreSQL",
        http2: false,
        build: recipes::etl,
        tools: &[("/usr/bin/python3", "--version")],
        work: true,
        kind: Kind::Once {
            args: &["--dry-run"],
            says: "would load 5000 orders",
        },
    },
    Sample {
        name: "puller",
        what: "worker pool, streaming pull",
        http2: false,
        build: recipes::puller,
        tools: &[("/usr/bin/python3", "--version")],
        work: true,
        kind: Kind::Once {
            args: &["--dry-run"],
            says: "counted 2 fish",
        },
    },
    Sample {
        name: "thumbnails",
        what: "push service, Pillow",
        http2: false,
        build: recipes::thumbnails,
        tools: &[("/usr/bin/python3", "--version")],
        work: true,
        kind: Kind::Http {
            path: "/",
            contains: "Thumbnails",
        },
    },
];

/// The samples with these names, or all when there are none.
///
/// # Errors
/// A name that no sample has, with the names there are.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<&'static Sample>> {
    for name in names {
        if !ALL.iter().any(|sample| sample.name == *name) {
            let all: Vec<&str> = ALL.iter().map(|sample| sample.name).collect();
            anyhow::bail!("there is no sample {name:?}; there are {}", all.join(", "));
        }
    }
    Ok(ALL
        .iter()
        .filter(|sample| names.is_empty() || names.iter().any(|name| name == sample.name))
        .collect())
}

impl Sample {
    /// A program that its image is made of and that is not there, if there is one.
    pub(crate) fn lacks(&self) -> Option<&'static str> {
        self.tools
            .iter()
            .map(|(program, _)| *program)
            .find(|program| tools::which(program).is_none())
    }

    /// The arguments with which it ends by itself, and what it says then; `None` for a server.
    pub(crate) fn once(&self) -> Option<(&'static [&'static str], &'static str)> {
        match self.kind {
            Kind::Once { args, says } => Some((args, says)),
            _ => None,
        }
    }

    /// Speaks to the sample as its users would.
    ///
    /// # Errors
    /// When it does not answer, or not rightly.
    pub(crate) async fn call(&self, target: &Target) -> Result<Answer> {
        match self.kind {
            Kind::Http { path, contains } => {
                let (first, reply) = client::timed(client::http::get(target, path)).await?;
                anyhow::ensure!(
                    reply.status == 200,
                    "GET {path} answered {}: {}",
                    reply.status,
                    reply.start()
                );
                anyhow::ensure!(
                    reply.text().contains(contains),
                    "GET {path} lacks {contains:?}: {}",
                    reply.start()
                );
                Ok(Answer {
                    first,
                    seen: format!("GET {path}: 200, {} bytes", reply.body.len()),
                })
            }
            Kind::Grpc => client::grpc::tour(target).await,
            Kind::Chat => client::ws::tour(target).await,
            Kind::Once { .. } => anyhow::bail!("{} is no server and cannot be called", self.name),
        }
    }

    /// Whether something that answers like this sample is there already: a short question for a loop that waits.
    pub(crate) async fn ping(&self, addr: SocketAddr) -> bool {
        let target = Target {
            addr,
            host: addr.to_string(),
        };
        match self.kind {
            Kind::Http { path, .. } => client::http::get(&target, path)
                .await
                .is_ok_and(|reply| reply.status == 200),
            Kind::Grpc => client::grpc::nearest(&target).await.is_ok(),
            Kind::Chat => client::http::get(&target, "/rooms")
                .await
                .is_ok_and(|reply| reply.status == 200),
            Kind::Once { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_chosen_by_name_and_a_wrong_name_is_told() {
        assert_eq!(chosen(&[]).unwrap().len(), ALL.len());
        assert_eq!(chosen(&["java".to_owned()]).unwrap()[0].name, "java");
        let wrong = chosen(&["cobol".to_owned()]).err().unwrap().to_string();
        assert!(
            wrong.contains("cobol") && wrong.contains("hello, node"),
            "{wrong}"
        );
    }
}
