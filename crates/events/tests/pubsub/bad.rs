//! Bad input and bad neighbours: none of it is more than an error or a message that waits.

use std::time::Duration;

use lauf_events::pubsub::{MAX_BYTES, Message, Subscription};
use lauf_model::Code;

use crate::support::{House, a_subscription, texts};

#[tokio::test]
async fn ten_megabytes_go_through_and_one_byte_more_does_not() {
    let house = House::new().await;
    let topic = house.topic("large").await;
    let sub = house.subscription("work", &topic, |_| {}).await;
    let of = |size| Message {
        data: vec![b'x'; size].into(),
        ..Message::default()
    };
    let error = house
        .pubsub
        .publish(&topic, vec![of(MAX_BYTES + 1)])
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    house
        .pubsub
        .publish(&topic, vec![of(MAX_BYTES)])
        .await
        .unwrap();
    let got = house.pubsub.pull(&sub, 1, true).await.unwrap();
    assert_eq!(got[0].message.message.data.len(), MAX_BYTES);
}

#[tokio::test]
async fn each_wrong_field_of_a_subscription_is_named() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    type Change = fn(&mut Subscription);
    let cases: [(&str, Change); 7] = [
        ("ack_deadline_seconds", |s| {
            s.ack_deadline = Duration::from_secs(601)
        }),
        ("ack_deadline_seconds", |s| {
            s.ack_deadline = Duration::from_secs(9)
        }),
        ("message_retention_duration", |s| {
            s.retention = Duration::from_secs(599)
        }),
        ("expiration_policy.ttl", |s| {
            s.expiration = Some(Duration::from_secs(60))
        }),
        ("filter", |s| s.filter = "attributes.a = b".to_owned()),
        ("labels", |s| {
            _ = s.labels.insert("Upper".to_owned(), String::new())
        }),
        ("retry_policy.minimum_backoff", |s| {
            s.retry = Some(lauf_events::pubsub::Retry {
                minimum: Duration::from_secs(20),
                maximum: Duration::from_secs(10),
            });
        }),
    ];
    for (field, change) in cases {
        let mut spec = a_subscription("work", &topic);
        change(&mut spec);
        let error = house.pubsub.create_subscription(spec).await.unwrap_err();
        assert!(
            error.violations.iter().any(|v| v.field == field),
            "{field}: {error}"
        );
    }
}

#[tokio::test]
async fn acknowledgement_ids_of_others_are_refused() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    let one = house.subscription("one", &topic, |_| {}).await;
    let two = house.subscription("two", &topic, |_| {}).await;
    house.publish(&topic, &["a"]).await;
    let got = house.pull(&one).await;
    for id in [got[0].ack_id.clone(), "nonsense".to_owned(), String::new()] {
        let error = house.pubsub.acknowledge(&two, &[id]).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
    }
    assert_eq!(texts(&house.pull(&two).await), ["a"]);
}

#[tokio::test]
async fn a_subscriber_that_never_acknowledges_costs_others_nothing() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    let lazy = house.subscription("lazy", &topic, |_| {}).await;
    let busy = house.subscription("busy", &topic, |_| {}).await;
    for _ in 0..20 {
        house.publish(&topic, &["x"; 500]).await;
        house.pull(&lazy).await;
        let got = house.pull(&busy).await;
        assert_eq!(got.len(), 500);
        house.ack(&busy, &got).await;
    }
    house.pass(11);
    let mut again = 0;
    while again < 10_000 {
        again += house.pubsub.pull(&lazy, 1_000, true).await.unwrap().len();
    }
    assert_eq!(again, 10_000);
}

#[tokio::test]
async fn too_old_messages_are_given_up() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    let change = |s: &mut Subscription| s.retention = Duration::from_secs(600);
    let sub = house.subscription("work", &topic, change).await;
    house.publish(&topic, &["old"]).await;
    house.pass(601);
    house.publish(&topic, &["new"]).await;
    assert_eq!(texts(&house.pull(&sub).await), ["new"]);
}
