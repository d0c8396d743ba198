//! The nightly job: Cloud Scheduler starts it, PostgreSQL gets the orders, and a second run changes nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use super::database::Database;
use super::{PLACE, inside};
use crate::client::{Target, rest};
use crate::demo::platform::{Platform, output};
use crate::{clock, tools};

const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a database and shows the job on it; the database is stopped whatever happens.
pub(super) async fn show(platform: &Platform) -> Result<String> {
    let database = Database::start(platform.database).await?;
    let shown = tell(platform, &database).await;
    let stopped = database.stop().await;
    let seen = shown?;
    stopped?;
    Ok(seen)
}

async fn tell(platform: &Platform, database: &Database) -> Result<String> {
    let url = database.url(&inside(platform.database));
    platform
        .lauf(&[
            "jobs",
            "deploy",
            "etl",
            "--image",
            "etl",
            "--max-retries",
            "0",
            "--env",
            &format!("DATABASE_URL={url}"),
        ])
        .await?;
    let api = Api {
        platform,
        token: platform.lauf(&["token"]).await?.trim().to_owned(),
    };
    let schedule = format!("{PLACE}/jobs/nightly");
    let body = json!({
        "name": schedule,
        "schedule": "0 3 * * *",
        "timeZone": "Europe/Berlin",
        "httpTarget": {
            "uri": format!("https://run.googleapis.com/v2/{PLACE}/jobs/etl:run"),
            "httpMethod": "POST",
            "oauthToken": {"serviceAccountEmail": "cron@demo.iam.gserviceaccount.com"},
        },
    });
    api.call(
        "cloudscheduler",
        Method::POST,
        &format!("{PLACE}/jobs"),
        &body,
    )
    .await?;

    let truth = truth().await?;
    let mut before = String::from("-infinity");
    for run in 1..=2 {
        api.call(
            "cloudscheduler",
            Method::POST,
            &format!("{schedule}:run"),
            &json!({}),
        )
        .await?;
        api.executed(run).await?;
        let found = database
            .ask("SELECT count(*), sum(amount_cents) FROM orders")
            .await?;
        ensure!(
            found == truth,
            "after run {run} the table has {found}, not {truth}"
        );
        let fresh = database
            .ask(&format!(
                "SELECT count(*) FROM orders WHERE loaded_at > '{before}'"
            ))
            .await?;
        ensure!(
            found.starts_with(&format!("{fresh}|")),
            "run {run} wrote {fresh} orders of {found}"
        );
        before = database.ask("SELECT max(loaded_at) FROM orders").await?;
    }
    let (orders, cents) = truth.split_once('|').context("no two numbers")?;
    Ok(format!(
        "scheduled, run twice: {orders} orders, {cents} cents in the table each time"
    ))
}

/// Count and sum of the orders before they were spoilt, as psql prints them.
async fn truth() -> Result<String> {
    let script = tools::root().join("samples/etl/make_orders.py");
    let mut python = Command::new("/usr/bin/python3");
    let said = output(python.arg(script).arg("--truth")).await?;
    Ok(said.trim().replace(' ', "|"))
}

/// Google's REST APIs, as this Lauf serves them to its administrator.
struct Api<'a> {
    platform: &'a Platform,
    token: String,
}

impl Api<'_> {
    async fn call(&self, api: &str, method: Method, name: &str, body: &Value) -> Result<Value> {
        let target = Target {
            addr: self.platform.addr,
            host: format!("{api}.googleapis.com"),
        };
        let version = if api == "run" { "v2" } else { "v1" };
        let path = format!("/{version}/{name}");
        rest::call(&target, method, &path, Some(&self.token), body).await
    }

    /// Waits until the job has been executed so often, each time well.
    async fn executed(&self, times: usize) -> Result<()> {
        let start = clock::now();
        loop {
            let name = format!("{PLACE}/jobs/etl/executions");
            let answer = self.call("run", Method::GET, &name, &Value::Null).await?;
            let executions = answer["executions"].as_array();
            let (mut ended, mut failed) = (0, false);
            for execution in executions.into_iter().flatten() {
                ended += usize::from(execution["completionTime"].is_string());
                failed |= execution["failedCount"]
                    .as_u64()
                    .is_some_and(|count| count > 0);
            }
            if failed {
                let log = self.platform.lauf(&["jobs", "logs", "etl"]).await?;
                anyhow::bail!("the job failed: {log}");
            }
            if ended >= times {
                return Ok(());
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "{ended} of {times} executions have ended after {} s",
                PATIENCE.as_secs()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
