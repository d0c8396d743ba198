//! What the faces have in common: who is calling, what is asked, and what projects and regions there
//! are.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use lauf_iam::Caller;
use lauf_model::{Code, Project, Status, Violation};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use crate::audit::Client;
use crate::config::ApiConfig;
use crate::deps::Deps;
use crate::failed;
use crate::host::Host;
use crate::kube;

/// The faces, with all they need.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) config: Arc<ApiConfig>,
    pub(crate) deps: Deps,
    pub(crate) kube: kube::Shared,
}

/// A request that was let in: who sent it and what it asks.
pub(crate) struct Ask {
    pub(crate) caller: Caller,
    pub(crate) client: Option<Client>,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) host: Host,
    /// The path's segments, percent-decoded.
    pub(crate) path: Vec<String>,
    /// The query's pairs, decoded.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Api {
    /// Who sent a request.
    pub(crate) fn authenticate(&self, request: &Request<Body>) -> Result<Caller, Status> {
        let header = request.headers().get(header::AUTHORIZATION);
        let header = header.map(|value| value.to_str().unwrap_or("unreadable"));
        self.deps.iam.authenticate(header)
    }

    /// All of a request, taken apart.
    pub(crate) async fn read(
        &self,
        caller: Caller,
        host: Host,
        request: Request<Body>,
    ) -> Result<Ask, Status> {
        let (parts, body) = request.into_parts();
        let uri = &parts.uri;
        let path = uri.path().trim_start_matches('/');
        let path = path
            .split('/')
            .map(|segment| decode(segment, false))
            .collect::<Result<_, _>>()?;
        let query = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(key, true)?, decode(value, true)?))
            })
            .collect::<Result<_, Status>>()?;
        Ok(Ask {
            caller,
            client: parts.extensions.get().copied(),
            method: parts.method,
            headers: parts.headers,
            host,
            path,
            query,
            body: self.body(body, self.config.max_body).await?,
        })
    }

    /// All of a body, within the bounds of size and time.
    pub(crate) async fn body(&self, body: Body, most: usize) -> Result<Bytes, Status> {
        let whole = Limited::new(body, most).collect();
        match tokio::time::timeout(self.config.body_timeout, whole).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Status::new(
                Code::InvalidArgument,
                format!("The request body is larger than {most} bytes."),
            )),
            Ok(Err(_)) => Err(Status::new(
                Code::InvalidArgument,
                "The request body ended before it was complete.",
            )),
            Err(_) => Err(Status::new(
                Code::DeadlineExceeded,
                format!(
                    "The request body did not arrive within {} s.",
                    self.config.body_timeout.as_secs()
                ),
            )),
        }
    }

    /// The project of that id or number.
    pub(crate) async fn project(&self, id_or_number: &str) -> Result<Project, Status> {
        let unknown = || {
            Status::new(
                Code::NotFound,
                format!(
                    "Project '{id_or_number}' was not found. This Lauf has the project '{}'.",
                    self.config.default_project
                ),
            )
        };
        let Ok(number) = id_or_number.parse::<u64>() else {
            let found = self.find::<Project>(id_or_number).await?;
            return Ok(found.ok_or_else(unknown)?.value);
        };
        self.projects()
            .await?
            .into_iter()
            .find(|project| project.number == number)
            .ok_or_else(unknown)
    }

    /// All projects.
    pub(crate) async fn projects(&self) -> Result<Vec<Project>, Status> {
        let all = self.deps.store.all::<Project>().await;
        let (all, _) = all.map_err(|error| failed::read(&error))?;
        Ok(all.into_iter().map(|stored| stored.value).collect())
    }

    /// A region that this Lauf serves.
    pub(crate) fn known_region<'a>(&self, region: &'a str) -> Result<&'a str, Status> {
        if self.config.regions.iter().any(|r| r == region) {
            return Ok(region);
        }
        Err(Status::new(
            Code::NotFound,
            format!(
                "Region '{region}' is not served by this Lauf; it serves {}.",
                self.config.regions.join(", ")
            ),
        ))
    }

    /// The region a v1 request is about: the host's, or the default one.
    pub(crate) fn region(&self, ask: &Ask) -> Result<String, Status> {
        match &ask.host.region {
            Some(region) => self.known_region(region).map(str::to_owned),
            None => Ok(self.config.default_region.clone()),
        }
    }
}

impl Ask {
    /// The last value of a query parameter; empty when there is none.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.query
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// A query parameter that is a count.
    pub(crate) fn count(&self, name: &str) -> Result<usize, Status> {
        let text = self.param(name);
        if text.is_empty() {
            return Ok(0);
        }
        text.parse().map_err(|_| {
            Status::invalid(vec![Violation::new(
                name,
                format!("'{text}' is not a whole number, 0 or more."),
            )])
        })
    }

    /// The body as JSON of one type. The error names the field.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Status> {
        let body: &[u8] = if self.body.is_empty() {
            b"{}"
        } else {
            &self.body
        };
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(Status::new(
                Code::InvalidArgument,
                "Invalid JSON payload received. The body must be a JSON object.",
            ));
        }
        let mut reader = serde_json::Deserializer::from_slice(body);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let inner = error.into_inner();
            if inner.is_data() && path != "." {
                Status::invalid(vec![Violation::new(path, format!("{inner}."))])
            } else {
                Status::new(
                    Code::InvalidArgument,
                    format!("Invalid JSON payload received. {inner}."),
                )
            }
        })?;
        reader.end().map_err(|error| {
            Status::new(
                Code::InvalidArgument,
                format!("Invalid JSON payload received. {error}."),
            )
        })?;
        Ok(value)
    }

    /// The answer to a path that leads nowhere.
    pub(crate) fn no_such_path(&self) -> Status {
        Status::new(
            Code::NotFound,
            format!(
                "{} /{} is not a method of this API.",
                self.method,
                self.path.join("/")
            ),
        )
    }
}

fn decode(text: &str, plus_is_blank: bool) -> Result<String, Status> {
    let blank;
    let text = if plus_is_blank && text.contains('+') {
        blank = text.replace('+', " ");
        &blank
    } else {
        text
    };
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| {
            Status::new(
                Code::InvalidArgument,
                "The request's path or query is not UTF-8.",
            )
        })
}
