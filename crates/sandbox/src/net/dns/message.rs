//! The little of a DNS message (RFC 1035 section 4) that a forwarder has to understand: the question, and how long an answer is good.

/// Record types that matter here.
pub(super) const A: u16 = 1;
pub(super) const SOA: u16 = 6;
pub(super) const AAAA: u16 = 28;
const OPT: u16 = 41;
pub(super) const IXFR: u16 = 251;
pub(super) const AXFR: u16 = 252;
pub(super) const ANY: u16 = 255;

/// Response codes.
pub(super) const NO_ERROR: u8 = 0;
pub(super) const FORMAT_ERROR: u8 = 1;
pub(super) const SERVER_FAILURE: u8 = 2;
pub(super) const NOT_IMPLEMENTED: u8 = 4;
pub(super) const REFUSED: u8 = 5;

const HEADER: usize = 12;

/// What a client asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question<'a> {
    /// Lower case, no dot at the end.
    pub(super) name: String,
    pub(super) kind: u16,
    pub(super) class: u16,
    /// The question as sent, to be repeated in the answer.
    pub(super) bytes: &'a [u8],
}

/// Reads a query. `None`: not a query at all, to be ignored. `Err`: the code to answer with.
pub(super) fn question(message: &[u8]) -> Option<Result<Question<'_>, u8>> {
    let flags = *message.get(2)?;
    message.get(..HEADER)?;
    if flags & 0x80 != 0 {
        return None;
    }
    if flags & 0x78 != 0 {
        return Some(Err(NOT_IMPLEMENTED));
    }
    Some(one_question(message).ok_or(FORMAT_ERROR))
}

fn one_question(message: &[u8]) -> Option<Question<'_>> {
    if u16_at(message, 4)? != 1 {
        return None;
    }
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // The question is the first name of a message; there is nothing it could point back to.
        if length > 63 || name.len() + length > 254 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        for byte in message.get(at..at + length)? {
            // A dot inside a label, or anything unprintable, must not be mistaken for another name.
            name.push(if byte.is_ascii_graphic() && *byte != b'.' {
                byte.to_ascii_lowercase().into()
            } else {
                '?'
            });
        }
        at += length;
    }
    let (kind, class) = (u16_at(message, at)?, u16_at(message, at + 2)?);
    Some(Question {
        name,
        kind,
        class,
        bytes: message.get(HEADER..at + 4)?,
    })
}

/// An answer without records, or with one address.
pub(super) fn answer(
    query: &[u8],
    question: &[u8],
    code: u8,
    address: Option<&[u8]>,
    ttl: u32,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + question.len() + 32);
    out.extend_from_slice(query.get(..2).unwrap_or(&[0, 0]));
    let wanted = query.get(2).copied().unwrap_or(0) & 0x79; // opcode and "recursion desired" come back as sent
    out.push(0x80 | wanted);
    out.push(0x80 | code); // recursion available
    out.extend_from_slice(&[
        0,
        u8::from(!question.is_empty()),
        0,
        u8::from(address.is_some()),
        0,
        0,
        0,
        0,
    ]);
    out.extend_from_slice(question);
    if let Some(address) = address {
        let kind = if address.len() == 4 { A } else { AAAA };
        out.extend_from_slice(&[0xc0, 12]); // the name of the question
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&[0, if address.len() == 4 { 4 } else { 16 }]);
        out.extend_from_slice(address);
    }
    out
}

/// Whether `reply` answers exactly this `query`: same id, same question, and it is an answer.
pub(super) fn answers(query: &[u8], reply: &[u8]) -> bool {
    let question = |m: &[u8]| one_question(m).map(|q| q.bytes.to_vec());
    reply.get(..2) == query.get(..2)
        && reply.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && question(query).is_some_and(|q| question(reply) == Some(q))
}

/// Whether it was cut off to fit a datagram.
pub(super) fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 2 != 0)
}

/// The response code.
pub(super) fn code(message: &[u8]) -> u8 {
    message.get(3).map_or(SERVER_FAILURE, |b| b & 0x0f)
}

/// Calls `each` with the type and the place of the time to live of every record, except the pseudo-record OPT. `None` if malformed.
fn records(message: &[u8], mut each: impl FnMut(u16, usize)) -> Option<()> {
    let mut at = HEADER + one_question(message)?.bytes.len();
    let count = usize::from(u16_at(message, 6)?)
        + usize::from(u16_at(message, 8)?)
        + usize::from(u16_at(message, 10)?);
    for _ in 0..count {
        loop {
            match *message.get(at)? {
                0 => break at += 1,
                pointer if pointer & 0xc0 == 0xc0 => break at += 2,
                length if length <= 63 => at += 1 + usize::from(length),
                _ => return None,
            }
        }
        let kind = u16_at(message, at)?;
        if kind != OPT {
            message.get(at + 4..at + 8)?;
            each(kind, at + 4);
        }
        at += 10 + usize::from(u16_at(message, at + 8)?);
    }
    (at <= message.len()).then_some(())
}

/// For how many seconds the answer may be kept: the least of its records' times. `None`: not at all.
pub(super) fn lifetime(message: &[u8]) -> Option<u32> {
    // "No such name" may be kept too, if the zone says for how long (RFC 2308): it sends its SOA along.
    if is_truncated(message) || !matches!(code(message), 0 | 3) {
        return None;
    }
    let mut least: Option<u32> = None;
    let mut authority = false;
    records(message, |kind, at| {
        authority |= kind == SOA;
        let ttl = u32_at(message, at).unwrap_or(0);
        least = Some(least.map_or(ttl, |l| l.min(ttl)));
    })?;
    let empty = u16_at(message, 6)? == 0;
    if empty && !authority {
        None
    } else {
        least.filter(|ttl| *ttl > 0)
    }
}

/// Takes `seconds` off every record's time to live.
pub(super) fn age(message: &mut [u8], seconds: u32) {
    let mut places = Vec::new();
    if records(message, |_, at| places.push(at)).is_none() {
        return;
    }
    for at in places {
        let left = u32_at(message, at).unwrap_or(0).saturating_sub(seconds);
        if let Some(place) = message.get_mut(at..at + 4) {
            place.copy_from_slice(&left.to_be_bytes());
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|l| !l.is_empty()) {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn questions_are_read_and_answers_carry_them() {
        let query = query(7, "Hello.Run.localhost", A);
        let question = question(&query).unwrap().unwrap();
        assert_eq!(
            (question.name.as_str(), question.kind, question.class),
            ("hello.run.localhost", A, 1)
        );
        let reply = answer(&query, question.bytes, NO_ERROR, Some(&[10, 0, 0, 1]), 60);
        assert!(answers(&query, &reply));
        assert_eq!(lifetime(&reply), Some(60));
        let mut aged = reply.clone();
        age(&mut aged, 25);
        assert_eq!(lifetime(&aged), Some(35));
        age(&mut aged, 99);
        assert_eq!(lifetime(&aged), None, "used up");
        assert!(!answers(&super::query(8, "hello.run.localhost", A), &reply));
    }

    #[test]
    fn what_is_no_query_is_told_apart() {
        assert!(question(&[]).is_none());
        assert!(question(&[0; 11]).is_none());
        let mut reply = query(1, "a", A);
        reply[2] |= 0x80;
        assert!(question(&reply).is_none(), "an answer is never answered");
        let mut update = query(1, "a", A);
        update[2] |= 5 << 3;
        assert_eq!(question(&update), Some(Err(NOT_IMPLEMENTED)));
        let mut none = query(1, "a", A);
        none[5] = 0;
        assert_eq!(question(&none), Some(Err(FORMAT_ERROR)));
        let mut sly = query(1, "run.localhost", A);
        sly[12 + 4] = b'.';
        let _ = question(&sly);
    }

    #[test]
    fn a_dot_inside_a_label_is_no_dot() {
        let mut query = query(1, "evilxrun.localhost", A);
        query[12 + 5] = b'.';
        assert_eq!(
            question(&query).unwrap().unwrap().name,
            "evil?run.localhost"
        );
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = question(&bytes);
            let _ = lifetime(&bytes);
            age(&mut bytes, 5);
            let _ = answers(&bytes, &bytes);
        }
    }
}
