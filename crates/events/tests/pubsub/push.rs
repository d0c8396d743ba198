//! Push: what an endpoint gets, and what its answers do.

use std::time::Duration;

use lauf_events::pubsub::{Oidc, Push, Subscription, TopicName, Unwrapped};
use lauf_events::{CallError, Identity};
use lauf_model::Code;
use serde_json::Value;

use crate::support::{Call, House};

fn push(endpoint: &str) -> Push {
    Push::new(endpoint.to_owned())
}

fn data(call: &Call) -> String {
    use base64::Engine as _;
    let body: Value = serde_json::from_slice(call.request.body()).unwrap();
    let data = body["message"]["data"].as_str().unwrap();
    let data = base64::engine::general_purpose::STANDARD
        .decode(data)
        .unwrap();
    String::from_utf8(data).unwrap()
}

#[tokio::test]
async fn messages_are_sent_with_the_identity_that_was_asked_for() {
    let mut house = House::new().await;
    let topic = house.topic("orders").await;
    let change = |s: &mut Subscription| {
        s.push = Some(Push {
            oidc: Some(Oidc {
                service_account: "push@demo.example".to_owned(),
                audience: String::new(),
            }),
            ..push("https://worker.run.localhost/in")
        });
    };
    let sub = house.subscription("work", &topic, change).await;
    house.publish(&topic, &["hello"]).await;
    let call = house.calls.recv().await.unwrap();
    assert_eq!(call.request.uri(), "https://worker.run.localhost/in");
    assert_eq!(data(&call), "hello");
    let wanted = Identity::Oidc {
        email: "push@demo.example".to_owned(),
        audience: "https://worker.run.localhost/in".to_owned(),
    };
    assert_eq!(call.identity, Some(wanted));
    call.answer.send(Ok(204)).unwrap();
    // Nobody pulls from it.
    let error = house.pubsub.pull(&sub, 1, false).await.unwrap_err();
    assert_eq!(error.code, Code::FailedPrecondition);
}

#[tokio::test]
async fn what_is_refused_is_sent_again_and_what_is_taken_is_not() {
    let mut house = House::new().await;
    let topic = house.topic("orders").await;
    let change = |s: &mut Subscription| s.push = Some(push("http://worker/"));
    house.subscription("work", &topic, change).await;
    house.publish(&topic, &["a"]).await;
    let mut call = house.calls.recv().await.unwrap();
    for answer in [
        Ok(500),
        Ok(429),
        Ok(302),
        Err(CallError::Unreachable("nobody is there".to_owned())),
    ] {
        assert_eq!(data(&call), "a");
        call.answer.send(answer).unwrap();
        call = again(&mut house, &topic).await;
    }
    assert_eq!(data(&call), "a");
    call.answer.send(Ok(200)).unwrap();
}

/// Moves the clock until what was refused is sent again. Other messages, which are taken, wake the
/// subscription up.
async fn again(house: &mut House, topic: &TopicName) -> Call {
    let mut found = None;
    loop {
        house.pass(1);
        house.publish(topic, &["other"]).await;
        loop {
            let call = house.calls.recv().await.unwrap();
            if data(&call) == "other" {
                call.answer.send(Ok(200)).unwrap();
                break;
            }
            found = Some(call);
        }
        if let Some(call) = found {
            return call;
        }
    }
}

#[tokio::test]
async fn one_message_of_a_key_is_under_way_at_a_time() {
    let mut house = House::new().await;
    let topic = house.topic("orders").await;
    let change = |s: &mut Subscription| {
        s.push = Some(push("http://worker/"));
        s.ordered = true;
    };
    house.subscription("work", &topic, change).await;
    house
        .publish_keyed(&topic, &[("k", "k1"), ("k", "k2"), ("l", "l1")])
        .await;
    let first = house.calls.recv().await.unwrap();
    let second = house.calls.recv().await.unwrap();
    let mut both = [data(&first), data(&second)];
    both.sort();
    assert_eq!(both, ["k1", "l1"]);
    assert!(house.calls.is_empty());
    first.answer.send(Ok(200)).unwrap();
    second.answer.send(Ok(200)).unwrap();
    let third = house.calls.recv().await.unwrap();
    assert_eq!(data(&third), "k2");
    third.answer.send(Ok(200)).unwrap();
}

#[tokio::test]
async fn unwrapped_messages_are_their_data() {
    let mut house = House::new().await;
    let topic = house.topic("orders").await;
    let change = |s: &mut Subscription| {
        s.push = Some(Push {
            unwrapped: Some(Unwrapped {
                write_metadata: true,
            }),
            ..push("http://worker/")
        });
    };
    house.subscription("work", &topic, change).await;
    house.publish(&topic, &["bare"]).await;
    let call = house.calls.recv().await.unwrap();
    assert_eq!(&call.request.body()[..], b"bare");
    assert!(
        call.request
            .headers()
            .contains_key("x-goog-pubsub-message-id")
    );
    call.answer.send(Ok(200)).unwrap();
}

#[tokio::test]
async fn an_endpoint_that_never_answers_holds_up_only_what_is_under_way() {
    let mut house = House::new().await;
    let topic = house.topic("orders").await;
    let change = |s: &mut Subscription| s.push = Some(push("http://worker/"));
    house.subscription("work", &topic, change).await;
    house.publish(&topic, &["x"; 100]).await;
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(house.calls.recv().await.unwrap());
    }
    // No more than the first window, however long one waits.
    house.publish(&topic, &["y"]).await;
    tokio::time::timeout(Duration::from_millis(50), house.calls.recv())
        .await
        .unwrap_err();
    held.pop().unwrap().answer.send(Ok(200)).unwrap();
    assert!(house.calls.recv().await.is_some());
}
