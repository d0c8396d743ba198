//! What the fields of objects are: said once, for the published documents (`kubectl explain`), the
//! checks of what is sent, and the merges of lists.

pub(crate) mod meta;
pub(crate) mod serving;

/// A field, a list's element, a map's value, or a whole object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schema {
    /// What it is, for people.
    pub(crate) description: &'static str,
    /// What it holds.
    pub(crate) shape: Shape,
}

/// What a value holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// Text; the format is OpenAPI's, such as `date-time`, and mostly empty.
    Text(&'static str),
    /// A whole number; `int32` or `int64`.
    Whole(&'static str),
    /// True or false.
    Truth,
    /// A number or a text: an amount, or a port by number or name.
    NumberOrText,
    /// Anything, without any order inside.
    Anything,
    /// Texts by name, or other things by name.
    Map(Box<Schema>),
    /// Named fields.
    Object(Fields),
    /// Things in an order.
    List(Box<Schema>, Merge),
}

/// The fields of an object.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Fields {
    /// In alphabetical order or any other; each once.
    pub(crate) all: Vec<(&'static str, Schema)>,
    /// Those that must be there.
    pub(crate) required: Vec<&'static str>,
    /// Whether it is one value for merges, whatever fields it has.
    pub(crate) atomic: bool,
}

/// What two lists become when they are merged (`x-kubernetes-list-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    /// The one replaces the other.
    Atomic,
    /// Elements with the same key are the same element.
    Keyed(&'static [MergeKey]),
}

/// A field that tells elements of a list apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MergeKey {
    /// The field's name.
    pub(crate) field: &'static str,
    /// What it is where it is left out; a text.
    pub(crate) default: Option<&'static str>,
}

impl Schema {
    /// A field of an object.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        match &self.shape {
            Shape::Object(fields) => fields.get(name),
            Shape::Map(of) => Some(of),
            _ => None,
        }
    }

    /// Says that some fields must be there.
    #[must_use]
    pub(crate) fn required(mut self, names: &[&'static str]) -> Self {
        if let Shape::Object(fields) = &mut self.shape {
            fields.required = names.to_vec();
        }
        self
    }

    /// Says that it is one value for merges.
    #[must_use]
    pub(crate) fn atomic(mut self) -> Self {
        if let Shape::Object(fields) = &mut self.shape {
            fields.atomic = true;
        }
        self
    }
}

impl Fields {
    /// The field of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Schema> {
        let found = self.all.iter().find(|(field, _)| *field == name);
        found.map(|(_, schema)| schema)
    }
}

const fn of(description: &'static str, shape: Shape) -> Schema {
    Schema { description, shape }
}

/// Text.
pub(crate) const fn text(description: &'static str) -> Schema {
    of(description, Shape::Text(""))
}

/// A point in time.
pub(crate) const fn time(description: &'static str) -> Schema {
    of(description, Shape::Text("date-time"))
}

/// A whole number of 32 bits.
pub(crate) const fn int32(description: &'static str) -> Schema {
    of(description, Shape::Whole("int32"))
}

/// A whole number of 64 bits.
pub(crate) const fn int64(description: &'static str) -> Schema {
    of(description, Shape::Whole("int64"))
}

/// True or false.
pub(crate) const fn truth(description: &'static str) -> Schema {
    of(description, Shape::Truth)
}

/// A number or a text.
pub(crate) const fn number_or_text(description: &'static str) -> Schema {
    of(description, Shape::NumberOrText)
}

/// A field that Knative has and Lauf refuses.
pub(crate) const fn refused(description: &'static str) -> Schema {
    of(description, Shape::Anything)
}

/// Things by name.
pub(crate) fn map(description: &'static str, values: Schema) -> Schema {
    of(description, Shape::Map(Box::new(values)))
}

/// Named fields.
pub(crate) fn object(description: &'static str, all: Vec<(&'static str, Schema)>) -> Schema {
    let fields = Fields {
        all,
        ..Fields::default()
    };
    of(description, Shape::Object(fields))
}

/// A list that is one value.
pub(crate) fn list(description: &'static str, elements: Schema) -> Schema {
    of(description, Shape::List(Box::new(elements), Merge::Atomic))
}

/// A list whose elements are told apart by keys.
pub(crate) fn keyed(
    description: &'static str,
    keys: &'static [MergeKey],
    elements: Schema,
) -> Schema {
    let elements = Box::new(elements);
    of(description, Shape::List(elements, Merge::Keyed(keys)))
}

/// A whole object.
pub(crate) fn top(description: &'static str, spec: Schema, status: Schema) -> Schema {
    object(
        description,
        vec![
            (
                "apiVersion",
                text("The group and version of this form of the object."),
            ),
            ("kind", text("The kind of the object.")),
            ("metadata", meta::object_meta()),
            ("spec", spec),
            ("status", status),
        ],
    )
}
