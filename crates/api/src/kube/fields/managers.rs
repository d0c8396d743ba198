//! Managers and their fields: the laws of updates and of applies.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::set::Set;
use super::typed::{self, Difference};
use crate::kube::schema::Schema;

/// How many managers that update, and do not apply, are told apart.
const MOST_UPDATERS: usize = 10;
/// Who the oldest of them become.
const ANCIENT: &str = "ancient-changes";
/// How many entries a client may send.
const MOST: usize = 100;

/// One who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who<'a> {
    /// The name it gives itself.
    pub(crate) name: &'a str,
    /// The version of the objects it writes.
    pub(crate) api_version: &'a str,
    /// Now.
    pub(crate) now: Timestamp,
}

/// The fields of one manager.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Manager {
    name: String,
    applies: bool,
    api_version: String,
    time: String,
    fields: Set,
}

/// All managers of an object, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Managers(Vec<Manager>);

/// Fields that another manages and that would be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// Who manages them, as errors say it.
    pub(crate) with: String,
    /// The fields' paths.
    pub(crate) fields: Vec<String>,
}

impl Managers {
    /// Whether nobody manages anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As `metadata.managedFields`.
    pub(crate) fn write(&self) -> Value {
        self.0
            .iter()
            .map(|manager| {
                json!({
                    "manager": manager.name,
                    "operation": if manager.applies { "Apply" } else { "Update" },
                    "apiVersion": manager.api_version,
                    "time": manager.time,
                    "fieldsType": "FieldsV1",
                    "fieldsV1": manager.fields.write(),
                })
            })
            .collect()
    }

    /// Reads `metadata.managedFields`; `None` when it is none. An empty entry is how clients say
    /// that nobody shall manage anything.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        let entries = match value {
            Value::Null => return Some(Self::default()),
            value => value.as_array()?,
        };
        if entries.len() > MOST {
            return None;
        }
        let mut managers = Vec::new();
        for entry in entries {
            if entry.as_object()?.is_empty() {
                continue;
            }
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let applies = match entry["operation"].as_str()? {
                "Apply" => true,
                "Update" => false,
                _ => return None,
            };
            let fields = Set::read(&entry["fieldsV1"])?;
            // What only our controllers write is not kept.
            if fields.is_empty() || !text("subresource").is_empty() {
                continue;
            }
            managers.push(Manager {
                name: text("manager"),
                applies,
                api_version: text("apiVersion"),
                time: text("time"),
                fields,
            });
        }
        Some(Self(managers))
    }

    /// Who manages what after somebody has changed an object: what they changed is theirs.
    #[must_use]
    pub(crate) fn updated(
        mut self,
        schema: &Schema,
        old: &Value,
        new: &Value,
        who: Who<'_>,
    ) -> Self {
        let difference = typed::compare(schema, old, new);
        let changed = difference.modified.clone().union(&difference.added);
        if changed.is_empty() && difference.removed.is_empty() {
            return self;
        }
        let own = self.take(who, false);
        self.give_up(&difference);
        let before = own.map(|own| own.fields).unwrap_or_default();
        let fields = before.without(&difference.removed).union(&changed);
        self.put(who, false, fields);
        self.cap();
        self
    }

    /// What an object becomes when somebody applies a configuration, and who manages what then.
    ///
    /// # Errors
    /// The fields that others manage and that would be changed, unless it is forced.
    pub(crate) fn applied(
        mut self,
        schema: &Schema,
        live: &Value,
        config: &Value,
        who: Who<'_>,
        force: bool,
    ) -> Result<(Value, Self), Vec<Conflict>> {
        let own = self.take(who, true);
        let fields = typed::fields(schema, config);
        let mut merged = typed::merge(schema, live, config);
        // What was applied before, and is not now, and is nobody else's, is gone.
        let last = own.as_ref().map(|own| own.fields.clone());
        if let Some(last) = last.as_ref() {
            let owned = self
                .0
                .iter()
                .fold(fields.clone(), |all, m| all.union(&m.fields));
            let gone = last.clone().without(&owned);
            merged = typed::remove(schema, &merged, &gone, &owned).unwrap_or_else(|| json!({}));
        }
        let difference = typed::compare(schema, live, &merged);
        let changed = difference.modified.clone().union(&difference.added);
        let conflicts: Vec<Conflict> = self
            .0
            .iter()
            .filter_map(|manager| {
                let clash = manager.fields.clone().and(&changed);
                (!clash.is_empty()).then(|| Conflict {
                    with: manager.describe(),
                    fields: clash.paths(),
                })
            })
            .collect();
        if !conflicts.is_empty() && !force {
            return Err(conflicts);
        }
        self.give_up(&difference);
        match own {
            // Nothing new: nothing is written, not even the time.
            Some(own) if own.fields == fields && live == &merged => self.0.push(own),
            _ => self.put(who, true, fields),
        }
        self.sort();
        Ok((merged, self))
    }

    /// Takes out the entry of a manager.
    fn take(&mut self, who: Who<'_>, applies: bool) -> Option<Manager> {
        let same = |m: &Manager| {
            m.name == who.name && m.applies == applies && m.api_version == who.api_version
        };
        let place = self.0.iter().position(same)?;
        Some(self.0.remove(place))
    }

    /// Others no longer manage what was changed or is gone.
    fn give_up(&mut self, difference: &Difference) {
        for manager in &mut self.0 {
            manager.fields = std::mem::take(&mut manager.fields)
                .without(&difference.modified)
                .without(&difference.added)
                .without(&difference.removed);
        }
        self.0.retain(|manager| !manager.fields.is_empty());
    }

    fn put(&mut self, who: Who<'_>, applies: bool, fields: Set) {
        if fields.is_empty() {
            return;
        }
        self.0.push(Manager {
            name: who.name.to_owned(),
            applies,
            api_version: who.api_version.to_owned(),
            time: format!("{:.0}", who.now),
            fields,
        });
        self.sort();
    }

    /// Applies first, then by time, as Kubernetes lists them.
    fn sort(&mut self) {
        self.0
            .sort_by(|a, b| (!a.applies, &a.time, &a.name).cmp(&(!b.applies, &b.time, &b.name)));
    }

    /// The oldest that update become one, so that the list stays short.
    fn cap(&mut self) {
        while self.0.iter().filter(|m| !m.applies).count() > MOST_UPDATERS {
            let Some(first) = self.0.iter().position(|m| !m.applies) else {
                return;
            };
            let mut oldest = self.0.remove(first);
            let ancient = self.0.iter_mut().find(|m| !m.applies && m.name == ANCIENT);
            match ancient {
                Some(ancient) if oldest.name != ANCIENT => {
                    ancient.fields = std::mem::take(&mut ancient.fields).union(&oldest.fields);
                }
                _ => {
                    let next = self.0.iter().position(|m| !m.applies);
                    if let Some(next) = next {
                        let next = self.0.remove(next);
                        oldest.fields = oldest.fields.union(&next.fields);
                        oldest.time = next.time;
                    }
                    ANCIENT.clone_into(&mut oldest.name);
                    self.0.push(oldest);
                    self.sort();
                }
            }
        }
    }
}

impl Manager {
    fn describe(&self) -> String {
        if self.applies {
            format!("\"{}\"", self.name)
        } else {
            format!("\"{}\" using {}", self.name, self.api_version)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::schema::serving;
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    fn who(name: &str) -> Who<'_> {
        Who {
            name,
            api_version: "serving.knative.dev/v1",
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn env(pairs: &[(&str, &str)]) -> Value {
        let env: Vec<Value> = pairs
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        let mut container = json!({"image": "i"});
        if !env.is_empty() {
            container["env"] = env.into();
        }
        json!({"spec": {"template": {"spec": {"containers": [container]}}}})
    }

    fn pairs(object: &Value) -> Vec<(String, String)> {
        let env = &object["spec"]["template"]["spec"]["containers"][0]["env"];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        env.as_array()
            .into_iter()
            .flatten()
            .map(|e| (text(&e["name"]), text(&e["value"])))
            .collect()
    }

    #[test]
    fn two_who_apply_share_an_object() {
        let schema = serving::service();
        let apply = |managers: Managers, live: &Value, config: &Value, name, force| {
            managers.applied(&schema, live, config, who(name), force)
        };
        let (live, managers) = apply(
            Managers::default(),
            &json!({}),
            &env(&[("A", "1"), ("B", "2")]),
            "ann",
            false,
        )
        .unwrap();
        // Another adds one of its own, and says nothing of the rest.
        let (live, managers) = apply(managers, &live, &env(&[("C", "3")]), "ben", false).unwrap();
        assert_eq!(pairs(&live).len(), 3);
        // A third wants another value.
        let conflicts =
            apply(managers.clone(), &live, &env(&[("A", "9")]), "cat", false).unwrap_err();
        assert_eq!(conflicts.len(), 1);
        assert_eq!(conflicts[0].with, "\"ann\"");
        let path = ".spec.template.spec.containers[name=\"\"].env[name=\"A\"].value";
        assert_eq!(conflicts[0].fields, [path]);
        // The first leaves one out, which is gone; that of the second stays.
        let (live, managers) = apply(managers, &live, &env(&[("A", "1")]), "ann", false).unwrap();
        let names: Vec<String> = pairs(&live).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["A", "C"]);
        // By force, it is the third's; the first is told so when it wants it back.
        let (live, managers) = apply(managers, &live, &env(&[("A", "9")]), "cat", true).unwrap();
        let conflicts = apply(managers.clone(), &live, &env(&[("A", "1")]), "ann", false);
        assert_eq!(conflicts.unwrap_err()[0].with, "\"cat\"");
        // An update takes what it changes.
        let changed = env(&[("A", "5"), ("C", "3")]);
        let managers = managers.updated(&schema, &live, &changed, who("edit"));
        let conflicts = apply(managers, &changed, &env(&[("A", "9")]), "cat", false).unwrap_err();
        assert_eq!(conflicts[0].with, "\"edit\" using serving.knative.dev/v1");
    }

    #[test]
    fn the_list_of_updaters_stays_short() {
        let schema = serving::service();
        let mut managers = Managers::default();
        let mut live = json!({});
        for i in 0..30 {
            let next = env(&[("A", &i.to_string()), (&format!("V{i}"), "x")]);
            let name = format!("manager-{i:02}");
            managers = managers.updated(&schema, &live, &next, who(&name));
            live = next;
        }
        assert!(managers.0.len() <= MOST_UPDATERS, "{}", managers.0.len());
    }

    fn an_env() -> impl Strategy<Value = Vec<(String, String)>> {
        btree_map("[A-E]", "[0-2]", 0..5).prop_map(|map| map.into_iter().collect())
    }

    fn config(pairs: &[(String, String)]) -> Value {
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (&**n, &**v)).collect();
        env(&pairs)
    }

    proptest! {
        /// Whatever was before: what is applied by force is there, applying it again changes
        /// nothing, and nothing is both there and nobody's that an applier has given up.
        #[test]
        fn an_apply_is_seen_and_idempotent(
            steps in proptest::collection::vec((btree_set("[abc]", 1..2), an_env()), 1..8)
        ) {
            let schema = serving::service();
            let (mut live, mut managers) = (json!({}), Managers::default());
            for (names, wanted) in steps {
                let name = names.into_iter().next().unwrap();
                let wanted_object = config(&wanted);
                let (merged, after) = managers
                    .applied(&schema, &live, &wanted_object, who(&name), true)
                    .unwrap();
                for pair in &wanted {
                    prop_assert!(pairs(&merged).contains(pair));
                }
                let again = after
                    .clone()
                    .applied(&schema, &merged, &wanted_object, who(&name), false)
                    .unwrap();
                prop_assert_eq!(&again, &(merged.clone(), after.clone()));
                // All that is there is somebody's, and all that is somebody's is there.
                let owned = after.0.iter().fold(Set::default(), |all, m| all.union(&m.fields));
                prop_assert_eq!(owned, typed::fields(&schema, &merged));
                prop_assert_eq!(Managers::read(&after.write()), Some(after.clone()));
                (live, managers) = (merged, after);
            }
        }

        /// After an update, every field that it changed is its own and nobody else's.
        #[test]
        fn an_update_owns_what_it_changes(before in an_env(), after in an_env()) {
            let schema = serving::service();
            let (before, after) = (config(&before), config(&after));
            let (live, managers) = Managers::default()
                .applied(&schema, &json!({}), &before, who("a"), false)
                .unwrap();
            let managers = managers.updated(&schema, &live, &after, who("b"));
            let difference = typed::compare(&schema, &live, &after);
            let changed = difference.modified.union(&difference.added);
            for manager in &managers.0 {
                let own = manager.fields.clone().and(&changed);
                if manager.name == "b" {
                    prop_assert_eq!(&own, &changed);
                } else {
                    prop_assert!(own.is_empty());
                }
                prop_assert!(manager.fields.clone().and(&difference.removed).is_empty());
            }
        }
    }
}
