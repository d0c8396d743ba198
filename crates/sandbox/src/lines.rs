//! Cutting a stream of bytes into lines, with bounded memory.

/// A line longer than this is cut here; the rest goes on as the next record, marked as a continuation.
pub const MAX_LINE: usize = 256 << 10;

/// Cuts what arrives into lines. Holds at most one partial line.
#[derive(Debug, Default)]
pub struct LineSplitter {
    partial: Vec<u8>,
    continuing: bool,
}

/// One line, or a piece of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The bytes without the newline.
    pub bytes: &'a [u8],
    /// The line goes on in the next record of the same stream.
    pub cut: bool,
    /// The record continues a line that was cut.
    pub continues: bool,
}

impl LineSplitter {
    /// Takes bytes and hands out each line that is complete now.
    pub fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(Line<'_>)) {
        while !bytes.is_empty() {
            let room = MAX_LINE - self.partial.len();
            let window = &bytes[..bytes.len().min(room)];
            if let Some(end) = window.iter().position(|b| *b == b'\n') {
                self.emit(&window[..end], false, &mut line);
                bytes = &bytes[end + 1..];
            } else if window.len() == room && bytes.len() > room {
                // Full, and more follows; a newline right behind the cut still ends this very line.
                let cut = bytes[room] != b'\n';
                self.emit(window, cut, &mut line);
                bytes = &bytes[room + usize::from(!cut)..];
            } else {
                self.partial.extend_from_slice(window);
                bytes = &bytes[window.len()..];
                if self.partial.len() == MAX_LINE {
                    self.emit(&[], true, &mut line);
                }
            }
        }
    }

    /// Hands out the partial line, if any: at the end of the stream (`cut` false), or to free its memory (`cut` true).
    pub fn flush(&mut self, cut: bool, mut line: impl FnMut(Line<'_>)) {
        if !self.partial.is_empty() {
            self.emit(&[], cut, &mut line);
        }
        if !cut {
            self.continuing = false;
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.partial.len()
    }

    fn emit(&mut self, tail: &[u8], cut: bool, line: &mut impl FnMut(Line<'_>)) {
        let continues = self.continuing;
        self.continuing = cut;
        if self.partial.is_empty() {
            line(Line {
                bytes: tail,
                cut,
                continues,
            });
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(tail);
            line(Line {
                bytes: &whole,
                cut,
                continues,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<(Vec<u8>, bool, bool)> {
        let mut splitter = LineSplitter::default();
        let mut got = Vec::new();
        for piece in pieces {
            splitter.push(piece, |l| got.push((l.bytes.to_vec(), l.cut, l.continues)));
        }
        splitter.flush(false, |l| got.push((l.bytes.to_vec(), l.cut, l.continues)));
        got
    }

    #[test]
    fn lines_come_out_whole_whatever_the_pieces() {
        let got = split(&[b"ab", b"c\n\nde\nlast"]);
        let texts: Vec<&[u8]> = got.iter().map(|g| g.0.as_slice()).collect();
        assert_eq!(texts, [b"abc".as_slice(), b"", b"de", b"last"]);
    }

    #[test]
    fn a_line_without_end_is_cut_and_marked() {
        let long = vec![b'x'; MAX_LINE * 2 + 10];
        let got = split(&[&long, b"\nnext\n"]);
        let shape: Vec<_> = got.iter().map(|g| (g.0.len(), g.1, g.2)).collect();
        assert_eq!(
            shape,
            [
                (MAX_LINE, true, false),
                (MAX_LINE, true, true),
                (10, false, true),
                (4, false, false)
            ]
        );
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost(text in proptest::collection::vec(proptest::sample::select(vec![b'a', b'b', b'\n']), 0..400), cut in 1_usize..50) {
            let mut splitter = LineSplitter::default();
            let mut got: Vec<Vec<u8>> = Vec::new();
            for piece in text.chunks(cut) {
                splitter.push(piece, |l| got.push(l.bytes.to_vec()));
            }
            splitter.flush(false, |l| got.push(l.bytes.to_vec()));
            let mut want: Vec<Vec<u8>> = text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            if want.last().is_some_and(Vec::is_empty) {
                want.pop();
            }
            proptest::prop_assert_eq!(got, want);
        }
    }
}
