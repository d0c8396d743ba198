//! Questions a client asks about itself: who am I (`kubectl auth whoami`), may I (`kubectl auth
//! can-i`). Nothing is stored.

use http::StatusCode;
use serde_json::{Value, json};

use super::body;
use super::failure::Failure;
use super::kind::group_version;
use crate::api::Ask;
use crate::reply::{self, Reply};

/// A question that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Review {
    /// Who is calling.
    Me,
    /// Whether the caller may do a thing.
    MayI,
    /// What the caller may do.
    WhatMayI,
}

impl Review {
    pub(crate) const ALL: [Self; 3] = [Self::Me, Self::MayI, Self::WhatMayI];

    /// Its group and version.
    pub(crate) fn group_version(self) -> (&'static str, &'static str) {
        match self {
            Self::Me => ("authentication.k8s.io", "v1"),
            Self::MayI | Self::WhatMayI => ("authorization.k8s.io", "v1"),
        }
    }

    /// Its kind.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Me => "SelfSubjectReview",
            Self::MayI => "SelfSubjectAccessReview",
            Self::WhatMayI => "SelfSubjectRulesReview",
        }
    }

    /// As it stands in paths.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Me => "selfsubjectreviews",
            Self::MayI => "selfsubjectaccessreviews",
            Self::WhatMayI => "selfsubjectrulesreviews",
        }
    }

    /// The question of a path.
    pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|r| r.group_version() == (group, version) && r.plural() == plural)
    }
}

/// Answers a question. Whoever was let in is the administrator, who may do everything that there is.
pub(crate) fn answer(ask: &Ask, review: Review) -> Result<Reply, Failure> {
    // Newer clients ask in protobuf. What is asked does not change the answer, which they take as
    // JSON; the question is only not said again in it.
    let sent = if body::is_protobuf(ask) {
        Value::Null
    } else {
        body::object(ask)?.value
    };
    let status = match review {
        Review::Me => json!({"userInfo": {
            "username": ask.caller.principal,
            "groups": ["system:authenticated"],
        }}),
        Review::MayI => json!({
            "allowed": true,
            "reason": format!("{} is the administrator of this Lauf", ask.caller.principal),
        }),
        Review::WhatMayI => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
    };
    let (group, version) = review.group_version();
    Ok(reply::with_status(
        StatusCode::CREATED,
        &json!({
            "kind": review.kind(),
            "apiVersion": group_version(group, version),
            "metadata": {"creationTimestamp": null},
            "spec": sent["spec"],
            "status": status,
        }),
    )?)
}
