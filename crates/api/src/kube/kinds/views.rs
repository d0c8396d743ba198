//! Configurations and routes: the two halves of a service, which is what is written.

use std::sync::LazyLock;

use lauf_model::Service;
use lauf_store::{Object, Resource as _, Stored};
use serde_json::Value;

use super::service::{READY, REASON};
use crate::failed;
use crate::kube::failure::Failure;
use crate::kube::kind::{Column, Kind, Names, text};
use crate::kube::schema::{Schema, serving};
use crate::v1;

/// A part of a service that is seen as an object of its own.
pub(super) struct View {
    names: &'static Names,
    columns: &'static [Column],
    schema: fn() -> &'static Schema,
    write: fn(&Service, u64) -> Value,
}

/// What a service's revisions are made from.
pub(super) static CONFIGURATIONS: View = View {
    names: &Names {
        group: "serving.knative.dev",
        version: "v1",
        kind: "Configuration",
        plural: "configurations",
        singular: "configuration",
        short: &["config", "cfg"],
        categories: &["all", "knative", "serving"],
        namespaced: true,
        status: true,
    },
    columns: &[
        Column {
            name: "LatestCreated",
            kind: "string",
            description: "The newest revision.",
            priority: 0,
            cell: |o| text(o, "/status/latestCreatedRevisionName"),
        },
        Column {
            name: "LatestReady",
            kind: "string",
            description: "The newest revision that became ready.",
            priority: 0,
            cell: |o| text(o, "/status/latestReadyRevisionName"),
        },
        READY,
        REASON,
    ],
    schema: || {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(serving::configuration);
        LazyLock::force(&SCHEMA)
    },
    write: v1::revision::configuration,
};

/// Where a service's requests go.
pub(super) static ROUTES: View = View {
    names: &Names {
        group: "serving.knative.dev",
        version: "v1",
        kind: "Route",
        plural: "routes",
        singular: "route",
        short: &["rt"],
        categories: &["all", "knative", "serving"],
        namespaced: true,
        status: true,
    },
    columns: &[
        Column {
            name: "URL",
            kind: "string",
            description: "Where the service is reached.",
            priority: 0,
            cell: |o| text(o, "/status/url"),
        },
        READY,
        REASON,
    ],
    schema: || {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(serving::route);
        LazyLock::force(&SCHEMA)
    },
    write: v1::revision::route,
};

impl Kind for View {
    fn names(&self) -> &'static Names {
        self.names
    }

    fn schema(&self) -> &'static Schema {
        (self.schema)()
    }

    fn columns(&self) -> &'static [Column] {
        self.columns
    }

    fn stored(&self) -> lauf_store::Kind {
        Service::KIND
    }

    fn show(&self, object: &Object) -> Result<Value, Failure> {
        let stored = Stored::<Service>::read(object).map_err(|error| failed::body(&error))?;
        Ok((self.write)(&stored.value, stored.version.get()))
    }
}
