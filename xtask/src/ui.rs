//! How the commands speak: headings, steps, tables. Colours only where a person looks on.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

/// Whether somebody watches a terminal (and not a log file).
pub(crate) fn is_live() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("CI").is_none()
}

fn paint(code: &str, text: &str) -> String {
    if is_live() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Begins a part of the work.
pub(crate) fn heading(text: &str) {
    println!("\n{}", paint("1;36", &format!("== {text}")));
}

/// One thing that was done or found.
pub(crate) fn step(text: &str) {
    println!("   {text}");
    let _ = std::io::stdout().flush();
}

/// Something the reader must not miss, though the work goes on.
pub(crate) fn warn(text: &str) {
    println!("{} {text}", paint("1;33", " !!"));
    let _ = std::io::stdout().flush();
}

/// What made the work stop.
pub(crate) fn error(text: &str) {
    let _ = std::io::stdout().flush();
    eprintln!("{} {text}", paint("1;31", "error:"));
}

/// Draws over the same lines of the terminal again and again; where there is none, prints only what changed.
#[derive(Default)]
pub(crate) struct Redraw {
    lines: usize,
    last: String,
}

impl Redraw {
    /// Shows `text` in place of what was shown before. `plain` is the line for a log file, printed when it differs from the last.
    pub(crate) fn show(&mut self, text: &str, plain: &str) {
        if is_live() {
            if self.lines > 0 {
                print!("\x1b[{}A\x1b[J", self.lines);
            }
            println!("{text}");
            self.lines = text.lines().count();
        } else if plain != self.last {
            println!("   {plain}");
            plain.clone_into(&mut self.last);
        }
        let _ = std::io::stdout().flush();
    }
}

/// A table with a header; columns are as wide as their widest cell, numbers (cells that begin with a digit) stand right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut line = |cells: &[String]| {
        let mut text = String::from("  ");
        for (index, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let numeric = index > 0 && cell.starts_with(|c: char| c.is_ascii_digit());
            let pad = " ".repeat(width - cell.chars().count());
            let _ = if numeric {
                write!(text, " {pad}{cell} ")
            } else {
                write!(text, " {cell}{pad} ")
            };
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&header.iter().map(ToString::to_string).collect::<Vec<_>>());
    line(
        &widths
            .iter()
            .map(|width| "-".repeat(*width))
            .collect::<Vec<_>>(),
    );
    for row in rows {
        line(row);
    }
    out
}

/// A duration as people read it: `1.2 ms`, `340 ms`, `2.1 s`.
pub(crate) fn time(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    match ms {
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.1} s", ms / 1e3),
        ms => format!(
            "{:.0} min {:.0} s",
            (ms / 60_000.0).floor(),
            (ms % 60_000.0) / 1e3
        ),
    }
}

/// A size as people read it.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..100_000 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => {
            let tenths = bytes * 10 / (1024 * 1024);
            format!("{}.{} MiB", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_aligns_words_left_and_numbers_right() {
        let rows = vec![
            vec!["hello".into(), "1.2 ms".into()],
            vec!["a".into(), "104.0 ms".into()],
        ];
        let text = table(&["sample", "first answer"], &rows);
        assert!(text.contains("hello         1.2 ms\n"), "{text}");
        assert!(text.contains("a           104.0 ms\n"), "{text}");
    }

    #[test]
    fn times_and_sizes_are_short() {
        assert_eq!(time(Duration::from_micros(1234)), "1.2 ms");
        assert_eq!(time(Duration::from_millis(2100)), "2.1 s");
        assert_eq!(time(Duration::from_secs(125)), "2 min 5 s");
        assert_eq!(size(1500), "2 KiB");
        assert_eq!(size(52_428_800 + 524_288), "50.5 MiB");
    }
}
