//! All routes there are, and their publication as one table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lauf_gateway::{RouteTable, ServiceRoute};
use lauf_model::ServiceKey;

type Hosts = Vec<(String, Arc<ServiceRoute>)>;

/// The routes of every service. A change publishes a new table; readers never wait.
pub(crate) struct Routes {
    gateway: lauf_gateway::Routes,
    services: Mutex<HashMap<ServiceKey, Hosts>>,
}

impl Routes {
    pub(crate) fn new(gateway: lauf_gateway::Routes) -> Self {
        Self {
            gateway,
            services: Mutex::default(),
        }
    }

    pub(crate) fn set(&self, key: &ServiceKey, hosts: Hosts) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.insert(key.clone(), hosts);
        self.publish(&services);
    }

    pub(crate) fn remove(&self, key: &ServiceKey) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if services.remove(key).is_some() {
            self.publish(&services);
        }
    }

    /// Under the lock, so that tables are published in the order they were made.
    fn publish(&self, services: &HashMap<ServiceKey, Hosts>) {
        let mut table = RouteTable::new();
        for (host, route) in services.values().flatten() {
            table.insert(host, Arc::clone(route));
        }
        self.gateway.publish(table);
    }
}
