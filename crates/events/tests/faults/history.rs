//! The judge: reads what happened, line by line, and says which promise was broken.
//!
//! A history is told by whoever publishes, subscribes and is called, not by the server. What is asked
//! for is told before it is asked, what was answered after the answer came, so that whatever is killed
//! in between is neither believed nor denied:
//!
//! ```text
//! rules SUB TOPIC [exactly-once] [ordered]   a subscription that was there before all messages
//! start                                      a server starts; what the one before had handed out is void
//! send TOPIC KEY N     sent TOPIC KEY N      a publish is asked for, was acknowledged; N grows
//! got SUB KEY N                              a subscriber got a message
//! nack SUB KEY N                             it gives it back, or refuses it
//! acking SUB KEY N     acked SUB KEY N       it says that it is done, was told that this counts
//! job NAME             made NAME             a scheduled job is asked for, is there
//! ask NAME             asked NAME            a run of it is asked for, was promised
//! ran NAME TIME        did NAME TIME         a run of a time came, and was answered well
//! ```
//!
//! A queue of tasks is a subscription whose messages are its tasks; a task that is deleted is done.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

/// One message, or task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Message {
    key: String,
    number: u64,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.number)
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A subscriber got what nobody published.
    Unpublished(String, Message),
    /// What was acknowledged to its publisher is not done with a subscription.
    Lost(String, Message),
    /// A subscriber got again what it was told is done. Exactly once.
    Again(String, Message),
    /// A subscriber got again what is with it. Exactly once.
    Twice(String, Message),
    /// A subscriber got a message before an earlier one of its key. Ordered.
    OutOfOrder(String, Message, u64),
    /// A job ran that nobody made.
    Unmade(String),
    /// A job ran for a time before one that it had run for.
    Backwards(String, u64),
    /// A job ran for a time again after it had succeeded, with the same server.
    RanTwice(String, u64),
    /// A job that was made did not run with the last server, though its time had come.
    JobLost(String),
    /// A run that was promised did not come.
    RunForgotten(String),
    /// A line that cannot be understood.
    Unread(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unpublished(sub, m) => write!(f, "{sub} got {m}, which nobody published"),
            Self::Lost(sub, m) => write!(f, "{sub} is not done with {m}, which was published"),
            Self::Again(sub, m) => {
                write!(f, "{sub} got {m} again after it was told that it is done")
            }
            Self::Twice(sub, m) => write!(f, "{sub} got {m} again while it has it"),
            Self::OutOfOrder(sub, m, missing) => write!(f, "{sub} got {m} before {missing}"),
            Self::Unmade(job) => write!(f, "job {job} ran, which nobody made"),
            Self::Backwards(job, time) => write!(f, "job {job} ran for {time} after a later time"),
            Self::RanTwice(job, time) => write!(f, "job {job} ran for {time} after that was done"),
            Self::JobLost(job) => write!(f, "job {job} does not run any more"),
            Self::RunForgotten(job) => write!(f, "job {job} was to run and did not"),
            Self::Unread(line) => write!(f, "'{line}' is no line of a history"),
        }
    }
}

/// What happened to the messages of a topic.
#[derive(Debug, Default)]
struct Topic {
    asked: HashSet<Message>,
    /// Those that are there for certain, by key: acknowledged to the publisher, or seen.
    certain: HashMap<String, BTreeSet<u64>>,
    subscriptions: Vec<String>,
}

#[derive(Debug, Default)]
struct Subscription {
    topic: String,
    exactly_once: bool,
    ordered: bool,
    /// Said to be done; perhaps it counts.
    acking: HashSet<Message>,
    /// It counts.
    acked: HashSet<Message>,
    /// With a subscriber of the server that runs.
    held: BTreeMap<String, BTreeSet<u64>>,
    /// The highest number of each key that it got, of keys in order.
    reached: HashMap<String, u64>,
    /// All that it got, of keys in order.
    seen: HashSet<Message>,
    /// Every message of a key before this one was said to be done: nothing to look at twice.
    done_before: HashMap<String, u64>,
}

#[derive(Debug, Default)]
struct Job {
    made: bool,
    last: Option<u64>,
    /// The time for which it succeeded with the server that runs.
    did: Option<u64>,
    ran_since_start: bool,
    /// Runs that were asked for and have not come.
    awaited: bool,
    promised: bool,
}

/// What happened, as far as it matters for what may happen.
#[derive(Debug, Default)]
pub(crate) struct History {
    topics: HashMap<String, Topic>,
    subscriptions: BTreeMap<String, Subscription>,
    jobs: BTreeMap<String, Job>,
    /// What was published and is not done, by subscription.
    open: BTreeSet<(String, Message)>,
}

impl History {
    /// Hears one line.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub(crate) fn hear(&mut self, line: &str) -> Result<(), Violation> {
        let unread = || Violation::Unread(line.to_owned());
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["start"] => {
                self.start();
                Ok(())
            }
            ["rules", sub, topic, rules @ ..] => {
                self.rules(sub, topic, rules);
                Ok(())
            }
            ["job" | "made" | "ask" | "asked", name] => {
                self.promise(words[0], name);
                Ok(())
            }
            ["ran", name, time] => self.ran(name, time.parse().map_err(|_| unread())?),
            ["did", name, time] => {
                let job = self.jobs.entry((*name).to_owned()).or_default();
                job.did = Some(time.parse().map_err(|_| unread())?);
                Ok(())
            }
            [what, place, key, number] => {
                let message = Message {
                    key: (*key).to_owned(),
                    number: number.parse().map_err(|_| unread())?,
                };
                match *what {
                    "send" => {
                        let topic = self.topics.entry((*place).to_owned()).or_default();
                        topic.asked.insert(message);
                        Ok(())
                    }
                    "sent" => {
                        self.sent(place, message);
                        Ok(())
                    }
                    "got" => self.got(place, message),
                    "nack" | "acking" | "acked" => self.answered(what, place, message),
                    _ => Err(unread()),
                }
            }
            _ => Err(unread()),
        }
    }

    fn start(&mut self) {
        for subscription in self.subscriptions.values_mut() {
            subscription.held.clear();
        }
        for job in self.jobs.values_mut() {
            job.ran_since_start = false;
            job.did = None;
        }
    }

    fn rules(&mut self, sub: &str, topic: &str, rules: &[&str]) {
        let subscriptions = &mut self
            .topics
            .entry(topic.to_owned())
            .or_default()
            .subscriptions;
        if !subscriptions.iter().any(|known| known == sub) {
            subscriptions.push(sub.to_owned());
        }
        let subscription = self.subscriptions.entry(sub.to_owned()).or_default();
        topic.clone_into(&mut subscription.topic);
        subscription.exactly_once = rules.contains(&"exactly-once");
        subscription.ordered = rules.contains(&"ordered");
    }

    fn sent(&mut self, topic: &str, message: Message) {
        let topic = self.topics.entry(topic.to_owned()).or_default();
        let of_key = topic.certain.entry(message.key.clone()).or_default();
        of_key.insert(message.number);
        for sub in &topic.subscriptions {
            let done = self.subscriptions.get(sub);
            // The subscriber may be quicker than the publisher's answer.
            if done.is_none_or(|sub| !sub.acking.contains(&message)) {
                self.open.insert((sub.clone(), message.clone()));
            }
        }
    }

    fn got(&mut self, sub: &str, message: Message) -> Result<(), Violation> {
        let name = sub.to_owned();
        let unknown = || Violation::Unpublished(name.clone(), message.clone());
        let subscription = self.subscriptions.get_mut(sub).ok_or_else(unknown)?;
        let topic = self
            .topics
            .get_mut(&subscription.topic)
            .ok_or_else(unknown)?;
        if !topic.asked.contains(&message) {
            return Err(unknown());
        }
        if subscription.exactly_once && subscription.acked.contains(&message) {
            return Err(Violation::Again(name, message));
        }
        let certain = topic.certain.entry(message.key.clone()).or_default();
        certain.insert(message.number);
        let held = subscription.held.entry(message.key.clone()).or_default();
        if held.contains(&message.number) {
            if subscription.exactly_once {
                return Err(Violation::Twice(name, message));
            }
            // It was taken back, and those after it with it.
            held.split_off(&message.number);
        }
        if subscription.ordered {
            let reached = subscription.reached.entry(message.key.clone()).or_default();
            if subscription.seen.insert(message.clone()) && message.number < *reached {
                let later = Message {
                    number: *reached,
                    ..message.clone()
                };
                return Err(Violation::OutOfOrder(name, later, message.number));
            }
            *reached = message.number.max(*reached);
            let from = subscription
                .done_before
                .entry(message.key.clone())
                .or_default();
            for &earlier in certain.range(..message.number).rev() {
                if earlier < *from {
                    break;
                }
                let one = Message {
                    key: message.key.clone(),
                    number: earlier,
                };
                if !held.contains(&earlier) && !subscription.acking.contains(&one) {
                    return Err(Violation::OutOfOrder(name, message, earlier));
                }
            }
            // Of what was done long ago, nothing is looked at twice.
            let mut between = certain.range(*from..message.number.max(*from));
            let all_done = between.all(|number| {
                subscription.acking.contains(&Message {
                    key: message.key.clone(),
                    number: *number,
                })
            });
            if all_done {
                *from = message.number.max(*from);
            }
        }
        held.insert(message.number);
        Ok(())
    }

    fn answered(&mut self, what: &str, sub: &str, message: Message) -> Result<(), Violation> {
        let unknown = || Violation::Unread(format!("{what} {sub} {message}"));
        let subscription = self.subscriptions.get_mut(sub).ok_or_else(unknown)?;
        let held = subscription.held.entry(message.key.clone()).or_default();
        if what == "nack" {
            if subscription.ordered {
                held.split_off(&message.number);
            } else {
                held.remove(&message.number);
            }
            return Ok(());
        }
        held.remove(&message.number);
        if what == "acked" {
            subscription.acked.insert(message.clone());
        }
        self.open.remove(&(sub.to_owned(), message.clone()));
        subscription.acking.insert(message);
        Ok(())
    }

    fn promise(&mut self, what: &str, name: &str) {
        let job = self.jobs.entry(name.to_owned()).or_default();
        match what {
            "made" => job.made = true,
            "ask" => job.awaited = true,
            "asked" => job.promised = true,
            _ => {}
        }
    }

    fn ran(&mut self, name: &str, time: u64) -> Result<(), Violation> {
        let Some(job) = self.jobs.get_mut(name) else {
            return Err(Violation::Unmade(name.to_owned()));
        };
        if job.last.is_some_and(|last| time < last) {
            return Err(Violation::Backwards(name.to_owned(), time));
        }
        if job.did == Some(time) {
            return Err(Violation::RanTwice(name.to_owned(), time));
        }
        job.last = Some(time);
        job.ran_since_start = true;
        job.awaited = false;
        Ok(())
    }

    /// What has been promised and has not come. A job whose name begins with `once` runs when it is
    /// asked to; all others have a time that has come since the last start.
    pub(crate) fn missing(&self) -> Option<Violation> {
        if let Some((sub, message)) = self.open.first() {
            return Some(Violation::Lost(sub.clone(), message.clone()));
        }
        self.jobs.iter().find_map(|(name, job)| {
            let once = name.starts_with("once");
            if job.promised && job.awaited {
                Some(Violation::RunForgotten(name.clone()))
            } else if job.made && !once && !job.ran_since_start {
                Some(Violation::JobLost(name.clone()))
            } else {
                None
            }
        })
    }

    /// How much has been promised of messages and has not come.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(lines: &str) -> Result<History, Violation> {
        let mut history = History::default();
        for line in lines.split(';') {
            history.hear(line.trim())?;
        }
        Ok(history)
    }

    fn broken(lines: &str) -> String {
        hear(lines).unwrap_err().to_string()
    }

    const EXACT: &str = "rules s t exactly-once ordered; start; \
                         send t a 1; send t a 2; send t a 3; sent t a 1; sent t a 2; sent t a 3; ";

    #[test]
    fn a_good_history_is_good() {
        let lines = "got s a 1; got s a 2; nack s a 2; acking s a 1; acked s a 1; got s a 2; \
                     got s a 3; acking s a 2; acked s a 2; start; got s a 3; acking s a 3; acked s a 3";
        let history = hear(&format!("{EXACT}{lines}")).unwrap();
        assert_eq!((history.missing(), history.open()), (None, 0));
    }

    #[test]
    fn what_nobody_published_is_noticed() {
        let said = broken(&format!("{EXACT}got s a 4"));
        assert_eq!(said, "s got a 4, which nobody published");
        // Of another topic.
        let said = broken(&format!("{EXACT}send other b 1; got s b 1"));
        assert_eq!(said, "s got b 1, which nobody published");
    }

    #[test]
    fn what_is_lost_is_noticed() {
        let lines = "got s a 1; acking s a 1; got s a 2; nack s a 2";
        let history = hear(&format!("{EXACT}{lines}")).unwrap();
        assert_eq!(history.open(), 2);
        let said = history.missing().unwrap().to_string();
        assert_eq!(said, "s is not done with a 2, which was published");
        // One that was not acknowledged to the publisher may be lost.
        let history = hear("rules s t; start; send t a 1").unwrap();
        assert_eq!(history.missing(), None);
        // A subscriber that is quicker than the answer.
        let history = hear("rules s t; send t a 1; got s a 1; acking s a 1; sent t a 1").unwrap();
        assert_eq!(history.missing(), None);
    }

    #[test]
    fn what_comes_again_after_it_was_done_is_noticed() {
        let lines = "got s a 1; acking s a 1; acked s a 1; start; got s a 1";
        let said = broken(&format!("{EXACT}{lines}"));
        assert_eq!(said, "s got a 1 again after it was told that it is done");
        // It may, if nobody was told, or nothing was promised.
        hear(&format!("{EXACT}got s a 1; acking s a 1; start; got s a 1")).unwrap();
        let plain = EXACT.replace("exactly-once", "");
        hear(&format!("{plain}{lines}")).unwrap();
        // A task that was deleted.
        let said =
            broken("rules q t exactly-once; send t a 1; acking q a 1; acked q a 1; got q a 1");
        assert_eq!(said, "q got a 1 again after it was told that it is done");
    }

    #[test]
    fn what_comes_again_while_it_is_held_is_noticed() {
        let said = broken(&format!("{EXACT}got s a 1; got s a 1"));
        assert_eq!(said, "s got a 1 again while it has it");
        hear(&format!("{EXACT}got s a 1; start; got s a 1")).unwrap();
        hear(&format!("{EXACT}got s a 1; nack s a 1; got s a 1")).unwrap();
    }

    #[test]
    fn disorder_is_noticed() {
        let begins = [
            ("got s a 2", "s got a 2 before 1"),
            ("got s a 1; acking s a 1; got s a 3", "s got a 3 before 2"),
            (
                "got s a 1; got s a 2; start; got s a 2",
                "s got a 2 before 1",
            ),
            ("got s a 1; nack s a 1; got s a 2", "s got a 2 before 1"),
            (
                "got s a 1; got s a 2; nack s a 1; got s a 1; got s a 3",
                "s got a 3 before 2",
            ),
        ];
        for (lines, wanted) in begins {
            assert_eq!(broken(&format!("{EXACT}{lines}")), wanted);
        }
        // One that nobody was told about need not be there; one that was seen must be.
        hear("rules s t ordered; send t a 1; send t a 2; got s a 2").unwrap();
        let seen = "rules s t ordered; rules o t; send t a 1; send t a 2; got o a 1; got s a 2";
        assert_eq!(broken(seen), "s got a 2 before 1");
        // It need not be, but must not come late.
        let late = "rules s t ordered; send t a 1; send t a 2; got s a 2; start; got s a 1";
        assert_eq!(broken(late), "s got a 2 before 1");
        // What was done may come again where that is all that is promised.
        let again = "got s a 1; acking s a 1; got s a 2; acking s a 2; got s a 3; got s a 1";
        hear(&format!("{}{again}", EXACT.replace("exactly-once", ""))).unwrap();
        // Another key, and a suffix that is repeated.
        hear(&format!("{EXACT}send t b 4; got s b 4; got s a 1")).unwrap();
        let plain = EXACT.replace("exactly-once", "");
        hear(&format!(
            "{plain}got s a 1; got s a 2; got s a 1; got s a 2; got s a 3"
        ))
        .unwrap();
        let gap = "got s a 1; got s a 2; got s a 1; got s a 3";
        assert_eq!(broken(&format!("{plain}{gap}")), "s got a 3 before 2");
    }

    #[test]
    fn runs_that_break_a_promise_are_noticed() {
        let made = "start; job j; made j; ";
        assert_eq!(broken("ran j 5"), "job j ran, which nobody made");
        let back = format!("{made}ran j 9; start; ran j 5");
        assert_eq!(broken(&back), "job j ran for 5 after a later time");
        let twice = format!("{made}ran j 5; did j 5; ran j 5");
        assert_eq!(broken(&twice), "job j ran for 5 after that was done");
        // Again after it failed, and after a kill.
        hear(&format!("{made}ran j 5; ran j 5; did j 5; start; ran j 5")).unwrap();
        let missing = |lines: &str| {
            let history = hear(&format!("{made}{lines}")).unwrap();
            history.missing().map(|missing| missing.to_string())
        };
        let lost = Some("job j does not run any more".to_owned());
        assert_eq!(missing("ran j 5; start"), lost);
        assert_eq!(missing("ran j 5; start; ran j 5"), None);
        let forgotten = Some("job once was to run and did not".to_owned());
        let once = "ran j 5; job once; made once; ask once; asked once";
        assert_eq!(missing(once), forgotten);
        assert_eq!(missing(&format!("{once}; ran once 7")), None);
    }

    #[test]
    fn a_line_that_says_nothing_is_noticed() {
        for line in ["", "got s a", "got s a x", "lost s a 1", "ran j soon"] {
            let said = broken(line);
            assert_eq!(said, format!("'{line}' is no line of a history"));
        }
    }
}
