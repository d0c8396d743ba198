//! Shows instances come and go, live in the terminal.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::load::{self, Counts, Load};
use super::platform::{Platform, Service};
use crate::client::Target;
use crate::{clock, ui};

/// How often the picture is drawn. This is what a person sees, not what anything waits for.
const FRAME: Duration = Duration::from_millis(250);
/// The load: with Cloud Run's default of 80 requests at once per instance it needs five instances.
const CONNECTIONS: u32 = 400;
const PATH: &str = "/slow?ms=200";
const LASTING: Duration = Duration::from_secs(10);
/// How long instances may take to go after the last request; they are told to go after [`super::IDLE`].
const FALL: Duration = Duration::from_secs(60);

/// What was seen of rise and fall.
#[derive(Clone, Debug)]
pub(crate) struct Scaling {
    pub(crate) load: Load,
    /// The most instances seen at once.
    pub(crate) peak: u64,
    /// From the start of the load until they were first seen.
    pub(crate) peak_after: Duration,
    /// From the end of the load until there were none.
    pub(crate) zero_after: Duration,
}

/// Waits until no service has an instance.
pub(crate) async fn until_all_idle(platform: &Platform) -> Result<Duration> {
    watch_fall(platform, None, "").await
}

/// Waits until one service has no instance.
pub(crate) async fn until_idle(platform: &Platform, service: &str) -> Result<Duration> {
    watch_fall(platform, Some(service), "").await
}

/// Puts load on hello and watches its instances until they have gone again.
pub(crate) async fn rise_and_fall(platform: &Platform) -> Result<Scaling> {
    let target = Target::of_url(&platform.service("hello").await?.url, platform.addr);
    let counts = Arc::new(Counts::default());
    let start = clock::now();
    let load = tokio::spawn({
        let counts = Arc::clone(&counts);
        async move { load::drive(&target, PATH, CONNECTIONS, LASTING, counts).await }
    });
    let mut picture = ui::Redraw::default();
    let (mut peak, mut peak_after) = (0, Duration::ZERO);
    while !load.is_finished() {
        let services = platform.services().await?;
        let now = services
            .iter()
            .find(|service| service.name == "hello")
            .map_or(0, |service| service.instances);
        if now > peak {
            (peak, peak_after) = (now, start.elapsed());
        }
        let note = format!(
            "{CONNECTIONS} connections, {} answers, {}",
            counts.answered(),
            ui::time(start.elapsed())
        );
        picture.show(&draw(&services, &note), &format!("hello: {now} instances"));
        tokio::time::sleep(FRAME).await;
    }
    let load = load.await.context("the load generator failed")?;
    let zero_after = watch_fall(platform, Some("hello"), "the load has ended").await?;
    ensure!(load.answered > 0, "hello answered nothing under load");
    ensure!(
        peak > 1,
        "hello stayed at {peak} instances under {CONNECTIONS} requests at once"
    );
    Ok(Scaling {
        load,
        peak,
        peak_after,
        zero_after,
    })
}

/// Draws until one service, or every one, has no instance.
async fn watch_fall(platform: &Platform, which: Option<&str>, note: &str) -> Result<Duration> {
    let start = clock::now();
    let mut picture = ui::Redraw::default();
    loop {
        let services = platform.services().await?;
        let counted = services
            .iter()
            .filter(|service| which.is_none_or(|name| service.name == name));
        let running: u64 = counted.map(|service| service.instances).sum();
        let note = format!(
            "{note}{}{}",
            if note.is_empty() { "" } else { ", " },
            ui::time(start.elapsed())
        );
        picture.show(
            &draw(&services, &note),
            &format!("{}: {running} instances", which.unwrap_or("all")),
        );
        if running == 0 {
            return Ok(start.elapsed());
        }
        ensure!(
            start.elapsed() < FALL,
            "{running} instances are still there after {}",
            ui::time(FALL)
        );
        tokio::time::sleep(FRAME).await;
    }
}

/// One line a service: a block for each instance.
fn draw(services: &[Service], note: &str) -> String {
    let mut out = String::new();
    for service in services {
        let blocks: String = std::iter::repeat_n(
            '█',
            usize::try_from(service.instances.min(60)).unwrap_or(60),
        )
        .collect();
        let _ = writeln!(
            out,
            "   {:8} {:3} {blocks}",
            service.name, service.instances
        );
    }
    let _ = write!(out, "   {note}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instance_is_a_block() {
        let service = Service {
            name: "hello".into(),
            url: String::new(),
            instances: 3,
        };
        assert_eq!(draw(&[service], "now"), "   hello      3 ███\n   now");
    }
}
