//! How results reach the terminal: tables with aligned columns, JSON, YAML, colour where it is
//! welcome.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::Value;

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
    /// For files
    Yaml,
}

/// Standard output and standard error, and what they can show.
#[derive(Debug, Clone)]
pub(crate) struct Out {
    /// The form asked for.
    pub(crate) format: Format,
    /// Whether remarks and questions are unwanted.
    pub(crate) quiet: bool,
    /// Whether standard output takes colour.
    colour: bool,
    /// Whether standard error takes colour.
    colour_err: bool,
}

/// A meaning that has a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tint {
    /// All is well.
    Good,
    /// Something failed.
    Bad,
    /// Under way, or worth a look.
    Warn,
    /// Less important.
    Dim,
    /// More important.
    Bold,
}

impl Tint {
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Warn => "33",
            Self::Dim => "2",
            Self::Bold => "1",
        }
    }
}

/// One cell of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    tint: Option<Tint>,
}

impl Cell {
    /// A cell of some colour.
    pub(crate) fn tinted(text: impl Into<String>, tint: Tint) -> Self {
        Self {
            text: text.into(),
            tint: Some(tint),
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            tint: None,
        }
    }
}

impl Out {
    /// Looks at the terminal and at `NO_COLOR` (no-color.org).
    pub(crate) fn new(format: Format, quiet: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let welcome = !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        Self {
            format,
            quiet,
            colour: welcome && io::stdout().is_terminal(),
            colour_err: welcome && io::stderr().is_terminal(),
        }
    }

    /// Whether somebody sits there who can answer.
    pub(crate) fn can_ask(&self) -> bool {
        !self.quiet && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether progress may move about on standard error.
    pub(crate) fn animated(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// Prints a result line.
    pub(crate) fn line(&self, text: &str) -> Result<()> {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// Writes bytes to standard output. A reader that has gone (`| head`) is no error.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("writing to standard output"),
        }
    }

    /// Prints a remark to standard error, unless remarks are unwanted.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Prints to standard error in any case.
    #[expect(clippy::unused_self, reason = "it belongs to the streams")]
    pub(crate) fn warn(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Colours a text for standard output.
    pub(crate) fn tint(&self, text: &str, tint: Tint) -> String {
        paint(text, Some(tint), self.colour)
    }

    /// Colours a text for standard error.
    pub(crate) fn tint_err(&self, text: &str, tint: Tint) -> String {
        paint(text, Some(tint), self.colour_err)
    }

    /// Prints a value as JSON or YAML; false when a table is wanted.
    pub(crate) fn structured(&self, value: &Value) -> Result<bool> {
        match self.format {
            Format::Table => return Ok(false),
            Format::Json => self.line(&serde_json::to_string_pretty(value)?)?,
            Format::Yaml => self.raw(yaml(value)?.as_bytes())?,
        }
        Ok(true)
    }

    /// Prints a table with a heading.
    pub(crate) fn table(&self, heading: &[&str], rows: &[Vec<Cell>]) -> Result<()> {
        self.raw(table(heading, rows, self.colour).as_bytes())
    }

    /// Prints names and what they stand for, aligned.
    pub(crate) fn facts(&self, facts: &[(&str, Cell)]) -> Result<()> {
        let rows: Vec<Vec<Cell>> = facts
            .iter()
            .map(|(name, value)| vec![Cell::tinted(format!("{name}:"), Tint::Bold), value.clone()])
            .collect();
        self.raw(table(&[], &rows, self.colour).as_bytes())
    }

    /// Asks a yes-or-no question; no answer is no.
    pub(crate) fn ask(&self, question: &str) -> Result<bool> {
        let mut stderr = io::stderr();
        write!(stderr, "{question} [y/N] ")?;
        stderr.flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes"))
    }
}

/// A value as YAML, with a final newline.
pub(crate) fn yaml(value: &Value) -> Result<String> {
    let mut text = serde_saphyr::to_string(value).context("writing YAML")?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn paint(text: &str, tint: Option<Tint>, colour: bool) -> String {
    match tint {
        Some(tint) if colour && !text.is_empty() => {
            format!("\u{1b}[{}m{text}\u{1b}[0m", tint.code())
        }
        _ => text.to_owned(),
    }
}

/// Columns two blanks apart, as wide as their widest cell; the last one is not padded.
fn table(heading: &[&str], rows: &[Vec<Cell>], colour: bool) -> String {
    let head: Vec<Cell> = heading
        .iter()
        .map(|text| Cell::tinted(*text, Tint::Bold))
        .collect();
    let head = (!head.is_empty()).then_some(&head);
    let all = || head.into_iter().chain(rows);
    let columns = all().map(Vec::len).max().unwrap_or(0);
    let width = |cell: &Cell| cell.text.chars().count();
    let widths: Vec<usize> = (0..columns)
        .map(|i| {
            all()
                .filter_map(|row| row.get(i))
                .map(width)
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            line.push_str(&paint(&cell.text, cell.tint, colour));
            if i + 1 < row.len() {
                line.push_str(&" ".repeat(widths[i] - width(cell) + 2));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_colour_does_not_count() {
        let rows = vec![
            vec![Cell::tinted("✔", Tint::Good), "hello".into(), "x".into()],
            vec!["".into(), "a".into(), "".into()],
        ];
        let plain = table(&["", "SERVICE", "URL"], &rows, false);
        assert_eq!(plain, "   SERVICE  URL\n✔  hello    x\n   a\n");
        let coloured = table(&["", "SERVICE", "URL"], &rows, true);
        assert!(coloured.contains("\u{1b}[32m✔\u{1b}[0m  hello    x\n"));
    }

    #[test]
    fn yaml_keeps_types_apart() {
        let value = serde_json::json!({"a": "true", "b": true, "c": "1", "d": 1, "e": [{"f": "x: y"}],
            "g": "", "h": "two\nlines", "i": {}, "j": [], "k": null, "l": "no", "m": "1e3", "n": "- x"});
        let text = yaml(&value).unwrap();
        for line in [
            "a: \"true\"",
            "b: true",
            "c: \"1\"",
            "d: 1",
            "i: {}",
            "j: []",
        ] {
            assert!(
                text.contains(line) || text.contains(&line.replace('"', "'")),
                "{line} in\n{text}"
            );
        }
    }
}
