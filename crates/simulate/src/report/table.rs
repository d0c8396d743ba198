//! Scenarios side by side, as text.

use std::fmt::Write as _;

use super::{Bill, Report};

/// A table with a row for each figure and a column for each scenario.
#[must_use]
pub fn table(reports: &[Report]) -> String {
    let names = reports.iter().map(|r| r.name.clone());
    let mut rows = vec![row("", names)];
    let mut add = |label: &str, value: &dyn Fn(&Report) -> String| {
        rows.push(row(label, reports.iter().map(value)));
    };
    add("requests", &|r| whole(r.totals.requests));
    add("  served", &|r| share(r.totals.served, r.totals.requests));
    add("  no instance (429)", &|r| whole(r.totals.refused));
    add("  over their timeout (504)", &|r| whole(r.totals.timed_out));
    add("  start failed (503)", &|r| whole(r.totals.failed));
    add("  waited for an instance", &|r| whole(r.totals.waited));
    add("latency p50", &|r| millis(r.totals.latency.p50));
    add("        p95", &|r| millis(r.totals.latency.p95));
    add("        p99", &|r| millis(r.totals.latency.p99));
    add("        max", &|r| millis(r.totals.latency.max));
    add("waiting p99", &|r| millis(r.totals.waiting.p99));
    add("queued at most", &|r| whole(r.totals.most_queued.into()));
    add("instances at most", &|r| {
        whole(r.totals.most_instances.into())
    });
    add("          on average", &|r| {
        format!(
            "{:.2}",
            r.totals.instance_seconds / r.totals.seconds.max(1e-9)
        )
    });
    add("cold starts", &|r| whole(r.totals.starts));
    add("instance-seconds", &|r| seconds(r.totals.instance_seconds));
    add("billed by", &|r| r.billed_by.to_owned());
    add("  vCPU-seconds", &|r| seconds(r.bill().cpu_seconds));
    add("  GiB-seconds", &|r| seconds(r.bill().gib_seconds));
    add("  cost", &|r| format!("{:.4}", r.bill().cost));
    let month = |bill: &Bill| format!("{} ({})", bill.month_after_free, bill.month);
    add("30 days like it, by requests", &|r| month(&r.request_based));
    add("                 by instances", &|r| {
        month(&r.instance_based)
    });
    aligned(&rows)
}

fn row(label: &str, cells: impl Iterator<Item = String>) -> Vec<String> {
    std::iter::once(label.to_owned()).chain(cells).collect()
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string does not fail.
            let _ = match i {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A whole number, its thousands apart.
fn whole(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn share(part: u64, all: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for reading")]
    let percent = part as f64 * 100.0 / all.max(1) as f64;
    format!("{} ({percent:.2} %)", whole(part))
}

fn millis(millis: f64) -> String {
    match millis {
        ..10.0 => format!("{millis:.2} ms"),
        ..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", millis / 1000.0),
    }
}

fn seconds(seconds: f64) -> String {
    match seconds {
        ..100.0 => format!("{seconds:.1}"),
        _ => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "for reading"
            )]
            let seconds = seconds.round() as u64;
            whole(seconds)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(whole(0), "0");
        assert_eq!(whole(1_234_567), "1,234,567");
        assert_eq!(share(999, 1000), "999 (99.90 %)");
        assert_eq!(millis(1.234), "1.23 ms");
        assert_eq!(millis(123.4), "123 ms");
        assert_eq!(millis(1234.0), "1.23 s");
        assert_eq!(seconds(12_345.6), "12,346");
    }
}
