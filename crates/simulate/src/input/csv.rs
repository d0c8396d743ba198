//! A recorded trace: columns with a header.

use std::time::Duration;

use jiff::Timestamp;

use super::Arrival;

/// What the columns are.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    time: usize,
    /// The column is when the request ended.
    ends: bool,
    /// Its unit, in seconds, when the values are numbers.
    time_unit: f64,
    service_time: Option<(usize, f64)>,
}

const STARTS: [&str; 8] = [
    "timestamp",
    "time",
    "arrival",
    "arrival_time",
    "start",
    "start_time",
    "start_timestamp",
    "t",
];
const ENDS: [&str; 3] = ["end", "end_time", "end_timestamp"];
const DURATIONS: [&str; 6] = [
    "duration",
    "service_time",
    "latency",
    "elapsed",
    "execution_time",
    "request_time",
];

impl Columns {
    /// Reads a header.
    pub(super) fn of(header: &str) -> Result<Self, String> {
        let names: Vec<_> = fields(header)
            .map(|f| f.trim().to_ascii_lowercase())
            .collect();
        let find = |known: &[&str]| {
            names.iter().enumerate().find_map(|(i, name)| {
                let (name, unit) = unit(name);
                known.contains(&name).then_some((i, unit))
            })
        };
        let service_time = find(&DURATIONS);
        let start = find(&STARTS).map(|(i, unit)| (i, unit, false));
        let end = || find(&ENDS).map(|(i, unit)| (i, unit, true));
        let Some((time, time_unit, ends)) = start.or_else(end) else {
            return Err(format!(
                "names no column of times; call it one of {}, or {}",
                STARTS.join(", "),
                ENDS.join(", ")
            ));
        };
        if ends && service_time.is_none() {
            return Err(
                "has times of ends and no durations: add a column named duration".to_owned(),
            );
        }
        Ok(Self {
            time,
            ends,
            time_unit,
            service_time,
        })
    }

    /// Reads a row. Beside it, how exact its time is.
    pub(super) fn row(&self, line: &str) -> Result<(Arrival, Duration), String> {
        let text = |column: usize| {
            let field = fields(line).nth(column).map(str::trim);
            field
                .filter(|field| !field.is_empty())
                .ok_or_else(|| format!("has no value in column {}", column + 1))
        };
        let time = text(self.time)?;
        let at = time_of(time, self.time_unit).ok_or_else(|| {
            format!("'{time}' is neither a number nor a time such as 2026-01-31T10:00:00Z")
        })?;
        let service_time = match self.service_time {
            None => None,
            Some((column, unit)) => {
                let value = text(column)?;
                let time = value
                    .parse()
                    .ok()
                    .and_then(|value: f64| Duration::try_from_secs_f64(value * unit).ok());
                Some(time.ok_or_else(|| format!("'{value}' is not a duration"))?)
            }
        };
        let ended = service_time.filter(|_| self.ends).unwrap_or_default();
        let arrival = Arrival {
            at: at.saturating_sub(ended),
            service_time,
        };
        Ok((arrival, Duration::ZERO))
    }
}

/// A name without the unit at its end, and that unit in seconds.
fn unit(name: &str) -> (&str, f64) {
    for (end, seconds) in [
        ("_seconds", 1.0),
        ("_s", 1.0),
        ("_ms", 1e-3),
        ("_us", 1e-6),
        ("_ns", 1e-9),
    ] {
        if let Some(rest) = name.strip_suffix(end) {
            return (rest, seconds);
        }
    }
    (name, 1.0)
}

fn time_of(text: &str, unit: f64) -> Option<Duration> {
    if let Ok(number) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(number * unit).ok();
    }
    super::parse::since_epoch(text.parse::<Timestamp>().ok()?)
}

/// The fields of a line. Quotes are taken off; a quoted field may hold commas, and no quotes.
fn fields(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let quoted = line.trim_start().strip_prefix('"');
        let (field, after) = match quoted.and_then(|inside| inside.split_once('"')) {
            Some((field, after)) => (field, after.split_once(',').map(|(_, after)| after)),
            None => match line.split_once(',') {
                Some((field, after)) => (field, Some(after)),
                None => (line, None),
            },
        };
        rest = after;
        Some(field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_with_units() {
        let columns = Columns::of("app,\"end_timestamp\",duration_ms").unwrap();
        let (arrival, _) = columns.row("\"a,b\",12.5,500").unwrap();
        assert_eq!(arrival.at, Duration::from_secs(12));
        assert_eq!(arrival.service_time, Some(Duration::from_millis(500)));
        let columns = Columns::of("Timestamp").unwrap();
        let (arrival, _) = columns.row("1970-01-01T00:00:10.25Z").unwrap();
        assert_eq!(arrival.at, Duration::from_millis(10_250));
        assert_eq!(arrival.service_time, None);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(Columns::of("a,b").unwrap_err().contains("timestamp"));
        assert!(Columns::of("end").unwrap_err().contains("duration"));
        let columns = Columns::of("t,duration").unwrap();
        assert!(columns.row("1").unwrap_err().contains("column 2"));
        assert!(columns.row("x,1").unwrap_err().contains("'x'"));
        assert!(columns.row("1,-1").unwrap_err().contains("'-1'"));
    }
}
