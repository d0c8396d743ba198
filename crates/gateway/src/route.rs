//! Stop 2: which service and which revision a request is for.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use lauf_model::{Ingress, ServiceKey};

use crate::Access;
use crate::host;
use crate::pool::RevisionPool;
use crate::random::Random;

/// A service as the gateway sees it. Control builds one for each host and each tag's host.
#[derive(Debug)]
pub struct ServiceRoute {
    /// Which service it is.
    pub key: ServiceKey,
    /// Who may call it.
    pub access: Access,
    /// From which networks it may be called.
    pub ingress: Ingress,
    /// Its revisions with their shares in percent. Shares are relative: a single target gets all.
    pub targets: Vec<(u32, Arc<RevisionPool>)>,
}

impl ServiceRoute {
    /// Picks a target by its share.
    pub(crate) fn pick(&self, random: &Random) -> Option<&Arc<RevisionPool>> {
        if let [(_, only)] = self.targets.as_slice() {
            return Some(only);
        }
        let total: u32 = self.targets.iter().map(|(share, _)| *share).sum();
        if total == 0 {
            return None;
        }
        let mut point = random.below(total);
        for (share, pool) in &self.targets {
            if point < *share {
                return Some(pool);
            }
            point -= *share;
        }
        None
    }
}

/// All hosts that services have. Immutable once published.
#[derive(Debug, Default)]
pub struct RouteTable {
    hosts: HashMap<Box<str>, Arc<ServiceRoute>>,
}

impl RouteTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a host (without port; case does not matter).
    pub fn insert(&mut self, host: &str, route: Arc<ServiceRoute>) {
        self.hosts.insert(host::normalize(host).into(), route);
    }

    /// The route of a host, which must be lowercase and without port.
    #[must_use]
    pub fn get(&self, host: &str) -> Option<&Arc<ServiceRoute>> {
        self.hosts.get(host)
    }

    /// How many hosts it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}

/// The table in use. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Routes(pub(crate) Arc<ArcSwap<RouteTable>>);

impl Routes {
    /// Replaces the table. Requests that arrive from now on see the new one.
    pub fn publish(&self, table: RouteTable) {
        self.0.store(Arc::new(table));
    }

    /// The table in use.
    #[must_use]
    pub fn current(&self) -> Arc<RouteTable> {
        self.0.load_full()
    }
}
