//! gRPC's framing of messages (grpc.io, "gRPC over HTTP2", Length-Prefixed-Message), for requests
//! and responses that never leave the process and so are never compressed.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

const HEAD: usize = 5;

/// One message as the body of a request.
pub(crate) fn one(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(HEAD + length);
    out.put_u8(0);
    // A message cannot be longer: it came out of a bounded body.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message
        .encode(&mut out)
        .expect("there is room for what it said it needs");
    out.freeze()
}

/// Messages as they come, in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: BytesMut,
}

/// Bytes that are no frames.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl Frames {
    /// Adds what arrived.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// The next message, once all of it is there.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        let Some(mut head) = self.bytes.get(..HEAD) else {
            return Ok(None);
        };
        if head.get_u8() != 0 {
            return Err(Broken);
        }
        let length = usize::try_from(head.get_u32()).map_err(|_| Broken)?;
        if self.bytes.len() - HEAD < length {
            return Ok(None);
        }
        self.bytes.advance(HEAD);
        Ok(Some(self.bytes.split_to(length).freeze()))
    }

    /// Whether nothing is left over.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_come_back_however_they_were_cut(
            messages in prop::collection::vec("[a-z]{0,50}", 0..5), size in 1_usize..20,
        ) {
            let mut all = Vec::new();
            for message in &messages {
                all.extend_from_slice(&one(message));
            }
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in all.chunks(size) {
                frames.push(piece);
                while let Some(message) = frames.next().unwrap() {
                    found.push(<String as prost::Message>::decode(message).unwrap());
                }
            }
            prop_assert!(frames.is_empty());
            prop_assert_eq!(found, messages);
        }

        #[test]
        fn any_bytes_are_frames_or_not(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut frames = Frames::default();
            frames.push(&bytes);
            while let Ok(Some(_)) = frames.next() {}
        }
    }
}
