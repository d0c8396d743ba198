//! Google's APIs on the wire, from one definition: the table `rpcs` beside this crate.
//!
//! A line of the table makes an RPC of it; the build script (`lauf-wire-build`) turns the table and
//! the `googleapis-tonic-*` crates into messages, server traits ([`google`]), descriptors ([`pool`])
//! and HTTP bindings ([`BINDINGS`]). A face implements the traits once and is served over both
//! transports: gRPC requests go to its routes as they are, and REST requests go through the
//! [`Transcoder`], which makes gRPC requests of them and JSON of what comes back. A face knows
//! nothing of it.
//!
//! How a REST request goes: [`Transcoder::find`] tells the RPC by verb and path; the body (JSON, or
//! raw for `google.api.HttpBody`), the query and the path's variables become one request message; the
//! face answers; the response, each message of a stream, or the error becomes JSON.
//!
//! The laws:
//!
//! 1. **What is not in the table is not served**: `UNIMPLEMENTED` over gRPC, nothing over HTTP.
//! 2. **JSON is protobuf's** (protobuf.dev/programming-guides/json): either name of a field, enums by
//!    name and number, 64-bit integers as text, `Any` with its message expanded.
//! 3. **Nothing that was sent is dropped**: a field, a query parameter or a path of a mask that does
//!    not exist is refused by name.
//! 4. **An error is one thing**, `google.rpc.Status` with its details, whichever way it leaves.
//! 5. Bytes from outside may be anything: they end in an error that says what is wrong, never in a
//!    panic.
#![forbid(unsafe_code)]

pub mod cloud_event;
mod frame;
mod json;
pub mod mask;
mod named;
mod path;
mod query;
mod router;
pub mod status;
mod transcode;

use std::sync::LazyLock;

pub use named::{Named, dynamic, pack, typed, unpack};
pub use path::{Template, TemplateError};
pub use prost_reflect::{DescriptorPool, DynamicMessage};
pub use prost_types::{Any, Duration, FieldMask, Timestamp};
pub use router::Captures;
pub use transcode::{BadBinding, Found, Rest, Transcoder};

/// `google.protobuf.Empty`, as prost has it.
pub type Empty = ();

include!(concat!(env!("OUT_DIR"), "/apis.rs"));

/// How an RPC is reached over HTTP (`google/api/http.proto`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The host of the API that serves it.
    pub api: &'static str,
    /// The service's full name.
    pub service: &'static str,
    /// The method's name.
    pub method: &'static str,
    /// `GET`, `POST`, ...
    pub verb: &'static str,
    /// The path's template.
    pub path: &'static str,
    /// The field that is the body, `*` for the whole request, or nothing.
    pub body: &'static str,
}

/// The descriptors of everything in [`google`], and the well-known types.
pub fn pool() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        let mut pool = DescriptorPool::global();
        pool.decode_file_descriptor_set(
            include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")).as_slice(),
        )
        .expect("the build script made them, and a test reads them");
        cloud_event::add(&mut pool).expect("it is made of what is there, and a test reads it");
        pool
    });
    &POOL
}

/// Whether the RPC of a gRPC path, `/SERVICE/METHOD`, takes a stream of requests.
pub fn client_streams(path: &str) -> bool {
    let method = || {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let service = pool().get_service_by_name(service)?;
        service.methods().find(|m| m.name() == method)
    };
    method().is_some_and(|method| method.is_client_streaming())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binding_of_the_table_is_one() {
        let services: Vec<String> = pool()
            .services()
            .map(|s| s.full_name().to_owned())
            .collect();
        assert!(!services.is_empty());
        for binding in BINDINGS {
            assert!(services.iter().any(|s| s == binding.service), "{binding:?}");
        }
        Transcoder::new(pool(), BINDINGS).unwrap();
    }

    #[test]
    fn names_are_those_of_descriptors() {
        use google::cloud::run::v2;
        let name = v2::Service::NAME;
        assert!(pool().get_message_by_name(name).is_some(), "{name}");
        let service = v2::Service {
            description: "says hello".to_owned(),
            ..Default::default()
        };
        let any = pack(&service);
        assert_eq!(
            any.type_url,
            "type.googleapis.com/google.cloud.run.v2.Service"
        );
        assert_eq!(unpack::<v2::Service>(&any), Some(service));
        assert_eq!(unpack::<v2::Revision>(&any), None);
    }
}
