//! Publishing, pulling, acknowledging, going back.

use std::time::Duration;

use jiff::Timestamp;
use lauf_model::{Code, Status, Violation};
use tokio::sync::oneshot;

use super::super::ack_id::AckId;
use super::super::backlog::Appetite;
use super::super::message::Message;
use super::super::names::{SubscriptionName, TopicName};
use super::super::resource::not_found;
use super::super::subscription::{Ask, Delivered, Refused, Subscriber};
use super::super::topics::stream_of;
use super::{OpenSubscription, PubSub};
use crate::log::failed;

/// The most acknowledgements in one request. Google bounds the request's bytes, to about as many.
const MAX_IDS: usize = 10_000;
/// What a subscriber that names no limit gets at a time.
const DEFAULT_MESSAGES: usize = 10_000;
const DEFAULT_BYTES: usize = 100 << 20;

/// Acknowledgements that did not count, with their ids.
pub type RefusedIds = Vec<(String, Refused)>;

impl PubSub {
    /// Publishes messages, all or none. They are durable when their ids come back.
    ///
    /// # Errors
    /// When there is no such topic, a limit is passed, the topic's schema says no, or too much waits.
    pub async fn publish(
        &self,
        topic: &TopicName,
        messages: Vec<Message>,
    ) -> Result<Vec<String>, Status> {
        let positions = self.0.topics.publish(topic, messages).await?;
        Ok(positions.iter().map(ToString::to_string).collect())
    }

    /// Fetches up to `messages` messages. Waits some seconds for the first, if `wait`.
    ///
    /// # Errors
    /// When there is no such subscription, it is detached or sends its messages, or too many wait.
    pub async fn pull(
        &self,
        name: &SubscriptionName,
        messages: usize,
        wait: bool,
    ) -> Result<Vec<Delivered>, Status> {
        if messages == 0 {
            return Err(Status::invalid(vec![Violation::new(
                "max_messages",
                "It must be at least 1.",
            )]));
        }
        let open = self.pulled(name)?;
        let (reply, answer) = oneshot::channel();
        let ask = Ask::Pull {
            messages,
            wait,
            reply,
        };
        self.ask(&open, ask).await?;
        answer.await.unwrap_or_else(|_| Err(not_found(name)))
    }

    /// Lets somebody get messages as they come: at most so many, and bytes of them, at a time, and
    /// 0 for no limit of its own.
    ///
    /// # Errors
    /// As [`PubSub::pull`].
    pub async fn subscribe(
        &self,
        name: &SubscriptionName,
        messages: usize,
        bytes: usize,
        ack_deadline: Duration,
    ) -> Result<Subscriber, Status> {
        check_deadline("stream_ack_deadline_seconds", ack_deadline, 10)?;
        let open = self.pulled(name)?;
        let or = |value: usize, other: usize| if value == 0 { other } else { value };
        let appetite = Appetite {
            messages: or(messages, DEFAULT_MESSAGES),
            bytes: or(bytes, DEFAULT_BYTES),
            of_one_key: usize::MAX,
            ack_deadline: Some(ack_deadline),
        };
        let (reply, answer) = oneshot::channel();
        self.ask(&open, Ask::Join(appetite, reply)).await?;
        answer.await.unwrap_or_else(|_| Err(not_found(name)))
    }

    fn pulled(&self, name: &SubscriptionName) -> Result<std::sync::Arc<OpenSubscription>, Status> {
        let open = self.in_use(name)?;
        if open.config.push.is_some() {
            return Err(Status::new(
                Code::FailedPrecondition,
                format!(
                    "This method is not supported for this subscription type: {name} sends its \
                     messages to an endpoint. Remove its push_config first."
                ),
            ));
        }
        Ok(open)
    }

    /// Says that messages are done. The ids that did not count are returned; there are such only where
    /// delivery is exactly once.
    ///
    /// # Errors
    /// When there is no such subscription, or something is no id of it.
    pub async fn acknowledge(
        &self,
        name: &SubscriptionName,
        ids: &[String],
    ) -> Result<RefusedIds, Status> {
        let open = self.in_use(name)?;
        let (known, mut refused) = read_ids(&open, ids)?;
        let (reply, answer) = oneshot::channel();
        let asked = known.iter().map(|(_, id)| *id).collect();
        self.ask(&open, Ask::Ack(asked, reply)).await?;
        let results = answer.await.map_err(|_| not_found(name))?;
        note_refused(&known, &results, &mut refused);
        Ok(refused)
    }

    /// Gives messages another deadline from now, 0 to give them back. The ids that did not count are
    /// returned; there are such only where delivery is exactly once.
    ///
    /// # Errors
    /// When there is no such subscription, something is no id of it, or a deadline is too long.
    pub async fn modify_ack_deadline(
        &self,
        name: &SubscriptionName,
        ids: &[String],
        deadlines: &[Duration],
    ) -> Result<RefusedIds, Status> {
        for deadline in deadlines {
            check_deadline("ack_deadline_seconds", *deadline, 0)?;
        }
        let open = self.in_use(name)?;
        let (known, mut refused) = read_ids(&open, ids)?;
        let (reply, answer) = oneshot::channel();
        // One deadline for each id, or one for all.
        let one = deadlines.first().copied().unwrap_or_default();
        let asked = known
            .iter()
            .map(|(n, id)| (*id, deadlines.get(n.0).copied().unwrap_or(one)))
            .collect();
        self.ask(&open, Ask::Modify(asked, reply)).await?;
        let results = answer.await.map_err(|_| not_found(name))?;
        note_refused(&known, &results, &mut refused);
        Ok(refused)
    }

    /// Goes to a time: what was published before it is done, and what was published after it is not,
    /// as far as it is kept.
    ///
    /// # Errors
    /// When there is no such subscription, or the log fails.
    pub async fn seek_to_time(
        &self,
        name: &SubscriptionName,
        time: Timestamp,
    ) -> Result<(), Status> {
        let open = self.in_use(name)?;
        let stream = stream_of(&open.config.topic_uid);
        let position = self.log().position_at(&stream, time).await;
        let position = position.map_err(|error| failed(&error))?;
        let (reply, answer) = oneshot::channel();
        self.ask(&open, Ask::Seek(position, reply)).await?;
        answer.await.unwrap_or_else(|_| Err(not_found(name)))
    }

    pub(super) async fn ask(&self, open: &OpenSubscription, ask: Ask) -> Result<(), Status> {
        let sent = open.handle.mailbox.send(ask).await;
        sent.map_err(|_| not_found(&open.config.name))
    }
}

type Known = Vec<((usize, String), AckId)>;

fn read_ids(open: &OpenSubscription, ids: &[String]) -> Result<(Known, RefusedIds), Status> {
    if ids.is_empty() || ids.len() > MAX_IDS {
        return Err(Status::invalid(vec![Violation::new(
            "ack_ids",
            format!("{} ids; 1 to {MAX_IDS} are allowed.", ids.len()),
        )]));
    }
    let mut known = Vec::with_capacity(ids.len());
    let mut refused = Vec::new();
    for (n, text) in ids.iter().enumerate() {
        match AckId::from_text(text, open.handle.tag) {
            Some(id) => known.push(((n, text.clone()), id)),
            None if open.config.exactly_once => refused.push((text.clone(), Refused::Stale)),
            None => {
                return Err(Status::new(
                    Code::InvalidArgument,
                    format!(
                        "You have passed an invalid ack ID to the service (ack_id={text}): it is \
                         none of subscription {}.",
                        open.config.name
                    ),
                ));
            }
        }
    }
    Ok((known, refused))
}

fn note_refused(known: &Known, results: &[Result<(), Refused>], refused: &mut RefusedIds) {
    for (((_, text), _), result) in known.iter().zip(results) {
        if let Err(why) = result {
            refused.push((text.clone(), *why));
        }
    }
}

fn check_deadline(field: &str, deadline: Duration, least: u64) -> Result<(), Status> {
    if (least..=600).contains(&deadline.as_secs()) {
        return Ok(());
    }
    Err(Status::invalid(vec![Violation::new(
        field,
        format!(
            "{} s is out of range: {least} to 600 are allowed.",
            deadline.as_secs()
        ),
    )]))
}
