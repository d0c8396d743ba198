//! A reader cut into pieces of bounded size: lines, or the objects of a JSON array.

use std::io::{self, BufRead};

/// The longest piece.
const LONGEST: usize = 1 << 20;

/// One piece.
pub(super) struct Chunk<'a> {
    pub(super) bytes: &'a [u8],
    /// The number of its first line, from 1.
    pub(super) first_line: u64,
    /// The number of its last.
    pub(super) last_line: u64,
    /// It was longer than may be, and `bytes` are its beginning.
    pub(super) too_long: bool,
}

pub(super) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    line: u64,
    /// `None` before the first byte.
    array: Option<bool>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            line: 0,
            array: None,
        }
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Chunk<'_>>> {
        let array = match self.array {
            Some(array) => array,
            None => {
                let array = self.begins_with_bracket()?;
                self.array = Some(array);
                array
            }
        };
        if array {
            self.object()
        } else {
            self.one_line()
        }
    }

    /// Looks past blanks at the first byte that is none. A `[` is taken.
    fn begins_with_bracket(&mut self) -> io::Result<bool> {
        loop {
            let (blanks, lines, next) = {
                let seen = fill(&mut self.reader)?;
                let blanks = seen.iter().take_while(|b| b.is_ascii_whitespace()).count();
                let lines = count_lines(&seen[..blanks]);
                (blanks, lines, seen.get(blanks).copied())
            };
            self.line += lines;
            let bracket = next == Some(b'[');
            self.reader.consume(blanks + usize::from(bracket));
            if next.is_some() || blanks == 0 {
                // The number of the line that is begun.
                self.line += u64::from(bracket);
                return Ok(bracket);
            }
        }
    }

    fn one_line(&mut self) -> io::Result<Option<Chunk<'_>>> {
        self.buffer.clear();
        let mut too_long = false;
        loop {
            let seen = fill(&mut self.reader)?;
            if seen.is_empty() {
                if self.buffer.is_empty() && !too_long {
                    return Ok(None);
                }
                break;
            }
            let end = seen.iter().position(|b| *b == b'\n');
            let part = &seen[..end.unwrap_or(seen.len())];
            let room = LONGEST - self.buffer.len();
            too_long |= part.len() > room;
            self.buffer.extend_from_slice(&part[..part.len().min(room)]);
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        self.line += 1;
        Ok(Some(Chunk {
            bytes: &self.buffer,
            first_line: self.line,
            last_line: self.line,
            too_long,
        }))
    }

    /// The next object of an array: from its `{` to the `}` that closes it.
    fn object(&mut self) -> io::Result<Option<Chunk<'_>>> {
        self.buffer.clear();
        let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
        let mut first_line = self.line;
        let mut too_long = false;
        loop {
            let seen = fill(&mut self.reader)?;
            if seen.is_empty() {
                if depth == 0 {
                    return Ok(None);
                }
                break;
            }
            let mut used = 0;
            let mut whole = false;
            for byte in seen {
                used += 1;
                if *byte == b'\n' {
                    self.line += 1;
                }
                if depth == 0 && *byte != b'{' {
                    continue;
                }
                if depth == 0 {
                    first_line = self.line;
                }
                if self.buffer.len() < LONGEST {
                    self.buffer.push(*byte);
                } else {
                    too_long = true;
                }
                match (*byte, in_string) {
                    _ if escaped => escaped = false,
                    (b'\\', true) => escaped = true,
                    (b'"', _) => in_string = !in_string,
                    (b'{', false) => depth += 1,
                    (b'}', false) => depth -= 1,
                    _ => {}
                }
                whole = depth == 0;
                if whole {
                    break;
                }
            }
            self.reader.consume(used);
            if whole {
                break;
            }
        }
        Ok(Some(Chunk {
            bytes: &self.buffer,
            first_line,
            last_line: self.line,
            too_long,
        }))
    }
}

fn fill<R: BufRead>(reader: &mut R) -> io::Result<&[u8]> {
    // `fill_buf` in a loop that returns what it borrows is more than the borrow checker follows.
    loop {
        match reader.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    reader.fill_buf()
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|b| u64::from(*b == b'\n')).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<(String, u64)> {
        // A small buffer, so that pieces lie across its ends.
        let mut lines = Lines::new(io::BufReader::with_capacity(7, text.as_bytes()));
        let mut all = Vec::new();
        while let Some(chunk) = lines.next().unwrap() {
            let text = String::from_utf8(chunk.bytes.to_vec()).unwrap();
            all.push((text, chunk.first_line));
        }
        all
    }

    #[test]
    fn lines_are_numbered() {
        let expected = [
            ("one".to_owned(), 1),
            (String::new(), 2),
            ("three".to_owned(), 3),
        ];
        assert_eq!(pieces("one\n\nthree"), expected);
        assert_eq!(pieces(""), []);
    }

    #[test]
    fn an_array_is_cut_into_its_objects() {
        let text = "\n[\n  {\"a\": \"} \\\" {\",\n   \"b\": {}},\n  {\"c\": 1}\n]\n";
        let expected = [
            ("{\"a\": \"} \\\" {\",\n   \"b\": {}}".to_owned(), 3),
            ("{\"c\": 1}".to_owned(), 5),
        ];
        assert_eq!(pieces(text), expected);
        assert_eq!(
            pieces("[{\"a\": 1").len(),
            1,
            "what is cut off is still told"
        );
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_others() {
        let mut text = vec![b'x'; 3 << 20];
        text.extend_from_slice(b"\nnext");
        let mut lines = Lines::new(&text[..]);
        let first = lines.next().unwrap().unwrap();
        assert!(first.too_long);
        assert_eq!(first.bytes.len(), LONGEST);
        let second = lines.next().unwrap().unwrap();
        assert_eq!((second.bytes, second.first_line), (&b"next"[..], 2));
    }
}
