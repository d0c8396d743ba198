//! What users do, and what they see.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use lauf_events::pubsub::{
    DeadLetter, Encoding, Language, Message, Refused, Retry, SchemaName, SchemaSettings,
    SnapshotName,
};
use lauf_model::Code;

use crate::support::{House, a_subscription, a_topic, ids, text, texts};

#[tokio::test]
async fn every_subscription_gets_every_message_until_it_acknowledges() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    house.publish(&topic, &["before anybody listened"]).await;
    let one = house.subscription("one", &topic, |_| {}).await;
    let two = house.subscription("two", &topic, |_| {}).await;
    let published = house.publish(&topic, &["a", "b"]).await;
    assert_eq!(published.len(), 2);
    assert_ne!(published[0], published[1]);

    let got = house.pull(&one).await;
    assert_eq!(texts(&got), ["a", "b"]);
    assert_eq!(got[0].message.position.to_string(), published[0]);
    assert_eq!(got[0].attempt, None);
    house.ack(&one, &got[..1]).await;
    assert!(house.pull(&one).await.is_empty());
    house.pass(11);
    assert_eq!(texts(&house.pull(&one).await), ["b"]);
    assert_eq!(texts(&house.pull(&two).await), ["a", "b"]);
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    let sub = house.subscription("work", &topic, |_| {}).await;
    house.publish(&topic, &["a", "b", "c"]).await;
    let got = house.pull(&sub).await;
    house.ack(&sub, &got[1..2]).await;

    let house = house.restart().await;
    assert_eq!(texts(&house.pull(&sub).await), ["a", "c"]);
    // What was handed out before the restart may be acknowledged after it.
    house.ack(&sub, &got[..1]).await;
    house.publish(&topic, &["d"]).await;
    house.pass(11);
    let got = house.pull(&sub).await;
    assert_eq!(texts(&got), ["c", "d"]);
    house.ack(&sub, &got).await;
    let house = house.restart().await;
    assert!(house.pull(&sub).await.is_empty());
}

#[tokio::test]
async fn a_pull_waits_for_a_message() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    let sub = house.subscription("work", &topic, |_| {}).await;
    let pubsub = house.pubsub.clone();
    let waiting = tokio::spawn(async move { pubsub.pull(&sub, 10, true).await });
    house.publish(&topic, &["at last"]).await;
    assert_eq!(texts(&waiting.await.unwrap().unwrap()), ["at last"]);
}

#[tokio::test]
async fn messages_of_a_key_come_in_order_and_a_failing_one_holds_up_its_key() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    let retry = Retry {
        minimum: Duration::from_secs(10),
        maximum: Duration::from_secs(60),
    };
    let change = |s: &mut lauf_events::pubsub::Subscription| {
        s.ordered = true;
        s.retry = Some(retry);
    };
    let sub = house.subscription("work", &topic, change).await;
    house
        .publish_keyed(
            &topic,
            &[("x", "x1"), ("y", "y1"), ("x", "x2"), ("", "free")],
        )
        .await;
    let got = house.pubsub.pull(&sub, 1, false).await.unwrap();
    assert_eq!(texts(&got), ["x1"]);
    house.nack(&sub, &got).await;
    let got = house.pull(&sub).await;
    assert_eq!(texts(&got), ["y1", "free"]);
    house.pass(10);
    assert_eq!(texts(&house.pull(&sub).await)[..2], ["x1", "x2"]);
}

#[tokio::test]
async fn exactly_once_says_which_acknowledgements_count() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    let sub = house
        .subscription("work", &topic, |s| s.exactly_once = true)
        .await;
    house.publish(&topic, &["a", "b"]).await;
    let got = house.pull(&sub).await;
    house.ack(&sub, &got[..1]).await;
    let refused = house
        .pubsub
        .acknowledge(&sub, &ids(&got[..1]))
        .await
        .unwrap();
    assert_eq!(refused, [(got[0].ack_id.clone(), Refused::Stale)]);

    // The lease outlives the server.
    let house = house.restart().await;
    assert!(house.pull(&sub).await.is_empty());
    house.ack(&sub, &got[1..]).await;
    house.pass(60);
    assert!(house.pull(&sub).await.is_empty());
}

#[tokio::test]
async fn what_fails_again_and_again_goes_to_the_dead_letters() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    let dead = house.topic("dead").await;
    let morgue = house.subscription("morgue", &dead, |_| {}).await;
    let change = |s: &mut lauf_events::pubsub::Subscription| {
        s.dead_letter = Some(DeadLetter {
            topic: dead.clone(),
            max_attempts: 5,
        });
    };
    let sub = house.subscription("work", &topic, change).await;
    house.publish(&topic, &["poison"]).await;
    for attempt in 1..=5 {
        let got = house.pull(&sub).await;
        assert_eq!(got[0].attempt, Some(attempt));
        house.nack(&sub, &got).await;
    }
    let got = house.pubsub.pull(&morgue, 10, true).await.unwrap();
    assert_eq!(texts(&got), ["poison"]);
    let attributes = &got[0].message.message.attributes;
    assert_eq!(attributes["CloudPubSubDeadLetterSourceDeliveryCount"], "5");
    assert_eq!(
        attributes["CloudPubSubDeadLetterSourceSubscription"],
        "work"
    );
    house.pass(1_000);
    assert!(house.pull(&sub).await.is_empty());
}

#[tokio::test]
async fn filters_let_through_what_they_say() {
    let house = House::new().await;
    let topic = house.topic("news").await;
    let filter = "attributes.region = \"eu\" AND NOT attributes:draft".to_owned();
    let sub = house
        .subscription("europe", &topic, |s| s.filter = filter)
        .await;
    let with = |data: &str, pairs: &[(&str, &str)]| Message {
        attributes: pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        ..text(data)
    };
    let mut messages = vec![
        with("yes", &[("region", "eu")]),
        with("no", &[("region", "us")]),
        with("draft", &[("region", "eu"), ("draft", "")]),
    ];
    messages.extend((0..900).map(|_| text("none of it")));
    house
        .pubsub
        .publish(&topic, messages.clone())
        .await
        .unwrap();
    house.pubsub.publish(&topic, messages).await.unwrap();
    let got = house.pubsub.pull(&sub, 10, true).await.unwrap();
    let more = house.pull(&sub).await;
    assert_eq!(texts(&[got, more].concat()), ["yes", "yes"]);
}

#[tokio::test]
async fn one_goes_back_to_a_time_and_to_a_snapshot() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    let sub = house
        .subscription("work", &topic, |s| s.retain_acked = true)
        .await;
    house.publish(&topic, &["early"]).await;
    house.pass(60);
    let noon = Timestamp::from_second(30).unwrap();
    house.publish(&topic, &["late"]).await;
    let got = house.pull(&sub).await;
    house.ack(&sub, &got[..1]).await;
    let name = SnapshotName::parse("", "projects/demo/snapshots/keep").unwrap();
    let snapshot = house
        .pubsub
        .create_snapshot(&name, &sub, BTreeMap::new())
        .await;
    assert!(snapshot.unwrap().expires > noon);
    house.ack(&sub, &got[1..]).await;

    house.pubsub.seek_to_time(&sub, noon).await.unwrap();
    assert_eq!(texts(&house.pull(&sub).await), ["late"]);
    house
        .pubsub
        .seek_to_time(&sub, Timestamp::UNIX_EPOCH)
        .await
        .unwrap();
    assert_eq!(texts(&house.pull(&sub).await), ["early", "late"]);
    let house = house.restart().await;
    house.pubsub.seek_to_snapshot(&sub, &name).await.unwrap();
    assert_eq!(texts(&house.pull(&sub).await), ["late"]);
    // Into the future: all that there is is done.
    let later = Timestamp::from_second(10_000).unwrap();
    house.pubsub.seek_to_time(&sub, later).await.unwrap();
    house.pass(100);
    assert!(house.pull(&sub).await.is_empty());

    let other = house.topic("other").await;
    let stranger = house.subscription("stranger", &other, |_| {}).await;
    let error = house
        .pubsub
        .seek_to_snapshot(&stranger, &name)
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::FailedPrecondition);
    house.pubsub.delete_snapshot(&name).await.unwrap();
    assert_eq!(
        house.pubsub.snapshot(&name).unwrap_err().code,
        Code::NotFound
    );
}

#[tokio::test]
async fn a_topic_goes_and_its_subscriptions_stay() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    let sub = house.subscription("work", &topic, |_| {}).await;
    house.publish(&topic, &["last"]).await;
    house.pubsub.delete_topic(&topic).await.unwrap();
    let found = house.pubsub.subscription(&sub).unwrap();
    assert_eq!(found.topic_name(), "_deleted-topic_");
    let refused = house.pubsub.publish(&topic, vec![text("x")]).await;
    assert_eq!(refused.unwrap_err().code, Code::NotFound);

    // Another topic of that name is another topic.
    let again = house.topic("orders").await;
    house.publish(&again, &["new"]).await;
    let house = house.restart().await;
    assert_eq!(texts(&house.pull(&sub).await), ["last"]);
    let names = house
        .pubsub
        .list_topic_subscriptions(&again, 0, "")
        .unwrap();
    assert!(names.items.is_empty());
    house.pubsub.delete_subscription(&sub).await.unwrap();
    let gone = house.pubsub.pull(&sub, 1, false).await.unwrap_err();
    assert_eq!(gone.code, Code::NotFound);
}

#[tokio::test]
async fn a_detached_subscription_says_so() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    let sub = house.subscription("work", &topic, |_| {}).await;
    let second = Duration::from_secs(30);
    let mut stream = house.pubsub.subscribe(&sub, 0, 0, second).await.unwrap();
    house.pubsub.detach_subscription(&sub).await.unwrap();
    let end = stream.next().await.unwrap().unwrap_err();
    assert_eq!(end.code, Code::FailedPrecondition);
    let error = house.pubsub.pull(&sub, 1, true).await.unwrap_err();
    assert_eq!(error.code, Code::FailedPrecondition);
    let names = house
        .pubsub
        .list_topic_subscriptions(&topic, 0, "")
        .unwrap();
    assert!(names.items.is_empty());
}

#[tokio::test]
async fn streams_get_what_they_take_and_share_the_rest() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    let sub = house.subscription("work", &topic, |_| {}).await;
    let deadline = Duration::from_secs(30);
    let mut small = house.pubsub.subscribe(&sub, 2, 0, deadline).await.unwrap();
    house.publish(&topic, &["a", "b", "c"]).await;
    let got = small.next().await.unwrap().unwrap();
    assert_eq!(texts(&got), ["a", "b"]);
    let mut other = house.pubsub.subscribe(&sub, 0, 0, deadline).await.unwrap();
    assert_eq!(texts(&other.next().await.unwrap().unwrap()), ["c"]);
    house.publish(&topic, &["d"]).await;
    assert_eq!(texts(&other.next().await.unwrap().unwrap()), ["d"]);
    // Room again.
    house.ack(&sub, &got).await;
    drop(other);
    house.publish(&topic, &["e"]).await;
    let mut more = Vec::new();
    while more.last() != Some(&"e".to_owned()) {
        let got = small.next().await.unwrap().unwrap();
        more.extend(texts(&got).into_iter().map(str::to_owned));
        house.ack(&sub, &got).await;
    }
    assert_eq!(more, ["e"]);
}

#[tokio::test]
async fn messages_must_be_what_the_schema_says() {
    let house = House::new().await;
    let name = SchemaName::parse("", "projects/demo/schemas/person").unwrap();
    let first = r#"{"type":"record","name":"P","fields":[{"name":"name","type":"string"}]}"#;
    let made = house
        .pubsub
        .create_schema(&name, Language::Avro, first)
        .await
        .unwrap();
    let mut spec = a_topic("people");
    spec.schema = Some(SchemaSettings {
        schema: Some(name.clone()),
        encoding: Encoding::Json,
        first_revision: String::new(),
        last_revision: String::new(),
    });
    let topic = house.pubsub.create_topic(spec).await.unwrap().name;
    let sub = house.subscription("work", &topic, |_| {}).await;
    house.publish(&topic, &[r#"{"name":"Ann"}"#]).await;
    let wrong = house
        .pubsub
        .publish(&topic, vec![text(r#"{"age":7}"#)])
        .await;
    let error = wrong.unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.message.contains("$.name is missing"), "{error}");

    // A new revision allows for more, and the old one still counts.
    let second = r#"{"type":"record","name":"P","fields":[{"name":"age","type":"int"}]}"#;
    let newer = house
        .pubsub
        .commit_schema(&name, Language::Avro, second)
        .await
        .unwrap();
    let house = house.restart().await;
    house
        .publish(&topic, &[r#"{"age":7}"#, r#"{"name":"Bob"}"#])
        .await;
    let got = house.pull(&sub).await;
    let revision =
        |n: usize| got[n].message.message.attributes["googclient_schemarevisionid"].clone();
    assert_eq!(
        [revision(0), revision(1), revision(2)],
        [made.id.clone(), newer.id.clone(), made.id.clone()]
    );

    let pubsub = &house.pubsub;
    pubsub
        .delete_schema_revision(&name, &newer.id)
        .await
        .unwrap();
    let error = pubsub
        .delete_schema_revision(&name, &made.id)
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument, "the only one: {error}");

    house.pubsub.delete_schema(&name).await.unwrap();
    let error = house
        .pubsub
        .publish(&topic, vec![text("x")])
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::NotFound);
}

#[tokio::test]
async fn lists_come_in_pages_and_names_are_taken_once() {
    let house = House::new().await;
    for n in 0..7 {
        house.topic(&format!("topic-{n}")).await;
    }
    let taken = house
        .pubsub
        .create_topic(a_topic("topic-3"))
        .await
        .unwrap_err();
    assert_eq!(taken.code, Code::AlreadyExists);
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let page = house.pubsub.list_topics("demo", 3, &token).unwrap();
        names.extend(page.items.into_iter().map(|topic| topic.name.id));
        token = page.next;
        if token.is_empty() {
            break;
        }
    }
    let wanted: Vec<_> = (0..7).map(|n| format!("topic-{n}")).collect();
    assert_eq!(names, wanted);
    assert!(
        house
            .pubsub
            .list_topics("other", 3, "")
            .unwrap()
            .items
            .is_empty()
    );
    assert!(house.pubsub.list_topics("demo", 3, "!").is_err());
}

#[tokio::test]
async fn changes_name_their_fields() {
    let house = House::new().await;
    let topic = house.topic("orders").await;
    let sub = house.subscription("work", &topic, |_| {}).await;
    let mut spec = a_subscription("work", &topic);
    spec.ack_deadline = Duration::from_secs(60);
    spec.filter = "attributes:x".to_owned();
    let paths = ["ack_deadline_seconds".to_owned()];
    let changed = house
        .pubsub
        .update_subscription(spec.clone(), &paths)
        .await
        .unwrap();
    assert_eq!(changed.ack_deadline.as_secs(), 60);
    assert_eq!(changed.filter, "");
    let error = house
        .pubsub
        .update_subscription(spec, &["filter".to_owned()])
        .await;
    let error = error.unwrap_err();
    assert!(
        error.message.contains("'filter' cannot be updated"),
        "{error}"
    );
    house.publish(&topic, &["a"]).await;
    house.pull(&sub).await;
    house.pass(59);
    assert!(house.pull(&sub).await.is_empty());
}
