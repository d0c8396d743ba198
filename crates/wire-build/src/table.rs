//! The table of RPCs: which are served, and under which HTTP paths.
//!
//! ```text
//! # A comment.
//! api run.googleapis.com
//!
//! google.cloud.run.v2.Services
//!   GetService     GET   /v2/{name=projects/*/locations/*/services/*}
//!   CreateService  POST  /v2/{parent=projects/*/locations/*}/services  service
//!   Watch          -
//!
//! any google.rpc.BadRequest google.rpc.ErrorInfo
//! ```
//!
//! A line is the method, the verb, the path (`google/api/http.proto`, "Path template syntax") and the
//! field that the body is: `*` for the whole request, nothing for none. A method that has several
//! paths has several lines. One that is reached over gRPC alone has `-`. `any` names messages that are
//! only ever inside a `google.protobuf.Any`.

use anyhow::{Result, bail};

/// What the table says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The RPCs, in the table's order; one for each line.
    pub rpcs: Vec<Rpc>,
    /// The messages that are only ever inside an `Any`.
    pub any: Vec<String>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rpc {
    /// The host of the API that serves it, such as `run.googleapis.com`.
    pub api: String,
    /// The service's full name.
    pub service: String,
    /// The method's name.
    pub method: String,
    /// Its HTTP binding, if it has one.
    pub http: Option<Http>,
}

/// An HTTP binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// `GET`, `POST`, ...
    pub verb: String,
    /// The path's template.
    pub path: String,
    /// The field that is the body, `*`, or nothing.
    pub body: String,
}

/// Reads a table.
///
/// # Errors
/// A line that is none of the forms above, with its number.
pub fn parse(text: &str) -> Result<Table> {
    let mut table = Table::default();
    let (mut api, mut service) = (None::<String>, None::<String>);
    for (number, line) in (1..).zip(text.lines()) {
        let inside = line.starts_with(char::is_whitespace);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            ["api", host] if !inside => {
                api = Some((*host).to_owned());
                service = None;
            }
            ["any", names @ ..] if !inside => {
                table.any.extend(names.iter().map(|n| (*n).to_owned()));
            }
            [name] if !inside && name.contains('.') => service = Some((*name).to_owned()),
            [method, rest @ ..] if inside => {
                let (Some(api), Some(service)) = (&api, &service) else {
                    bail!("line {number}: '{method}' stands below no service of an API");
                };
                table.rpcs.push(Rpc {
                    api: api.clone(),
                    service: service.clone(),
                    method: (*method).to_owned(),
                    http: http(rest, number)?,
                });
            }
            _ => bail!("line {number}: '{line}' is no api, service, method or any"),
        }
    }
    Ok(table)
}

fn http(words: &[&str], number: usize) -> Result<Option<Http>> {
    const VERBS: [&str; 5] = ["GET", "PUT", "POST", "PATCH", "DELETE"];
    let (verb, path, body) = match words {
        ["-"] => return Ok(None),
        [verb, path] => (*verb, *path, ""),
        [verb, path, body] => (*verb, *path, *body),
        _ => bail!("line {number}: a method has a verb, a path and perhaps a body, or '-'"),
    };
    if !VERBS.contains(&verb) || !path.starts_with('/') {
        bail!("line {number}: '{verb} {path}' is not a verb and a path");
    }
    Ok(Some(Http {
        verb: verb.to_owned(),
        path: path.to_owned(),
        body: body.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_wrong_ones_named() {
        let table = parse(
            "# first\napi a.googleapis.com\na.v1.B\n  Get GET /v1/{name=b/*}\n  \
             Put PUT /v1/{b.name=b/*} b\n  Tail -\nany c.D e.F\n",
        )
        .unwrap();
        assert_eq!(table.any, ["c.D", "e.F"]);
        assert_eq!(table.rpcs.len(), 3);
        assert_eq!(table.rpcs[1].http.as_ref().unwrap().body, "b");
        assert_eq!(table.rpcs[2].http, None);
        assert_eq!(table.rpcs[2].api, "a.googleapis.com");
        for wrong in [
            "  Get GET /x",
            "api a\na.B\n  Get FETCH /x",
            "api a\na.B\n  Get GET x",
            "api a\na.B\n  Get",
            "nonsense",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
