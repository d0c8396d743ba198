//! Google's REST APIs, as this Lauf serves them to its administrator.

use anyhow::Result;
use hyper::Method;
use serde_json::Value;

use crate::client::{Target, rest};
use crate::demo::platform::Platform;

/// One of the APIs.
pub(super) struct Google {
    target: Target,
    version: &'static str,
    token: String,
}

impl Google {
    /// Cloud Run, v2.
    pub(super) async fn run(platform: &Platform) -> Result<Self> {
        Self::at(platform, "run", "v2").await
    }

    /// Cloud Scheduler.
    pub(super) async fn scheduler(platform: &Platform) -> Result<Self> {
        Self::at(platform, "cloudscheduler", "v1").await
    }

    async fn at(platform: &Platform, api: &str, version: &'static str) -> Result<Self> {
        Ok(Self {
            target: Target {
                addr: platform.addr,
                host: format!("{api}.googleapis.com"),
            },
            version,
            token: platform.lauf(&["token"]).await?.trim().to_owned(),
        })
    }

    /// Sends a request about a resource, or a method of it, and reads the answer.
    pub(super) async fn call(&self, method: Method, name: &str, body: &Value) -> Result<Value> {
        let path = format!("/{}/{name}", self.version);
        rest::call(&self.target, method, &path, Some(&self.token), body).await
    }
}
