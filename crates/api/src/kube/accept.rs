//! In what form a client wants its answer (API concepts, "Alternate representations").

use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::failure::Failure;
use super::kind::Kind;
use super::table::{self, Include};
use crate::api::Ask;
use crate::reply::{self, Reply};

/// What is shown of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Whole,
    Table(Include),
    Metadata,
}

/// The form that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accept {
    shape: Shape,
    yaml: bool,
}

/// One of the forms that a client would take.
pub(crate) struct Offer<'a> {
    /// `application/json`, lower case.
    pub(crate) media: String,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Offer<'_> {
    /// The value of a parameter; empty where there is none.
    pub(crate) fn parameter(&self, name: &str) -> &str {
        let found = self.parameters.iter().find(|(key, _)| *key == name);
        found.map_or("", |(_, value)| *value)
    }

    /// Whether it is JSON, or whatever there is.
    pub(crate) fn is_json(&self) -> bool {
        matches!(
            self.media.as_str(),
            "application/json" | "application/*" | "*/*"
        )
    }
}

/// What a client would take, the best first (RFC 9110, 12.5.1).
pub(crate) fn offers(ask: &Ask) -> Vec<Offer<'_>> {
    let header = ask.headers.get(header::ACCEPT);
    let text = header.and_then(|value| value.to_str().ok()).unwrap_or("");
    let text = if text.trim().is_empty() { "*/*" } else { text };
    let mut offers: Vec<Offer<'_>> = text
        .split(',')
        .map(|one| {
            let mut parts = one.split(';');
            Offer {
                media: parts.next().unwrap_or("").trim().to_ascii_lowercase(),
                parameters: parts
                    .filter_map(|part| part.split_once('='))
                    .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
                    .collect(),
            }
        })
        .collect();
    let weight = |offer: &Offer<'_>| match offer.parameter("q") {
        "" => 1000,
        text => text.parse::<f32>().map_or(0, |q| {
            #[allow(clippy::cast_possible_truncation, reason = "from 0 to 1000")]
            let thousandths = (q.clamp(0.0, 1.0) * 1000.0) as i32;
            thousandths
        }),
    };
    offers.retain(|offer| weight(offer) > 0);
    offers.sort_by_key(|offer| -weight(offer));
    offers
}

impl Accept {
    /// The first of the forms a client would take that there is.
    pub(crate) fn of(ask: &Ask) -> Result<Self, Failure> {
        for offer in offers(ask) {
            let yaml = matches!(offer.media.as_str(), "application/yaml" | "text/yaml");
            if !yaml && !offer.is_json() {
                continue;
            }
            let meta = offer.parameter("g") == "meta.k8s.io" && offer.parameter("v") == "v1";
            let shape = match offer.parameter("as") {
                "" => Shape::Whole,
                "Table" if meta => Shape::Table(Include::parse(ask.param("includeObject"))?),
                "PartialObjectMetadata" | "PartialObjectMetadataList" if meta => Shape::Metadata,
                _ => continue,
            };
            return Ok(Self { shape, yaml });
        }
        Err(not_acceptable(&["application/json", "application/yaml"]))
    }

    /// Answers with one object.
    pub(crate) fn object(
        &self,
        kind: &dyn Kind,
        status: StatusCode,
        object: Value,
    ) -> Result<Reply, Failure> {
        let value = match self.shape {
            Shape::Whole => object,
            Shape::Table(include) => {
                let version = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                table::table(kind, &[object], version, include, true)
            }
            Shape::Metadata => metadata(&object),
        };
        self.write(status, &value)
    }

    /// Answers with a list.
    pub(crate) fn list(
        &self,
        kind: &dyn Kind,
        items: Vec<Value>,
        metadata_of_list: Value,
    ) -> Result<Reply, Failure> {
        let names = kind.names();
        let value = match self.shape {
            Shape::Whole => json!({
                "apiVersion": names.api_version(),
                "kind": format!("{}List", names.kind),
                "metadata": metadata_of_list,
                "items": items,
            }),
            Shape::Table(include) => table::table(kind, &items, metadata_of_list, include, true),
            Shape::Metadata => json!({
                "apiVersion": "meta.k8s.io/v1",
                "kind": "PartialObjectMetadataList",
                "metadata": metadata_of_list,
                "items": items.iter().map(metadata).collect::<Vec<_>>(),
            }),
        };
        self.write(StatusCode::OK, &value)
    }

    /// An object as an event of a watch has it. Headings come with the first event only.
    pub(crate) fn event(&self, kind: &dyn Kind, object: Value, first: bool) -> Value {
        match self.shape {
            Shape::Whole => object,
            Shape::Table(include) => {
                let version = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                table::table(kind, &[object], version, include, first)
            }
            Shape::Metadata => metadata(&object),
        }
    }

    /// A bookmark's object: nothing but a version (and that of its annotations).
    pub(crate) fn bookmark(&self, kind: &dyn Kind, metadata_of_bookmark: Value) -> Value {
        let names = kind.names();
        match self.shape {
            Shape::Whole => json!({
                "apiVersion": names.api_version(),
                "kind": names.kind,
                "metadata": metadata_of_bookmark,
            }),
            Shape::Table(_) => {
                let version = json!({"resourceVersion": metadata_of_bookmark["resourceVersion"]});
                let row = json!({"metadata": metadata_of_bookmark});
                table::table(kind, &[row], version, Include::Metadata, false)
            }
            Shape::Metadata => json!({
                "apiVersion": "meta.k8s.io/v1",
                "kind": "PartialObjectMetadata",
                "metadata": metadata_of_bookmark,
            }),
        }
    }

    /// Watches are told in JSON alone.
    pub(crate) fn json_only(&self) -> Result<(), Failure> {
        if self.yaml {
            return Err(not_acceptable(&["application/json"]));
        }
        Ok(())
    }

    fn write(&self, status: StatusCode, value: &Value) -> Result<Reply, Failure> {
        if !self.yaml {
            return Ok(reply::with_status(status, value)?);
        }
        let text = serde_saphyr::to_string(value).map_err(|error| {
            Failure::new(
                500,
                "InternalError",
                format!("the answer cannot be written as YAML: {error}"),
            )
        })?;
        let mut reply = reply::raw(status, text.into_bytes());
        reply.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/yaml"),
        );
        Ok(reply)
    }
}

/// The answer to those who take nothing that there is.
pub(crate) fn not_acceptable(there_is: &[&str]) -> Failure {
    Failure::new(
        406,
        "NotAcceptable",
        format!(
            "only the following media types are accepted: {}",
            there_is.join(", ")
        ),
    )
}

fn metadata(object: &Value) -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1",
        "kind": "PartialObjectMetadata",
        "metadata": object["metadata"],
    })
}
