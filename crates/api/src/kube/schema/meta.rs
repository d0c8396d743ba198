//! The metadata that all objects have (`meta.k8s.io/v1`, `ObjectMeta`).

use super::{MergeKey, Schema, Shape, int64, keyed, list, map, object, text, time, truth};

const BY_UID: &[MergeKey] = &[MergeKey {
    field: "uid",
    default: None,
}];

/// The metadata of an object.
pub(crate) fn object_meta() -> Schema {
    object(
        "Identity, labels, annotations, and what the server knows of the object's history.",
        vec![
            (
                "annotations",
                map(
                    "Notes for tools, which nothing is selected by. Some of Knative's and of Cloud \
                     Run's change what runs, such as autoscaling.knative.dev/minScale.",
                    text("A note."),
                ),
            ),
            ("creationTimestamp", time("When it was created. Read-only.")),
            (
                "deletionGracePeriodSeconds",
                int64("Seconds until it may be gone. Read-only."),
            ),
            (
                "deletionTimestamp",
                time("When its deletion was asked for, while that is under way. Read-only."),
            ),
            (
                "finalizers",
                list(
                    "Not supported: what is deleted is gone when its instances have stopped.",
                    text("A name."),
                ),
            ),
            (
                "generateName",
                text("The beginning of a name that the server completes, where there is no name."),
            ),
            (
                "generation",
                int64("Rises with every change of what is wanted. Read-only."),
            ),
            (
                "labels",
                map(
                    "Words by which objects are selected.",
                    text("At most 63 letters, digits, '-', '_' and '.'."),
                ),
            ),
            (
                "managedFields",
                list("Who said which field last. Kept by the server.", managed()),
            ),
            (
                "name",
                text("Unique in its namespace, region and kind. It cannot be changed."),
            ),
            ("namespace", text("The project. It cannot be changed.")),
            (
                "ownerReferences",
                keyed("What it belongs to. Read-only.", BY_UID, owner()),
            ),
            (
                "resourceVersion",
                text(
                    "The version that a read gave. Sent with a replacement, it makes sure that \
                     nothing else has changed the object since.",
                ),
            ),
            ("selfLink", text("The object's path. Read-only.")),
            ("uid", text("Unique for ever. Read-only.")),
        ],
    )
}

fn managed() -> Schema {
    object(
        "The fields of one manager.",
        vec![
            ("apiVersion", text("The version whose fields these are.")),
            ("fieldsType", text("Always FieldsV1.")),
            (
                "fieldsV1",
                Schema {
                    description: "The fields, as a tree of names.",
                    shape: Shape::Anything,
                },
            ),
            ("manager", text("Who manages them.")),
            ("operation", text("Apply or Update.")),
            ("subresource", text("The subresource that was written.")),
            ("time", time("When it last said any of them.")),
        ],
    )
}

fn owner() -> Schema {
    object(
        "An object that this one belongs to.",
        vec![
            ("apiVersion", text("Its group and version.")),
            (
                "blockOwnerDeletion",
                truth("Whether it waits for this one to be gone."),
            ),
            ("controller", truth("Whether it is the one that made it.")),
            ("kind", text("Its kind.")),
            ("name", text("Its name.")),
            ("uid", text("Its uid.")),
        ],
    )
    .atomic()
}
