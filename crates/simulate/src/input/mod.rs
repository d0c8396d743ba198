//! From a log to requests in the order they arrived.
//!
//! Lines are read one by one and forgotten. Logs are written when requests end, so a window of some
//! requests is kept to put them in order; who is later than that counts as arriving now, and is counted.
//! A line that makes no sense is counted, and the first of them are named.

mod csv;
mod lines;
mod parse;
mod reorder;

use std::io::{self, BufRead};
use std::time::Duration;

use serde::Serialize;

use crate::random::{self, Random};
use lines::{Chunk, Lines};
use parse::{Parsed, Parser};
use reorder::Reorder;

/// How a log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Cloud Logging's entries: one JSON object a line, or all in one array.
    Json,
    /// The combined log format of Apache and nginx, or the common one, with the time taken in seconds as
    /// last field where it is.
    Combined,
    /// Columns with a header: `timestamp`, and `duration` if there is.
    Csv,
}

/// One request of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it arrived, since 1970 or whatever the log counts from.
    pub at: Duration,
    /// How long an instance worked on it, if the log says so and one did.
    pub service_time: Option<Duration>,
}

/// How to read a log.
#[derive(Debug, Clone)]
pub struct InputOptions {
    /// Its format; found out from its first line when `None`.
    pub format: Option<Format>,
    /// Only requests to this service; all when `None`. Combined logs and traces name none.
    pub service: Option<String>,
    /// Only requests to this revision.
    pub revision: Option<String>,
    /// How many requests are kept to put them in order.
    pub window: usize,
    /// Times of whole seconds are spread over their second, by this seed.
    pub seed: u64,
}

impl Default for InputOptions {
    fn default() -> Self {
        Self {
            format: None,
            service: None,
            revision: None,
            window: 20_000,
            seed: 1,
        }
    }
}

/// A line that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InputSummary {
    /// How it is written.
    pub format: Option<Format>,
    /// Lines, empty ones too.
    pub lines: u64,
    /// Requests played.
    pub requests: u64,
    /// Those of other services and revisions, and entries that are about no request.
    pub others: u64,
    /// Those that came too late to be put in their place.
    pub late: u64,
    /// Lines that make no sense.
    pub bad: u64,
    /// The first of them.
    pub first_bad: Vec<BadLine>,
}

/// Bad lines that are named.
const NAMED: usize = 10;

/// A log being read.
pub struct Input<R> {
    lines: Lines<R>,
    options: InputOptions,
    parser: Option<Parser>,
    reorder: Reorder,
    places: Random,
    summary: InputSummary,
}

impl<R: BufRead> Input<R> {
    /// Begins to read.
    pub fn new(reader: R, options: InputOptions) -> Self {
        Self {
            lines: Lines::new(reader),
            parser: None,
            reorder: Reorder::new(options.window),
            places: Random::new(options.seed, random::PLACES),
            summary: InputSummary::default(),
            options,
        }
    }

    /// What was read so far.
    #[must_use]
    pub fn summary(&self) -> &InputSummary {
        &self.summary
    }

    /// The next request, in the order of arrival.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn next_arrival(&mut self) -> io::Result<Option<Arrival>> {
        while !self.reorder.is_full() {
            let Some(chunk) = self.lines.next()? else {
                break;
            };
            self.summary.lines = chunk.last_line;
            match parse_chunk(&mut self.parser, &self.options, &chunk) {
                Ok(Parsed::Arrival(arrival, precision)) => {
                    let place = precision.mul_f64(self.places.unit());
                    self.reorder.push(Arrival {
                        at: arrival.at + place,
                        ..arrival
                    });
                }
                Ok(Parsed::Nothing) => {}
                Ok(Parsed::Other) => self.summary.others += 1,
                Err(why) => {
                    self.summary.bad += 1;
                    if self.summary.first_bad.len() < NAMED {
                        let line = chunk.first_line;
                        self.summary.first_bad.push(BadLine { line, why });
                    }
                }
            }
            self.summary.format = self.parser.as_ref().map(Parser::format);
        }
        let next = self.reorder.pop();
        self.summary.late = self.reorder.late();
        self.summary.requests += u64::from(next.is_some());
        Ok(next)
    }
}

fn parse_chunk(
    parser: &mut Option<Parser>,
    options: &InputOptions,
    chunk: &Chunk<'_>,
) -> Result<Parsed, String> {
    let text = match (chunk.too_long, std::str::from_utf8(chunk.bytes)) {
        (true, _) => return Err("is longer than 1 MiB".to_owned()),
        (_, Ok(text)) => text.trim(),
        (_, Err(_)) => return Err("is not UTF-8".to_owned()),
    };
    if text.is_empty() {
        return Ok(Parsed::Nothing);
    }
    if let Some(parser) = parser {
        return parser.parse(text, options);
    }
    // The first line says what the others are, and may be one of them.
    let (made, first) = Parser::of(text, options)?;
    let result = match first {
        true => made.parse(text, options),
        false => Ok(Parsed::Nothing),
    };
    *parser = Some(made);
    result
}
