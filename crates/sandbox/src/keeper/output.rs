//! What instances write, from the pipes to the spool.

use super::item::{Item, State};
use crate::clock;
use crate::protocol::Reply;
use crate::spool::{Record, Stream};

use super::event_loop::Keeper;

/// What all partial lines together may hold before they are cut early.
const MAX_PARTIAL: usize = 32 << 20;

impl Keeper {
    pub(super) fn on_output(&mut self, serial: u64, stream: Stream) {
        // A bounded share per turn, so that one shouting instance does not keep the others waiting.
        for _ in 0..4 {
            if !self.read_output(serial, stream) {
                return;
            }
        }
    }

    /// Reads once; `false` when there is nothing more now.
    pub(super) fn read_output(&mut self, serial: u64, stream: Stream) -> bool {
        let Self {
            items,
            spool,
            buffer,
            partial,
            ..
        } = self;
        let Some(item) = items.get_mut(&serial) else {
            return false;
        };
        let id = match &item.state {
            State::Running(running) => running.id.as_str(),
            State::Starting { start, .. } => start.id.as_str(),
            State::Preparing { .. } | State::Ready { .. } | State::Changing => "",
        };
        let output = match stream {
            Stream::Stdout => &mut item.stdout,
            Stream::Stderr | Stream::Dropped => &mut item.stderr,
        };
        let Some(fd) = &output.fd else { return false };
        let time = clock::wall_nanos();
        let mut write = |line: crate::lines::Line<'_>| {
            if !id.is_empty() {
                spool.append(&Record {
                    time,
                    stream,
                    cut: line.cut,
                    continues: line.continues,
                    instance: id,
                    bytes: line.bytes,
                });
            }
        };
        let before = output.lines.held();
        let more = match rustix::io::read(fd, &mut buffer[..]) {
            Ok(0) => {
                output.lines.flush(false, &mut write);
                output.fd = None;
                false
            }
            Ok(count) => {
                output.lines.push(&buffer[..count], &mut write);
                if *partial + output.lines.held() > MAX_PARTIAL + before {
                    output.lines.flush(true, &mut write);
                }
                count == buffer.len()
            }
            Err(rustix::io::Errno::INTR) => true,
            Err(_) => false,
        };
        *partial = (*partial + output.lines.held()).saturating_sub(before);
        more
    }

    pub(super) fn tell_logs(&mut self) {
        let position = self.spool.commit();
        if !self.logs_told && position > self.logs_seen && self.connection.is_some() {
            self.logs_told = true;
            self.say(&Reply::LogsAdvanced, Vec::new());
        }
    }

    /// What is left in the splitters when a stream did not come to its end.
    pub(super) fn flush_lines(&mut self, item: &mut Item) {
        let id = match &item.state {
            State::Running(running) => running.id.as_str().to_owned(),
            _ => String::new(),
        };
        for (stream, output) in [
            (Stream::Stdout, &mut item.stdout),
            (Stream::Stderr, &mut item.stderr),
        ] {
            self.partial = self.partial.saturating_sub(output.lines.held());
            let time = clock::wall_nanos();
            output.lines.flush(false, |line| {
                if !id.is_empty() {
                    self.spool.append(&Record {
                        time,
                        stream,
                        cut: false,
                        continues: line.continues,
                        instance: &id,
                        bytes: line.bytes,
                    });
                }
            });
        }
    }
}
