//! Annotations that stand for fields of the model, in both directions.
//!
//! A value keeps the client's spelling (`"True"`) beside the meaning, as long as it differs from
//! how Lauf would write it, and comes back so while it still means what the field says. What is
//! written without being sent does not count as sent when it comes back, so that a client may put
//! back what it got without changing anything.

use lauf_model::Violation;

use super::types::Map;

pub(crate) const DESCRIPTION: &str = "run.googleapis.com/description";
pub(crate) const INGRESS: &str = "run.googleapis.com/ingress";
pub(crate) const INGRESS_STATUS: &str = "run.googleapis.com/ingress-status";
pub(crate) const INVOKER_IAM_DISABLED: &str = "run.googleapis.com/invoker-iam-disabled";
pub(crate) const SERVICE_MIN: &str = "run.googleapis.com/minScale";
pub(crate) const SERVICE_MAX: &str = "run.googleapis.com/maxScale";
pub(crate) const SCALING_MODE: &str = "run.googleapis.com/scalingMode";
pub(crate) const MANUAL_COUNT: &str = "run.googleapis.com/manualInstanceCount";
pub(crate) const CLIENT_NAME: &str = "run.googleapis.com/client-name";
pub(crate) const CLIENT_VERSION: &str = "run.googleapis.com/client-version";
pub(crate) const URLS: &str = "run.googleapis.com/urls";
pub(crate) const OPERATION_ID: &str = "run.googleapis.com/operation-id";
pub(crate) const CREATOR: &str = "serving.knative.dev/creator";
pub(crate) const LAST_MODIFIER: &str = "serving.knative.dev/lastModifier";
/// As [`CREATOR`], on resources of `run.googleapis.com`.
pub(crate) const RUN_CREATOR: &str = "run.googleapis.com/creator";
/// As [`LAST_MODIFIER`], on resources of `run.googleapis.com`.
pub(crate) const RUN_LAST_MODIFIER: &str = "run.googleapis.com/lastModifier";
pub(crate) const MIN: &str = "autoscaling.knative.dev/minScale";
pub(crate) const MAX: &str = "autoscaling.knative.dev/maxScale";
pub(crate) const CPU_THROTTLING: &str = "run.googleapis.com/cpu-throttling";
pub(crate) const SESSION_AFFINITY: &str = "run.googleapis.com/sessionAffinity";
pub(crate) const STARTUP_BOOST: &str = "run.googleapis.com/startup-cpu-boost";

/// Keys under which spellings of resource limits are kept among the annotations' spellings. They
/// cannot clash with an annotation's key, which has at most one `/` and no `:`.
pub(crate) const CPU_LIMIT: &str = "limits:cpu";
/// As [`CPU_LIMIT`].
pub(crate) const MEMORY_LIMIT: &str = "limits:memory";

/// Annotations that Lauf writes and takes from nobody.
pub(crate) const OUTPUT_ONLY: [&str; 7] = [
    INGRESS_STATUS,
    URLS,
    OPERATION_ID,
    CREATOR,
    LAST_MODIFIER,
    RUN_CREATOR,
    RUN_LAST_MODIFIER,
];

/// A client's annotations, being read.
pub(crate) struct Reader<'a> {
    at: &'static str,
    rest: Map,
    as_sent: Map,
    found: &'a mut Vec<Violation>,
}

impl<'a> Reader<'a> {
    /// Starts with all annotations of the object at path `at`.
    pub(crate) fn new(at: &'static str, sent: &Map, found: &'a mut Vec<Violation>) -> Self {
        let mut rest = sent.clone();
        rest.retain(|key, _| !OUTPUT_ONLY.contains(&key.as_str()));
        Self {
            at,
            rest,
            as_sent: Map::new(),
            found,
        }
    }

    /// Takes a free text.
    pub(crate) fn text(&mut self, key: &str) -> String {
        self.rest.remove(key).unwrap_or_default()
    }

    /// Takes a truth value; `default` where there is none.
    pub(crate) fn bool(&mut self, key: &str, default: bool) -> bool {
        let Some(text) = self.rest.remove(key) else {
            return default;
        };
        match parse_bool(&text) {
            Some(value) => {
                self.keep(key, text, write_bool(value, default));
                value
            }
            None => {
                self.wrong(key, &text, "true or false");
                default
            }
        }
    }

    /// Takes a count.
    pub(crate) fn count(&mut self, key: &str) -> Option<u32> {
        let text = self.rest.remove(key)?;
        match text.trim().parse::<u32>() {
            Ok(value) => {
                self.keep(key, text, Some(value.to_string()));
                Some(value)
            }
            Err(_) => {
                self.wrong(key, &text, "a whole number, 0 or more");
                None
            }
        }
    }

    /// Takes a count that is zero where nothing is said.
    pub(crate) fn count_or_zero(&mut self, key: &str) -> u32 {
        self.count_or(key, 0)
    }

    /// Takes a count that is `default` where nothing is said.
    pub(crate) fn count_or(&mut self, key: &str, default: u32) -> u32 {
        let sent = self.rest.get(key).cloned();
        let value = self.count(key).unwrap_or(default);
        if let (true, Some(text)) = (value == default, sent) {
            self.as_sent.insert(key.to_owned(), text);
        }
        value
    }

    /// Takes what `parse` makes of a text. The key has two spellings; the first is the one in which
    /// `write` writes the value, if it writes it at all.
    pub(crate) fn parsed<T: PartialEq>(
        &mut self,
        [first, second]: &[&'static str; 2],
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
        write: impl Fn(&T) -> Option<String>,
    ) -> Option<T> {
        let sent = [first, second].map(|key| Some((*key, self.rest.remove(*key)?)));
        let mut value = None;
        for (key, text) in sent.into_iter().flatten() {
            let Some(read) = parse(&text) else {
                self.wrong(key, &text, allowed);
                continue;
            };
            if value.as_ref().is_some_and(|other| *other != read) {
                self.found.push(Violation::new(
                    format!("{}[{key}]", self.at),
                    format!("and {first} are two spellings of one setting, and differ; keep one."),
                ));
            } else {
                let canonical = write(&read).filter(|_| key == *first);
                self.keep(key, text, canonical);
                value = Some(read);
            }
        }
        value
    }

    /// Takes one of some words.
    pub(crate) fn word(&mut self, key: &str, allowed: &[&'static str]) -> Option<&'static str> {
        let text = self.rest.remove(key)?;
        let word = allowed.iter().find(|a| a.eq_ignore_ascii_case(&text));
        if word.is_none() {
            self.wrong(key, &text, &allowed.join(" or "));
        }
        word.copied()
    }

    /// Keeps a spelling if it is not how Lauf writes the value.
    pub(crate) fn keep(&mut self, key: &str, text: String, canonical: Option<String>) {
        if canonical.as_deref() != Some(&text) {
            self.as_sent.insert(key.to_owned(), text);
        }
    }

    /// Reports that a value is not one of those allowed.
    pub(crate) fn wrong(&mut self, key: &str, text: &str, allowed: &str) {
        self.found.push(Violation::new(
            format!("{}[{key}]", self.at),
            format!("'{text}' is not allowed; it must be {allowed}."),
        ));
    }

    /// Refuses annotations that ask for what Lauf does not do.
    pub(crate) fn refuse(&mut self, rules: &[(&str, Refuse, &str)]) {
        for (key, when, why) in rules {
            let asks = self.rest.get(*key).is_some_and(|text| match when {
                Refuse::Set => !text.is_empty(),
                Refuse::True => parse_bool(text) != Some(false),
            });
            if asks {
                self.found
                    .push(crate::refuse::violation(format!("{}[{key}]", self.at), why));
            }
        }
    }

    /// What stands for no field, and the spellings of what does.
    pub(crate) fn finish(self) -> (Map, Map) {
        (self.rest, self.as_sent)
    }
}

/// When an annotation is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refuse {
    /// When it says anything.
    Set,
    /// Unless it says false.
    True,
}

/// Annotations being written.
pub(crate) struct Writer<'a> {
    out: Map,
    as_sent: &'a Map,
}

impl<'a> Writer<'a> {
    /// Starts with what stands for no field.
    pub(crate) fn new(rest: &Map, as_sent: &'a Map) -> Self {
        Self {
            out: rest.clone(),
            as_sent,
        }
    }

    /// Writes a text, unless it is empty.
    pub(crate) fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.out.insert(key.to_owned(), value.to_owned());
        }
    }

    /// Writes a truth value, unless nothing was said and it is the default.
    pub(crate) fn bool(&mut self, key: &str, value: bool, default: bool) {
        self.value(key, write_bool(value, default), |text| {
            parse_bool(text) == Some(value)
        });
    }

    /// Writes a count, if there is one.
    pub(crate) fn count(&mut self, key: &str, value: Option<u32>) {
        self.value(key, value.map(|v| v.to_string()), |text| {
            text.trim().parse().ok() == value && value.is_some()
        });
    }

    /// Writes a count that is zero where nothing was said.
    pub(crate) fn count_or_zero(&mut self, key: &str, value: u32) {
        self.count_or(key, value, 0);
    }

    /// Writes a count that is `default` where nothing was said.
    pub(crate) fn count_or(&mut self, key: &str, value: u32, default: u32) {
        let canonical = (value != default).then(|| value.to_string());
        self.value(key, canonical, |text| text.trim().parse() == Ok(value));
    }

    /// Writes `canonical`, or what was sent if that means the same.
    pub(crate) fn value(
        &mut self,
        key: &str,
        canonical: Option<String>,
        same: impl Fn(&str) -> bool,
    ) {
        let sent = self.as_sent.get(key).filter(|text| same(text)).cloned();
        if let Some(text) = sent.or(canonical) {
            self.out.insert(key.to_owned(), text);
        }
    }

    /// Writes `canonical` under the first spelling of a key, or what was sent under either if that
    /// means the same.
    pub(crate) fn parsed(
        &mut self,
        keys: &[&'static str; 2],
        canonical: &Option<String>,
        same: impl Fn(&str) -> bool,
    ) {
        let sent = keys
            .iter()
            .find_map(|key| Some((*key, self.as_sent.get(*key).filter(|text| same(text))?)));
        let own = canonical.as_ref().map(|text| (keys[0], text));
        if let Some((key, text)) = sent.or(own) {
            self.out.insert(key.to_owned(), text.clone());
        }
    }

    /// Whether either spelling of a key is written.
    pub(crate) fn has(&self, keys: &[&'static str; 2]) -> bool {
        keys.iter().any(|key| self.out.contains_key(*key))
    }

    /// The annotations.
    pub(crate) fn finish(self) -> Map {
        self.out
    }
}

fn write_bool(value: bool, default: bool) -> Option<String> {
    (value != default).then(|| value.to_string())
}

fn parse_bool(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}
