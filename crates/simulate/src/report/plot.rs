//! Scenarios over time, as one SVG picture: instances, requests, those that waited and those refused.
//!
//! Written here: a few lines and texts need no library, and the same numbers give the same bytes.

use std::fmt::Write as _;

use super::{Bucket, Report};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 28.0;
const PANEL: f64 = 150.0;
const GAP: f64 = 40.0;
/// Colours that people tell apart who see colours differently (after Okabe and Ito).
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555",
];

/// A figure of a bucket; the last argument is its length in seconds.
type Figure = fn(&Bucket, f64) -> f64;

const PANELS: [(&str, Figure); 4] = [
    ("Instances", |b, seconds| {
        (b.instance_seconds + b.starting_seconds) / seconds
    }),
    ("Requests at once", |b, seconds| b.request_seconds / seconds),
    ("Waiting for an instance, at most", |b, _| {
        f64::from(b.most_queued)
    }),
    ("Refused a second (429)", |b, seconds| {
        #[expect(clippy::cast_precision_loss, reason = "for a picture")]
        let refused = b.refused as f64;
        refused / seconds
    }),
];

/// Draws reports of the same requests.
#[must_use]
pub fn plot(reports: &[Report]) -> String {
    let seconds = reports.iter().map(|r| r.totals.seconds).fold(1.0, f64::max);
    let legend = TOP + 18.0 * count(reports.len());
    let panels = count(PANELS.len());
    let height = legend + panels * (PANEL + GAP) + 24.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (i, report) in reports.iter().enumerate() {
        let y = TOP + 18.0 * count(i);
        let colour = COLOURS[i % COLOURS.len()];
        line(
            &mut out,
            &[(LEFT, y - 4.0), (LEFT + 24.0, y - 4.0)],
            colour,
            2.0,
        );
        text(&mut out, LEFT + 32.0, y, "start", &report.name);
    }
    for (i, (title, figure)) in PANELS.iter().enumerate() {
        let top = legend + count(i) * (PANEL + GAP) + 12.0;
        panel(&mut out, top, title, *figure, reports, seconds);
    }
    let bottom = legend + panels * (PANEL + GAP);
    for (at, label) in time_marks(seconds) {
        let x = LEFT + at / seconds * (WIDTH - LEFT - RIGHT);
        text(&mut out, x, bottom - GAP + 28.0, "middle", &label);
    }
    out.push_str("</svg>\n");
    out
}

fn panel(
    out: &mut String,
    top: f64,
    title: &str,
    figure: Figure,
    reports: &[Report],
    seconds: f64,
) {
    let values = |report: &Report| -> Vec<f64> {
        let width = report.bucket_seconds;
        // The last bucket may end before it is full.
        let length = |i: usize| (report.totals.seconds - count(i) * width).clamp(1e-3, width);
        let buckets = report.timeline.iter().enumerate();
        buckets.map(|(i, b)| figure(b, length(i))).collect()
    };
    let all: Vec<_> = reports.iter().map(values).collect();
    let highest = all.iter().flatten().copied().fold(0.0, f64::max);
    let step = nice(highest / 4.0);
    let most = (highest / step).ceil().max(1.0) * step;
    text(out, LEFT, top - 6.0, "start", title);
    let mut mark = 0.0;
    while mark <= most + step / 2.0 {
        let y = top + PANEL * (1.0 - mark / most);
        line(out, &[(LEFT, y), (WIDTH - RIGHT, y)], "#dddddd", 1.0);
        text(out, LEFT - 8.0, y + 4.0, "end", &number(mark));
        mark += step;
    }
    let x = |at: f64| LEFT + (at / seconds).min(1.0) * (WIDTH - LEFT - RIGHT);
    for (i, (report, values)) in reports.iter().zip(&all).enumerate() {
        let mut points = Vec::with_capacity(values.len() * 2);
        for (bucket, value) in values.iter().enumerate() {
            let y = top + PANEL * (1.0 - value / most);
            let (from, to) = (count(bucket), count(bucket + 1));
            points.push((x(from * report.bucket_seconds), y));
            points.push((
                x((to * report.bucket_seconds).min(report.totals.seconds)),
                y,
            ));
        }
        line(out, &points, COLOURS[i % COLOURS.len()], 1.5);
    }
}

fn line(out: &mut String, points: &[(f64, f64)], colour: &str, width: f64) {
    let mut path = String::new();
    for (x, y) in points {
        let _ = write!(path, "{x:.1},{y:.1} ");
    }
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
        path.trim_end()
    );
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222222\">{escaped}</text>"
    );
}

/// Moments to mark, five or so, and what to write there.
fn time_marks(seconds: f64) -> Vec<(f64, String)> {
    const STEPS: [f64; 20] = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0,
        14_400.0, 21_600.0, 43_200.0, 86_400.0, 172_800.0, 604_800.0,
    ];
    let fits = |step: &&f64| seconds / **step <= 7.0;
    let step = STEPS.iter().find(fits).copied().unwrap_or(seconds / 6.0);
    let mut marks = Vec::new();
    let mut at = 0.0;
    while at <= seconds {
        let label = match step {
            ..60.0 => format!("{at:.0} s"),
            ..3600.0 => format!("{:.0} min", at / 60.0),
            ..86_400.0 => format!("{:.0} h", at / 3600.0),
            _ => format!("{:.0} d", at / 86_400.0),
        };
        marks.push((at, label));
        at += step;
    }
    marks
}

/// The next of 1, 2, 5, 10, 20, ... that is not smaller.
fn nice(least: f64) -> f64 {
    if least <= 0.0 {
        return 1.0;
    }
    let mut unit = 1e-6;
    loop {
        for factor in [1.0, 2.0, 5.0] {
            if unit * factor >= least {
                return unit * factor;
            }
        }
        unit *= 10.0;
    }
}

fn number(value: f64) -> String {
    if value >= 10_000.0 {
        format!("{:.0}k", value / 1000.0)
    } else if (value - value.round()).abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a picture")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_numbers() {
        assert!((nice(3.2) - 5.0).abs() < 1e-9);
        assert!((nice(0.0) - 1.0).abs() < 1e-9);
        assert!((nice(0.013) - 0.02).abs() < 1e-9);
        let labels: Vec<_> = time_marks(3600.0).into_iter().map(|(_, l)| l).collect();
        assert_eq!(
            labels,
            [
                "0 min", "10 min", "20 min", "30 min", "40 min", "50 min", "60 min"
            ]
        );
    }
}
