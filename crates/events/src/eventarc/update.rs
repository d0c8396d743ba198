//! Changing a trigger: where its events go, which they are, on whose behalf, and its labels.

use lauf_model::{Status, Violation};

use super::name::TriggerName;
use super::service::{Eventarc, push};
use super::trigger::{Spec, Trigger};

impl Eventarc {
    /// Changes a trigger. `change` gets what it is and gives what it is to be. Events that wait go where
    /// the change says, too.
    ///
    /// # Errors
    /// When there is none, something is wrong with the change, or it is of what cannot be changed: the
    /// type of events, the channel and the topic.
    pub async fn update(
        &self,
        name: &TriggerName,
        change: impl FnOnce(&Trigger) -> Result<Spec, Status>,
    ) -> Result<Trigger, Status> {
        let _admin = self.admin().await;
        let old = self.get(name)?;
        let spec = change(&old)?;
        spec.check()?;
        let fixed = [
            ("trigger.event_filters", spec.kind() == old.spec.kind()),
            ("trigger.channel", spec.channel == old.spec.channel),
            ("trigger.transport", spec.topic == old.spec.topic),
        ];
        let wrong = fixed.into_iter().filter(|(_, same)| !same);
        let wrong: Vec<Violation> = wrong
            .map(|(field, _)| {
                Violation::new(
                    field,
                    "The type of events, the channel and the topic cannot be changed; delete the trigger \
                     and create it anew.",
                )
            })
            .collect();
        if !wrong.is_empty() {
            return Err(Status::invalid(wrong));
        }
        let trigger = Trigger {
            spec,
            updated: Some(self.now()),
            ..old
        };
        // What is asked for is stored first: a start that finds the subscription behind it makes up for it.
        self.put(&trigger).await?;
        self.keep(trigger.clone());
        let pushed = self
            .pubsub()
            .modify_push(&trigger.subscription, Some(push(&trigger)));
        pushed.await?;
        Ok(trigger)
    }
}
