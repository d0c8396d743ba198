//! Frames with file descriptors over a Unix stream socket.
//!
//! A frame is eight bytes of header (length, number of descriptors, both little-endian `u32`) and a body. The descriptors
//! travel with the first bytes of their frame and are counted out by the header, so that it does not matter how the kernel
//! glues reads together. Both sides bound what they take: [`MAX_FRAME`] bytes and [`MAX_FDS`] descriptors.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest body.
pub const MAX_FRAME: usize = 4 << 20;

/// The most descriptors with one frame.
pub const MAX_FDS: usize = 4;

const HEADER: usize = 8;

/// A frame as received.
#[derive(Debug)]
pub struct Frame {
    /// The encoded message.
    pub body: Vec<u8>,
    /// What came with it.
    pub fds: Vec<OwnedFd>,
}

impl Frame {
    /// Decodes the message.
    ///
    /// # Errors
    /// When it is not what `T` is written as.
    pub fn decode<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.body).map_err(|e| bad(format!("message not understood: {e}")))
    }
}

fn bad(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// The receiving half.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl FrameReader {
    /// Reads once from the socket. `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// What `recvmsg` gives, `WouldBlock` included.
    pub fn fill(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let mut chunk = [0_u8; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut chunk)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if self.fds.len() > 64 * MAX_FDS {
            return Err(bad("more descriptors than frames account for"));
        }
        self.buffer.extend_from_slice(&chunk[..received.bytes]);
        Ok(received.bytes)
    }

    /// Takes the next complete frame out.
    ///
    /// # Errors
    /// When a header claims more than the bounds allow; the connection is of no use after that.
    pub fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        let Some((header, _)) = self.buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, f0, f1, f2, f3] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let count = u32::from_le_bytes([f0, f1, f2, f3]) as usize;
        if length > MAX_FRAME || count > MAX_FDS {
            return Err(bad(format!(
                "frame of {length} bytes and {count} descriptors is over the bound"
            )));
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        if self.fds.len() < count {
            return Err(bad("frame without its descriptors"));
        }
        let body = self.buffer[HEADER..HEADER + length].to_vec();
        self.buffer.drain(..HEADER + length);
        if self.buffer.is_empty() && self.buffer.capacity() > (256 << 10) {
            self.buffer = Vec::new();
        }
        Ok(Some(Frame {
            body,
            fds: self.fds.drain(..count).collect(),
        }))
    }
}

/// The sending half: a queue that is written as the socket takes it.
#[derive(Debug, Default)]
pub struct FrameWriter {
    queue: VecDeque<Outgoing>,
    bytes: usize,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

impl FrameWriter {
    /// Puts a message into the queue.
    ///
    /// # Errors
    /// When the message is over the bounds.
    pub fn push<T: Serialize>(&mut self, message: &T, fds: Vec<OwnedFd>) -> io::Result<()> {
        let mut bytes = vec![0; HEADER];
        serde_json::to_writer(&mut bytes, message).map_err(|e| bad(e.to_string()))?;
        let length = bytes.len() - HEADER;
        if length > MAX_FRAME || fds.len() > MAX_FDS {
            return Err(bad(format!(
                "message of {length} bytes and {} descriptors is over the bound",
                fds.len()
            )));
        }
        let length = u32::try_from(length).map_err(|_| bad("message too long"))?;
        let count = u32::try_from(fds.len()).map_err(|_| bad("too many descriptors"))?;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[4..HEADER].copy_from_slice(&count.to_le_bytes());
        self.bytes += bytes.len();
        self.queue.push_back(Outgoing {
            bytes,
            sent: 0,
            fds,
        });
        Ok(())
    }

    /// Bytes that wait.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.bytes
    }

    /// Writes until the queue is empty (`true`) or the socket takes no more now (`false`).
    ///
    /// # Errors
    /// What `sendmsg` gives, except `WouldBlock`.
    pub fn flush(&mut self, socket: impl AsFd) -> io::Result<bool> {
        while let Some(front) = self.queue.front_mut() {
            let borrowed: Vec<BorrowedFd<'_>> = front.fds.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !borrowed.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&borrowed));
            }
            let rest = [IoSlice::new(&front.bytes[front.sent..])];
            match sendmsg(&socket, &rest, &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    front.sent += sent;
                    front.fds.clear();
                    if front.sent == front.bytes.len() {
                        self.bytes -= front.bytes.len();
                        self.queue.pop_front();
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn frames_and_descriptors_arrive_in_order() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut writer = FrameWriter::default();
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        writer.push(&"one", vec![]).unwrap();
        writer.push(&"two", vec![null()]).unwrap();
        writer.push(&"three", vec![null(), null()]).unwrap();
        assert!(writer.flush(&a).unwrap());
        drop(a);
        let mut reader = FrameReader::default();
        let mut got = Vec::new();
        loop {
            let n = reader.fill(&b).unwrap();
            while let Some(frame) = reader.next_frame().unwrap() {
                got.push((frame.decode::<String>().unwrap(), frame.fds.len()));
            }
            if n == 0 {
                break;
            }
        }
        assert_eq!(
            got,
            [("one".into(), 0), ("two".into(), 1), ("three".into(), 2)]
        );
    }

    #[test]
    fn a_lying_header_is_refused() {
        let mut reader = FrameReader {
            buffer: vec![255; 16],
            fds: VecDeque::new(),
        };
        assert!(reader.next_frame().is_err());
        let mut reader = FrameReader {
            buffer: vec![1, 0, 0, 0, 1, 0, 0, 0, b'1'],
            fds: VecDeque::new(),
        };
        assert!(reader.next_frame().is_err(), "a descriptor is missing");
    }

    proptest::proptest! {
        #[test]
        fn any_cut_of_the_stream_gives_the_same_frames(texts in proptest::collection::vec(".{0,40}", 1..8), cut in 1_usize..64) {
            let mut writer = FrameWriter::default();
            for text in &texts {
                writer.push(text, vec![]).unwrap();
            }
            let all: Vec<u8> = writer.queue.iter().flat_map(|o| o.bytes.clone()).collect();
            let mut reader = FrameReader::default();
            let mut got = Vec::new();
            for piece in all.chunks(cut) {
                reader.buffer.extend_from_slice(piece);
                while let Some(frame) = reader.next_frame().unwrap() {
                    got.push(frame.decode::<String>().unwrap());
                }
            }
            proptest::prop_assert_eq!(got, texts);
        }
    }
}
