//! Sets of paths into an object, and their form on the wire (`FieldsV1`).

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

/// How deep a set may go: objects are not that deep.
const DEEPEST: usize = 64;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Element {
    /// The field of that name.
    Field(String),
    /// The element of a list whose keys have these values; a JSON object, its names in order.
    Key(String),
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let pairs: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(f, "[{}]", pairs.join(","))
            }
        }
    }
}

/// A set of paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Set {
    below: BTreeMap<Element, Node>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Node {
    /// Whether the path that ends here is in the set.
    member: bool,
    set: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.set.is_empty()
    }
}

impl Set {
    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.below.is_empty()
    }

    /// Adds a path.
    pub(crate) fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let node = self.below.entry(first.clone()).or_default();
        if rest.is_empty() {
            node.member = true;
        } else {
            node.set.insert(rest);
        }
    }

    /// Whether a path of one step is in it.
    pub(crate) fn has(&self, element: &Element) -> bool {
        self.below.get(element).is_some_and(|node| node.member)
    }

    /// What is in it below a step.
    pub(crate) fn under(&self, element: &Element) -> Option<&Self> {
        let node = self.below.get(element)?;
        (!node.set.is_empty()).then_some(&node.set)
    }

    /// What is in either.
    #[must_use]
    pub(crate) fn union(mut self, other: &Self) -> Self {
        for (element, node) in &other.below {
            let own = self.below.entry(element.clone()).or_default();
            own.member |= node.member;
            own.set = std::mem::take(&mut own.set).union(&node.set);
        }
        self
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub(crate) fn without(mut self, other: &Self) -> Self {
        for (element, node) in &other.below {
            if let Some(own) = self.below.get_mut(element) {
                own.member &= !node.member;
                own.set = std::mem::take(&mut own.set).without(&node.set);
            }
        }
        self.below.retain(|_, node| !node.is_empty());
        self
    }

    /// What is in both.
    #[must_use]
    pub(crate) fn and(mut self, other: &Self) -> Self {
        for (element, own) in &mut self.below {
            match other.below.get(element) {
                Some(node) => {
                    own.member &= node.member;
                    own.set = std::mem::take(&mut own.set).and(&node.set);
                }
                None => *own = Node::default(),
            }
        }
        self.below.retain(|_, node| !node.is_empty());
        self
    }

    /// Every path in it, as people write them.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, before: &str, found: &mut Vec<String>) {
        for (element, node) in &self.below {
            let path = format!("{before}{element}");
            node.set.collect(&path, found);
            if node.member {
                found.push(path);
            }
        }
    }

    /// As `FieldsV1`.
    pub(crate) fn write(&self) -> Value {
        let fields = self.below.iter().map(|(element, node)| {
            let name = match element {
                Element::Field(name) => format!("f:{name}"),
                Element::Key(keys) => format!("k:{keys}"),
            };
            let mut below = node.set.write();
            if node.member && !node.set.is_empty() {
                below["."] = json!({});
            }
            (name, below)
        });
        Value::Object(fields.collect())
    }

    /// Reads `FieldsV1`. Steps of kinds that our objects do not have are left out.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        Self::read_at(value, 0)
    }

    fn read_at(value: &Value, depth: usize) -> Option<Self> {
        let mut set = Self::default();
        if depth > DEEPEST {
            return None;
        }
        for (name, below) in value.as_object()? {
            let element = match name.split_once(':') {
                _ if name == "." => continue,
                Some(("f", field)) => Element::Field(field.to_owned()),
                Some(("k", keys)) => {
                    // Written anew, so that the order of names is ours.
                    let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
                    Element::Key(Value::Object(keys).to_string())
                }
                Some(("v" | "i", _)) => continue,
                _ => return None,
            };
            let under = Self::read_at(below, depth + 1)?;
            let node = Node {
                member: under.is_empty() || below.get(".").is_some(),
                set: under,
            };
            set.below.insert(element, node);
        }
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn a_set() -> impl Strategy<Value = Set> {
        let element = prop_oneof![
            "[a-c]".prop_map(Element::Field),
            "[a-c]".prop_map(|name| Element::Key(json!({ "name": name }).to_string())),
        ];
        let path = proptest::collection::vec(element, 1..4);
        proptest::collection::vec(path, 0..8).prop_map(|paths| {
            let mut set = Set::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn the_wire_form_keeps_everything(set in a_set()) {
            prop_assert_eq!(Set::read(&set.write()), Some(set));
        }

        #[test]
        fn sets_obey_the_laws_of_sets(a in a_set(), b in a_set(), c in a_set()) {
            prop_assert_eq!(a.clone().union(&b), b.clone().union(&a));
            prop_assert_eq!(a.clone().and(&b), b.clone().and(&a));
            prop_assert_eq!(a.clone().without(&b).and(&b), Set::default());
            let both = b.clone().union(&c);
            prop_assert_eq!(a.clone().without(&both), a.clone().without(&b).without(&c));
            prop_assert_eq!(a.clone().without(&b).union(&a.clone().and(&b)), a);
        }
    }

    #[test]
    fn paths_are_readable() {
        let fields =
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}}});
        let set = Set::read(&fields).unwrap();
        assert_eq!(
            set.paths(),
            [
                ".spec.containers[name=\"a\"].image",
                ".spec.containers[name=\"a\"]"
            ]
        );
        assert_eq!(set.write(), fields);
        assert_eq!(Set::read(&json!({"x": {}})), None);
    }
}
