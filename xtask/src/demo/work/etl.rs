//! The nightly job: Cloud Scheduler starts it, PostgreSQL gets the orders, and a second run changes nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use super::database::Database;
use super::google::Google;
use super::{PLACE, inside};
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
    let scheduler = Google::scheduler(platform).await?;
    let run = Google::run(platform).await?;
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
    let jobs = format!("{PLACE}/jobs");
    scheduler.call(Method::POST, &jobs, &body).await?;

    let truth = truth().await?;
    let mut before = String::from("-infinity");
    for time in 1..=2 {
        let now = format!("{schedule}:run");
        scheduler.call(Method::POST, &now, &json!({})).await?;
        executed(platform, &run, time).await?;
        let found = database
            .ask("SELECT count(*), sum(amount_cents) FROM orders")
            .await?;
        ensure!(
            found == truth,
            "after run {time} the table has {found}, not {truth}"
        );
        let fresh = database
            .ask(&format!(
                "SELECT count(*) FROM orders WHERE loaded_at > '{before}'"
            ))
            .await?;
        ensure!(
            found.starts_with(&format!("{fresh}|")),
            "run {time} wrote {fresh} orders of {found}"
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

/// Waits until the job has been executed so often, each time well.
async fn executed(platform: &Platform, run: &Google, times: usize) -> Result<()> {
    let start = clock::now();
    loop {
        let name = format!("{PLACE}/jobs/etl/executions");
        let answer = run.call(Method::GET, &name, &Value::Null).await?;
        let executions = answer["executions"].as_array();
        let (mut ended, mut failed) = (0, false);
        for execution in executions.into_iter().flatten() {
            ended += usize::from(execution["completionTime"].is_string());
            failed |= execution["failedCount"]
                .as_u64()
                .is_some_and(|count| count > 0);
        }
        if failed {
            let log = platform.lauf(&["jobs", "logs", "etl"]).await?;
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
