//! REST above gRPC, on a service that is in no table: streams, raw bodies, and whatever may be sent.

use std::convert::Infallible;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use lauf_wire::google::api::HttpBody;
use lauf_wire::google::longrunning::{GetOperationRequest, ListOperationsRequest, Operation};
use lauf_wire::{Binding, DescriptorPool, Rest, Transcoder, pack};
use proptest::prelude::*;
use prost::Message;
use prost_types::{FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto};
use serde_json::{Value, json};
use tonic::body::Body;

const API: &str = "things.example.com";
const GET: &str = ".google.longrunning.GetOperationRequest";
const LIST: &str = ".google.longrunning.ListOperationsRequest";
const OPERATION: &str = ".google.longrunning.Operation";
const RAW: &str = ".google.api.HttpBody";

fn pool() -> DescriptorPool {
    let method = |name: &str, input: &str, output: &str, streams: bool| MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(input.to_owned()),
        output_type: Some(output.to_owned()),
        server_streaming: Some(streams),
        ..Default::default()
    };
    let mut pool = lauf_wire::pool().clone();
    pool.add_file_descriptor_proto(FileDescriptorProto {
        name: Some("things.proto".to_owned()),
        package: Some("things.v1".to_owned()),
        dependency: vec![
            "google/longrunning.proto".to_owned(),
            "google/api.proto".to_owned(),
        ],
        service: vec![ServiceDescriptorProto {
            name: Some("Things".to_owned()),
            method: vec![
                method("Get", GET, OPERATION, false),
                method("Watch", LIST, OPERATION, true),
                method("Read", GET, RAW, false),
                method("ReadAll", GET, RAW, true),
                method("Put", RAW, OPERATION, false),
            ],
            ..Default::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..Default::default()
    })
    .unwrap();
    pool
}

const fn binding(
    method: &'static str,
    verb: &'static str,
    path: &'static str,
    body: &'static str,
) -> Binding {
    Binding {
        api: API,
        service: "things.v1.Things",
        method,
        verb,
        path,
        body,
    }
}

const BINDINGS: [Binding; 6] = [
    binding("Get", "GET", "/v1/{name=things/*}", ""),
    binding("Get", "POST", "/v1/{name=things/*}:get", "*"),
    binding("Watch", "GET", "/v1/{name=things/*}:watch", ""),
    binding("Read", "GET", "/v1/{name=things/*}:read", ""),
    binding("ReadAll", "GET", "/v1/{name=things/*}:readAll", ""),
    binding("Put", "POST", "/v1/things:put", "*"),
];

fn frame(message: &impl Message) -> Frame<Bytes> {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut out).unwrap();
    Frame::data(out.freeze())
}

fn end(code: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers.insert("grpc-message", HeaderValue::from_static("it%20broke"));
    Frame::trailers(trailers)
}

fn read<M: Message + Default>(body: &Bytes) -> M {
    M::decode(&body[5..]).unwrap()
}

fn operation(name: &str) -> Operation {
    Operation {
        name: name.to_owned(),
        metadata: Some(pack(&GetOperationRequest {
            name: "inside".to_owned(),
        })),
        ..Default::default()
    }
}

fn raw(content_type: &str, data: &'static str) -> HttpBody {
    HttpBody {
        content_type: content_type.to_owned(),
        data: Bytes::from_static(data.as_bytes()),
        ..Default::default()
    }
}

/// Answers as the method and the name asked for tell it to.
async fn face(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let method = path.strip_prefix("/things.v1.Things/").unwrap();
    let frames = match method {
        "Get" => vec![
            frame(&operation(&read::<GetOperationRequest>(&body).name)),
            end("0"),
        ],
        "Watch" => {
            let asked: ListOperationsRequest = read(&body);
            let count = asked.page_size;
            let mut frames: Vec<_> = (0..count)
                .map(|i| frame(&operation(&i.to_string())))
                .collect();
            frames.push(end(if asked.filter.is_empty() { "0" } else { "9" }));
            frames
        }
        "Read" => vec![frame(&raw("text/plain", "hello")), end("0")],
        "ReadAll" => vec![
            frame(&raw("text/csv", "a,b\n")),
            frame(&raw("", "c,d\n")),
            end("0"),
        ],
        "Put" => {
            let sent: HttpBody = read(&body);
            let text = String::from_utf8(sent.data.to_vec()).unwrap();
            vec![
                frame(&operation(&format!("{} {text}", sent.content_type))),
                end("0"),
            ]
        }
        other => panic!("{other}"),
    };
    let frames = futures_util::stream::iter(frames.into_iter().map(Ok::<_, Infallible>));
    Ok(Response::new(Body::new(StreamBody::new(frames))))
}

struct Answer {
    status: StatusCode,
    content_type: String,
    body: String,
}

async fn call(method: &str, path: &str, query: &str, body: &str) -> Option<Answer> {
    let transcoder = Transcoder::new(&pool(), &BINDINGS).unwrap();
    let method: Method = method.parse().unwrap();
    let found = transcoder.find(API, &method, path)?;
    let mut rest = Rest {
        query: query.to_owned(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        ..Rest::default()
    };
    let kind = HeaderValue::from_static("text/x-sent");
    rest.headers.insert("content-type", kind);
    let answer = found.answer(rest, tower::service_fn(face)).await;
    let content_type = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Some(Answer {
        status,
        content_type,
        body: String::from_utf8(body.to_vec()).unwrap(),
    })
}

async fn json(method: &str, path: &str, query: &str, body: &str) -> (StatusCode, Value) {
    let answer = call(method, path, query, body).await.unwrap();
    let text = &answer.body;
    (
        answer.status,
        serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}")),
    )
}

#[tokio::test]
async fn a_message_comes_back_with_what_is_inside() {
    let inside = json!({
        "@type": "type.googleapis.com/google.longrunning.GetOperationRequest", "name": "inside",
    });
    let (status, body) = json("GET", "/v1/things/a%20b", "", "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body, json!({"name": "things/a b", "metadata": inside}));
    // The path's variable goes before the body's field.
    let (_, body) = json("POST", "/v1/things/x:get", "", r#"{"name":"other"}"#).await;
    assert_eq!(body["name"], "things/x");
    let pretty = call("GET", "/v1/things/x", "prettyPrint=true", "")
        .await
        .unwrap();
    assert!(pretty.body.contains("\n  \"name\""));
    assert!(call("GET", "/v1/others/x", "", "").await.is_none());
}

#[tokio::test]
async fn what_contradicts_itself_is_refused() {
    for (method, path, query, body) in [
        ("GET", "/v1/things/x", "name=things/y", ""),
        ("GET", "/v1/things/x", "other=1", ""),
        ("GET", "/v1/things/x", "", "{\"name\":1}"),
        ("POST", "/v1/things/x:get", "name=things/y", ""),
        ("POST", "/v1/things/x:get", "", "[]"),
        ("POST", "/v1/things/x:get", "", "{\"other\":1}"),
    ] {
        let (status, body) = json(method, path, query, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{method} {path}?{query}");
        assert_eq!(body["error"]["status"], "INVALID_ARGUMENT");
    }
    let (status, _) = json("GET", "/v1/things/x", "name=things/x", "{}").await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_stream_is_an_array_or_events() {
    let (_, body) = json("GET", "/v1/things/x:watch", "pageSize=3", "").await;
    let names: Vec<&str> = body
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["0", "1", "2"]);
    let (_, body) = json("GET", "/v1/things/x:watch", "", "").await;
    assert_eq!(body, json!([]));
    // The error is the last element.
    for (count, length) in [(0, 1), (2, 3)] {
        let query = format!("filter=x&pageSize={count}");
        let (status, body) = json("GET", "/v1/things/x:watch", &query, "").await;
        assert_eq!(status, StatusCode::OK);
        let all = body.as_array().unwrap();
        assert_eq!(all.len(), length);
        let error = &all[length - 1]["error"];
        assert_eq!(error["status"], "FAILED_PRECONDITION");
        assert_eq!(error["message"], "it broke");
    }
    let events = call("GET", "/v1/things/x:watch", "pageSize=2&alt=sse", "")
        .await
        .unwrap();
    assert_eq!(events.content_type, "text/event-stream");
    let lines: Vec<&str> = events.body.split("\r\n\r\n").collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[1].starts_with("data: {\"name\":\"1\""),
        "{}",
        lines[1]
    );
}

#[tokio::test]
async fn raw_bodies_go_both_ways() {
    let one = call("GET", "/v1/things/x:read", "", "").await.unwrap();
    assert_eq!(
        (one.content_type.as_str(), one.body.as_str()),
        ("text/plain", "hello")
    );
    let all = call("GET", "/v1/things/x:readAll", "alt=media", "")
        .await
        .unwrap();
    assert_eq!(
        (all.content_type.as_str(), all.body.as_str()),
        ("text/csv", "a,b\nc,d\n")
    );
    let (_, body) = json("POST", "/v1/things:put", "", "not JSON {").await;
    assert_eq!(body["name"], "text/x-sent not JSON {");
}

#[test]
fn bindings_that_cannot_be_are_refused() {
    for wrong in [
        binding("Nothing", "GET", "/v1/x", ""),
        binding("Get", "GET", "no path", ""),
        binding("Get", "GET", "/v1/{nonsense=x/*}", ""),
        binding("Get", "POST", "/v1/x", "name"),
        BINDINGS[0],
    ] {
        let both = [BINDINGS[0], wrong];
        assert!(Transcoder::new(&pool(), &both).is_err(), "{wrong:?}");
    }
}

proptest! {
    /// Whatever is sent is answered, and never with a 5xx.
    #[test]
    fn anything_is_answered(
        verb in "GET|POST",
        path in "/v1/things(/[a-z%:é/]{0,8}|:put|/x:(get|watch|read|readAll))",
        query in "((name|pageSize|alt|filter)=[a-z0-9%,.]{0,4}&){0,3}",
        body in "(\\{\"(name|x)\":(1|\"a\"|null|\\{\\})\\}|[ -~]{0,9})?",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        if let Some(answer) = runtime.block_on(call(&verb, &path, &query, &body)) {
            prop_assert!(answer.status.as_u16() < 500, "{}", answer.body);
        }
    }
}
