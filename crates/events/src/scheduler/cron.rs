//! Schedules: `minute hour day-of-month month day-of-week` (crontab(5)), in a time zone.
//!
//! Daylight saving time. A schedule that names its hours and minutes fires once a day: when its time is
//! skipped it fires at the moment of the change, and when its time comes twice it fires the first time. A
//! schedule with `*` or a step as its hour or minute follows time as it passes: it has nothing to do in
//! an hour that is skipped, and fires in both of two that are called the same.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// How far ahead a time is looked for: the longest wait is for a 29th of February on a given day of
/// the week.
const MAX_DAYS: i32 = 366 * 41;

/// A schedule that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether days of the month and of the week both count when both are said: either is enough.
    either_day: bool,
    /// Whether it names its hours and minutes.
    fixed: bool,
}

/// A schedule that was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CronError(String);

struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        least: 0,
        most: 59,
        names: &[],
    },
    Field {
        name: "hour",
        least: 0,
        most: 23,
        names: &[],
    },
    Field {
        name: "day of month",
        least: 1,
        most: 31,
        names: &[],
    },
    Field {
        name: "month",
        least: 1,
        most: 12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    Field {
        name: "day of week",
        least: 0,
        most: 7,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];

impl Cron {
    /// Reads a schedule.
    ///
    /// # Errors
    /// Says which field is wrong and what is allowed.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = words.as_slice() else {
            return Err(CronError(format!(
                "'{text}' has {} fields; a schedule has five: minute, hour, day of month, month, \
                 day of week, such as '*/5 9-17 * * mon-fri'",
                words.len()
            )));
        };
        let [of_minute, of_hour, of_day, of_month, of_weekday] = &FIELDS;
        let mut weekdays = of_weekday.read(weekday)?;
        // Sunday is 0 and 7.
        weekdays |= weekdays >> 7 & 1;
        let any = |word: &str| word.starts_with('*');
        Ok(Self {
            minutes: of_minute.read(minute)?,
            hours: of_hour.read(hour)?,
            days: of_day.read(day)?,
            months: of_month.read(month)?,
            weekdays,
            either_day: !any(day) && !any(weekday),
            fixed: !any(minute) && !any(hour),
        })
    }

    /// The first time after `after`; `None` if there is none, as of a 30th of February.
    #[must_use]
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut date = zone.to_datetime(after).date();
        for _ in 0..MAX_DAYS {
            if self.is_day(date)
                && let Some(found) = self.on(date, after, zone)
            {
                return Some(found);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn is_day(&self, date: Date) -> bool {
        let has = |set: u64, n: i8| u32::try_from(n).is_ok_and(|n| set >> n & 1 == 1);
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let is = if self.either_day {
            day || weekday
        } else {
            day && weekday
        };
        is && has(self.months, date.month())
    }

    /// The first time after `after` that is on this day.
    fn on(&self, date: Date, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let begin = date.to_datetime(Time::midnight());
        let end = begin.checked_add(SignedDuration::from_hours(24)).ok()?;
        let offset = |of: DateTime| zone.to_ambiguous_timestamp(of).offset();
        if let (
            AmbiguousOffset::Unambiguous { offset: one },
            AmbiguousOffset::Unambiguous { offset: other },
        ) = (offset(begin), offset(end))
            && one == other
        {
            // A day like any other: the times are in order, and one conversion is enough.
            let local = zone.to_datetime(after);
            return self
                .times()
                .map(|time| date.to_datetime(time))
                .find(|at| *at > local)
                .and_then(|at| one.to_timestamp(at).ok());
        }
        self.times()
            .flat_map(|time| self.moments(date.to_datetime(time), zone))
            .filter(|moment| *moment > after)
            .min()
    }

    fn times(&self) -> impl Iterator<Item = Time> {
        let bits = |set: u64, most: i8| {
            (0..=most).filter(move |n| u32::try_from(*n).is_ok_and(|n| set >> n & 1 == 1))
        };
        let minutes = self.minutes;
        bits(self.hours, 23).flat_map(move |hour| {
            bits(minutes, 59).filter_map(move |minute| Time::new(hour, minute, 0, 0).ok())
        })
    }

    /// When a time of a day with a change is.
    fn moments(&self, at: DateTime, zone: &TimeZone) -> Vec<Timestamp> {
        match zone.to_ambiguous_timestamp(at).offset() {
            AmbiguousOffset::Unambiguous { offset } => {
                offset.to_timestamp(at).into_iter().collect()
            }
            AmbiguousOffset::Gap { before, .. } => {
                let skipped = before.to_timestamp(at).ok().filter(|_| self.fixed);
                let change = skipped.and_then(|moment| {
                    let later = moment.checked_add(SignedDuration::from_nanos(1)).ok()?;
                    zone.preceding(later)
                        .next()
                        .map(|change| change.timestamp())
                });
                change.into_iter().collect()
            }
            AmbiguousOffset::Fold { before, after } => {
                let first = before.to_timestamp(at).ok();
                let second = after.to_timestamp(at).ok().filter(|_| !self.fixed);
                first.into_iter().chain(second).collect()
            }
        }
    }
}

impl Field {
    /// Reads `*`, `*/2`, `1,5-9,mon-fri/2` and the like into a set of bits.
    fn read(&self, text: &str) -> Result<u64, CronError> {
        let mut set = 0;
        for part in text.split(',') {
            set |= self.part(part).ok_or_else(|| {
                let names = match self.names {
                    [first, .., last] => format!(", or {first} to {last}"),
                    _ => String::new(),
                };
                CronError(format!(
                    "'{text}' is no {}: allowed are *, numbers from {} to {}{names}, ranges such as \
                     {}-{}, steps such as */2, and lists of those",
                    self.name,
                    self.least,
                    self.most,
                    self.least,
                    self.least + 2
                ))
            })?;
        }
        Ok(set)
    }

    fn part(&self, part: &str) -> Option<u64> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step).filter(|step| *step > 0)?)),
            None => (part, None),
        };
        let (first, last) = if range == "*" {
            // 7 is Sunday once more.
            (self.least, if self.most == 7 { 6 } else { self.most })
        } else if let Some((first, last)) = range.split_once('-') {
            (self.value(first)?, self.value(last)?)
        } else {
            let value = self.value(range)?;
            // As in Vixie's cron, `5/10` is from 5 on.
            (value, if step.is_some() { self.most } else { value })
        };
        if first > last {
            return None;
        }
        let step = usize::try_from(step.unwrap_or(1)).ok()?;
        Some((first..=last).step_by(step).fold(0, |set, n| set | 1 << n))
    }

    fn value(&self, text: &str) -> Option<u32> {
        let named = self
            .names
            .iter()
            .position(|name| name.eq_ignore_ascii_case(text))
            .and_then(|n| u32::try_from(n).ok())
            .map(|n| n + self.least);
        let value = named.or_else(|| number(text))?;
        (self.least..=self.most).contains(&value).then_some(value)
    }
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The next few times, in local form.
    fn times(schedule: &str, zone_name: &str, after: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(schedule).unwrap();
        let zone = zone(zone_name);
        let mut last = at(after);
        (0..count)
            .map(|_| {
                last = cron.next(last, &zone).unwrap();
                last.to_zoned(zone.clone())
                    .strftime("%a %m-%d %H:%M %:z")
                    .to_string()
            })
            .collect()
    }

    #[test]
    fn schedules_of_all_sorts() {
        let times = |schedule, count| times(schedule, "UTC", "2026-03-04T10:20:30Z", count);
        assert_eq!(times("* * * * *", 1), ["Wed 03-04 10:21 +00:00"]);
        assert_eq!(
            times("*/15 * * * *", 2),
            ["Wed 03-04 10:30 +00:00", "Wed 03-04 10:45 +00:00"]
        );
        assert_eq!(
            times("0 9 * * mon-fri", 3),
            [
                "Thu 03-05 09:00 +00:00",
                "Fri 03-06 09:00 +00:00",
                "Mon 03-09 09:00 +00:00"
            ]
        );
        assert_eq!(times("0 0 1 JAN *", 1), ["Fri 01-01 00:00 +00:00"]);
        assert_eq!(
            times("5/20 8 * * *", 3),
            [
                "Thu 03-05 08:05 +00:00",
                "Thu 03-05 08:25 +00:00",
                "Thu 03-05 08:45 +00:00"
            ]
        );
        // The 13th or a Friday.
        assert_eq!(
            times("0 0 13 * 5", 3),
            [
                "Fri 03-06 00:00 +00:00",
                "Fri 03-13 00:00 +00:00",
                "Fri 03-20 00:00 +00:00"
            ]
        );
        assert_eq!(times("0 0 * * 7", 1), times("0 0 * * sun", 1));
        assert_eq!(times("0 0 29 2 *", 1), ["Tue 02-29 00:00 +00:00"]);
    }

    #[test]
    fn what_never_comes_never_comes() {
        let cron = Cron::parse("0 0 30 2 *").unwrap();
        assert_eq!(cron.next(at("2026-01-01T00:00:00Z"), &TimeZone::UTC), None);
    }

    #[test]
    fn a_skipped_time_fires_at_the_change_and_a_double_one_once() {
        // New York: 02:00 became 03:00 on 8 March 2026, and 02:00 becomes 01:00 on 1 November.
        let spring =
            |schedule, count| times(schedule, "America/New_York", "2026-03-08T05:59:00Z", count);
        assert_eq!(
            spring("30 2 * * *", 2),
            ["Sun 03-08 03:00 -04:00", "Mon 03-09 02:30 -04:00"]
        );
        assert_eq!(
            spring("0,30 1-3 * * *", 4),
            [
                "Sun 03-08 01:00 -05:00",
                "Sun 03-08 01:30 -05:00",
                "Sun 03-08 03:00 -04:00",
                "Sun 03-08 03:30 -04:00"
            ]
        );
        assert_eq!(
            spring("30 * * * *", 3),
            [
                "Sun 03-08 01:30 -05:00",
                "Sun 03-08 03:30 -04:00",
                "Sun 03-08 04:30 -04:00"
            ]
        );
        let autumn =
            |schedule, count| times(schedule, "America/New_York", "2026-11-01T04:59:00Z", count);
        assert_eq!(
            autumn("30 1 * * *", 2),
            ["Sun 11-01 01:30 -04:00", "Mon 11-02 01:30 -05:00"]
        );
        assert_eq!(
            autumn("30 * * * *", 4),
            [
                "Sun 11-01 01:30 -04:00",
                "Sun 11-01 01:30 -05:00",
                "Sun 11-01 02:30 -05:00",
                "Sun 11-01 03:30 -05:00"
            ]
        );
        // A zone whose changes are of half an hour, and one whose change is at midnight.
        let lord_howe = times(
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T12:00:00Z",
            1,
        );
        assert_eq!(lord_howe, ["Sun 10-04 02:30 +11:00"]);
        let cairo = times("0 0 * * *", "Africa/Cairo", "2026-04-23T12:00:00Z", 1);
        assert_eq!(cairo, ["Fri 04-24 01:00 +03:00"]);
    }

    #[test]
    fn errors_name_the_field_and_what_is_allowed() {
        for (text, part) in [
            ("* * * *", "has 4 fields"),
            ("", "has 0 fields"),
            ("every 5 minutes", "has 3 fields"),
            ("60 * * * *", "'60' is no minute"),
            ("* 24 * * *", "no hour"),
            ("* * 0 * *", "no day of month"),
            ("* * * 13 *", "or jan to dec"),
            ("* * * * 8", "or sun to sat"),
            ("*/0 * * * *", "no minute"),
            ("5-1 * * * *", "no minute"),
            ("1, * * * *", "no minute"),
            ("-1 * * * *", "no minute"),
            ("99999999999999999999 * * * *", "no minute"),
        ] {
            let error = Cron::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn on_plain_days_it_is_what_looking_at_every_minute_finds(
            minute in "(\\*|[0-5]?[0-9]|\\*/[1-9])", hour in "(\\*|1?[0-9]|\\*/[1-5])",
            day in "(\\*|[1-9]|1[0-9])", weekday in "(\\*|[0-7])", begin in 0..40_000_i64,
        ) {
            let cron = Cron::parse(&format!("{minute} {hour} {day} * {weekday}")).unwrap();
            let after = Timestamp::from_second(1_767_000_000 + begin * 60 + 17).unwrap();
            let mut looked = after.as_second() / 60 * 60;
            let found = loop {
                looked += 60;
                let local = TimeZone::UTC.to_datetime(Timestamp::from_second(looked).unwrap());
                let has = |set: u64, n: i8| set >> n & 1 == 1;
                if cron.is_day(local.date()) && has(cron.hours, local.hour()) && has(cron.minutes, local.minute()) {
                    break looked;
                }
            };
            prop_assert_eq!(cron.next(after, &TimeZone::UTC).map(Timestamp::as_second), Some(found));
        }

        #[test]
        fn no_text_is_too_much(text in "[-*/,0-9a-z ]{0,40}") {
            if let Ok(cron) = Cron::parse(&text) {
                let after = at("2026-03-07T00:00:00Z");
                if let Some(next) = cron.next(after, &zone("Europe/Berlin")) {
                    prop_assert!(next > after);
                }
            }
        }
    }
}
