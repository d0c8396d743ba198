//! Reading and writing tar, the form of a layer.
//!
//! A reader of our own, because a layer comes from strangers: extension headers are bounded before
//! they are read, every number is checked, and nothing is interpreted beyond what a layer may hold
//! (OCI image-spec, layer.md; POSIX.1-2001 pax; GNU long names and base-256 numbers).

use std::io::{self, Read, Write};

/// One tar block.
const BLOCK: usize = 512;
/// The most bytes a pax header or GNU long name may have. Linux xattrs end at 64 KiB each.
const MAX_EXTENSION: u64 = 1 << 20;

/// Why a stream is not a tar that we read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not a valid tar: {0}")]
    Malformed(&'static str),
    #[error("{0}")]
    Unsupported(&'static str),
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry, names as raw bytes, nothing trusted.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) size: u64,
    /// Seconds since 1970; pax fractions are cut off.
    pub(crate) mtime: i64,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Default, Clone)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: bool,
}

/// Reads entries one after the other; an entry's data is read from the reader itself.
pub(crate) struct TarReader<R> {
    inner: R,
    /// Bytes of the current entry's data not read yet.
    remaining: u64,
    /// Bytes of padding after them.
    padding: u64,
    global: Overrides,
    done: bool,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            remaining: 0,
            padding: 0,
            global: Overrides::default(),
            done: false,
        }
    }

    /// The stream behind, to drain what follows the last entry.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; what is left of the current one's data is passed over.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut local = self.global.clone();
        let mut gnu_path = None;
        let mut gnu_link = None;
        loop {
            self.skip_data()?;
            if self.done {
                return Ok(None);
            }
            let mut block = [0_u8; BLOCK];
            if !read_block(&mut self.inner, &mut block)? {
                self.done = true;
                return Ok(None);
            }
            if block.iter().all(|b| *b == 0) {
                self.done = true;
                return Ok(None);
            }
            check_sum(&block)?;
            let flag = block[156];
            let size = number(&block[124..136])?;
            match flag {
                b'x' | b'g' => {
                    let data = self.extension(size)?;
                    let target = if flag == b'x' {
                        &mut local
                    } else {
                        &mut self.global
                    };
                    parse_pax(&data, target)?;
                    if flag == b'g' {
                        local = self.global.clone();
                    }
                }
                b'L' => gnu_path = Some(until_nul(&self.extension(size)?).to_vec()),
                b'K' => gnu_link = Some(until_nul(&self.extension(size)?).to_vec()),
                _ => {
                    return self
                        .entry(&block, size, local, gnu_path, gnu_link)
                        .map(Some);
                }
            }
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        header_size: u64,
        over: Overrides,
        gnu_path: Option<Vec<u8>>,
        gnu_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let flag = block[156];
        let path = over.path.or(gnu_path).unwrap_or_else(|| header_path(block));
        let link = over
            .link
            .or(gnu_link)
            .unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        let kind = match flag {
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => {
                return Err(TarError::Unsupported(
                    "GNU sparse files are not supported in layers",
                ));
            }
            _ => return Err(TarError::Malformed("an entry has an unknown type")),
        };
        if over.sparse {
            return Err(TarError::Unsupported(
                "GNU sparse files are not supported in layers",
            ));
        }
        // Only files have data; a size on anything else says nothing (as in every other reader).
        let size = if kind == Kind::File {
            over.size.unwrap_or(header_size)
        } else {
            0
        };
        self.remaining = size;
        self.padding = padding(size);
        let mode = u32::try_from(number(&block[100..108])? & 0o7777).unwrap_or(0);
        let mtime = match over.mtime {
            Some(mtime) => mtime,
            None => i64::try_from(number(&block[136..148])?).unwrap_or(0),
        };
        Ok(Entry {
            path,
            link,
            kind,
            mode,
            uid: over.uid.map_or_else(|| number(&block[108..116]), Ok)?,
            gid: over.gid.map_or_else(|| number(&block[116..124]), Ok)?,
            size,
            mtime,
            xattrs: over.xattrs,
        })
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION {
            return Err(TarError::Malformed(
                "an extended header is longer than 1 MiB",
            ));
        }
        self.remaining = size;
        self.padding = padding(size);
        let mut data = Vec::new();
        self.read_to_end(&mut data)?;
        Ok(data)
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        let mut left = self.remaining.saturating_add(self.padding);
        let mut scratch = [0_u8; 16 * 1024];
        while left > 0 {
            let want = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(scratch.len());
            let got = self.inner.read(&mut scratch[..want])?;
            if got == 0 {
                // Some writers leave out the padding of the last entry.
                if left <= self.padding {
                    self.done = true;
                    break;
                }
                return Err(TarError::Malformed("it ends in the middle of an entry"));
            }
            left -= got as u64;
        }
        self.remaining = 0;
        self.padding = 0;
        Ok(())
    }
}

/// Reads the current entry's data.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.remaining)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let got = self.inner.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the tar ends in the middle of a file",
            ));
        }
        self.remaining -= got as u64;
        Ok(got)
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

/// Fills `block`; false at the end of the stream.
fn read_block(reader: &mut impl Read, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
    let mut filled = 0;
    while filled < BLOCK {
        match reader.read(&mut block[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(TarError::Malformed("it ends in the middle of a header")),
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(true)
}

fn check_sum(block: &[u8; BLOCK]) -> Result<(), TarError> {
    let stored = number(&block[148..156])?;
    let in_sum = |i: usize| {
        if (148..156).contains(&i) {
            b' '
        } else {
            block[i]
        }
    };
    let unsigned: u64 = (0..BLOCK).map(|i| u64::from(in_sum(i))).sum();
    // Ancient writers summed signed bytes.
    let signed: i64 = (0..BLOCK).map(|i| i64::from(in_sum(i).cast_signed())).sum();
    if stored == unsigned || i64::try_from(stored).is_ok_and(|s| s == signed) {
        Ok(())
    } else {
        Err(TarError::Malformed("a header's checksum is wrong"))
    }
}

/// An octal number, or GNU's base 256 when the first bit is set. Negative ones are refused as 0.
fn number(field: &[u8]) -> Result<u64, TarError> {
    if field[0] & 0x80 != 0 {
        if field[0] & 0x40 != 0 {
            return Ok(0);
        }
        let mut value: u64 = 0;
        for (i, byte) in field.iter().enumerate() {
            let byte = if i == 0 { byte & 0x3f } else { *byte };
            value = value
                .checked_mul(256)
                .and_then(|v| v.checked_add(u64::from(byte)))
                .ok_or(TarError::Malformed("a number is too large"))?;
        }
        return Ok(value);
    }
    let mut value: u64 = 0;
    let digits = field.iter().skip_while(|b| **b == b' ');
    for byte in digits {
        match byte {
            b'0'..=b'7' => {
                value = value
                    .checked_mul(8)
                    .and_then(|v| v.checked_add(u64::from(byte - b'0')))
                    .ok_or(TarError::Malformed("a number is too large"))?;
            }
            b' ' | 0 => break,
            _ => return Err(TarError::Malformed("a number is not octal")),
        }
    }
    Ok(value)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or(bytes)
}

fn header_path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    // Only POSIX ustar has a prefix; GNU uses those bytes for times.
    let is_ustar = &block[257..263] == b"ustar\0";
    let prefix = if is_ustar {
        until_nul(&block[345..500])
    } else {
        b""
    };
    if prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

fn parse_pax(mut data: &[u8], into: &mut Overrides) -> Result<(), TarError> {
    const BAD: TarError = TarError::Malformed("a pax header is broken");
    while !data.is_empty() {
        let space = data.iter().take(21).position(|b| *b == b' ').ok_or(BAD)?;
        let length: usize = std::str::from_utf8(&data[..space])
            .ok()
            .and_then(|t| t.parse().ok())
            .ok_or(BAD)?;
        if length <= space + 2 || length > data.len() || data[length - 1] != b'\n' {
            return Err(BAD);
        }
        let record = &data[space + 1..length - 1];
        data = &data[length..];
        let equals = record.iter().position(|b| *b == b'=').ok_or(BAD)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let text = || std::str::from_utf8(value).map_err(|_| BAD);
        match key {
            b"path" | b"linkpath" => {
                if value.contains(&0) {
                    return Err(TarError::Malformed("a name holds a NUL byte"));
                }
                let value = (!value.is_empty()).then(|| value.to_vec());
                if key == b"path" {
                    into.path = value;
                } else {
                    into.link = value;
                }
            }
            b"size" => into.size = Some(text()?.parse().map_err(|_| BAD)?),
            b"uid" => into.uid = Some(text()?.parse().map_err(|_| BAD)?),
            b"gid" => into.gid = Some(text()?.parse().map_err(|_| BAD)?),
            b"mtime" => {
                let whole = text()?.split('.').next().unwrap_or("0");
                into.mtime = Some(whole.parse().map_err(|_| BAD)?);
            }
            _ if key.starts_with(b"GNU.sparse.") => into.sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    into.xattrs.retain(|(n, _)| n != name);
                    into.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

/// Writes entries in pax form, the same bytes for the same entries.
pub(crate) struct TarWriter<W> {
    inner: W,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner }
    }

    /// Writes an entry and, for a file, exactly `entry.size` bytes of `data`.
    pub(crate) fn append(&mut self, entry: &Entry, data: &mut dyn Read) -> io::Result<()> {
        let mut records = Vec::new();
        if entry.path.len() > 100 || !entry.path.is_ascii() {
            push_record(&mut records, b"path", &entry.path);
        }
        if entry.link.len() > 100 || !entry.link.is_ascii() {
            push_record(&mut records, b"linkpath", &entry.link);
        }
        for (key, value, limit) in [
            (&b"size"[..], entry.size, 1_u64 << 33),
            (b"uid", entry.uid, 1 << 21),
            (b"gid", entry.gid, 1 << 21),
        ] {
            if value >= limit {
                push_record(&mut records, key, value.to_string().as_bytes());
            }
        }
        if entry.mtime < 0 || entry.mtime >= 1 << 33 {
            push_record(&mut records, b"mtime", entry.mtime.to_string().as_bytes());
        }
        for (name, value) in &entry.xattrs {
            push_record(
                &mut records,
                &[b"SCHILY.xattr.", name.as_slice()].concat(),
                value,
            );
        }
        if !records.is_empty() {
            let header = Entry {
                path: b"PaxHeaders/entry".to_vec(),
                link: Vec::new(),
                kind: Kind::File,
                mode: 0o644,
                uid: 0,
                gid: 0,
                size: records.len() as u64,
                mtime: 0,
                xattrs: Vec::new(),
            };
            self.inner.write_all(&header_block(&header, b'x'))?;
            self.inner.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let flag = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::CharDevice => b'3',
            Kind::BlockDevice => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        self.inner.write_all(&header_block(entry, flag))?;
        if entry.kind == Kind::File {
            let copied = io::copy(&mut data.take(entry.size), &mut self.inner)?;
            if copied != entry.size {
                return Err(io::Error::other(
                    "a file became shorter while it was packed",
                ));
            }
            self.pad(copied)?;
        }
        Ok(())
    }

    /// Writes the two closing blocks and gives the stream back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(&[0; BLOCK * 2])?;
        Ok(self.inner)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let pad = usize::try_from(padding(size)).unwrap_or(0);
        self.inner.write_all(&[0; BLOCK][..pad])
    }
}

fn push_record(into: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts itself: find the fixed point.
    let body = key.len() + value.len() + 3;
    let mut length = body + body.to_string().len();
    if body + length.to_string().len() != length {
        length = body + length.to_string().len();
    }
    into.extend_from_slice(length.to_string().as_bytes());
    into.push(b' ');
    into.extend_from_slice(key);
    into.push(b'=');
    into.extend_from_slice(value);
    into.push(b'\n');
}

fn header_block(entry: &Entry, flag: u8) -> [u8; BLOCK] {
    fn octal(field: &mut [u8], value: u64) {
        let digits = field.len() - 1;
        // A value that does not fit stands in the pax record; the field then holds zero.
        let fits = digits * 3 >= 64 || value < 1 << (digits * 3);
        let text = format!("{:0digits$o}", if fits { value } else { 0 });
        field[..digits].copy_from_slice(text.as_bytes());
    }
    fn name(field: &mut [u8], value: &[u8]) {
        let length = value.len().min(field.len());
        field[..length].copy_from_slice(&value[..length]);
    }
    let mut block = [0_u8; BLOCK];
    name(&mut block[..100], &entry.path);
    octal(&mut block[100..108], u64::from(entry.mode));
    octal(&mut block[108..116], entry.uid);
    octal(&mut block[116..124], entry.gid);
    octal(
        &mut block[124..136],
        if entry.kind == Kind::File {
            entry.size
        } else {
            0
        },
    );
    octal(
        &mut block[136..148],
        u64::try_from(entry.mtime).unwrap_or(0),
    );
    block[148..156].fill(b' ');
    block[156] = flag;
    name(&mut block[157..257], &entry.link);
    block[257..263].copy_from_slice(b"ustar\0");
    block[263..265].copy_from_slice(b"00");
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    let text = format!("{sum:06o}\0 ");
    block[148..156].copy_from_slice(text.as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let long = vec![b'n'; 300];
        let entry = Entry {
            path: long.clone(),
            link: Vec::new(),
            kind: Kind::File,
            mode: 0o4755,
            uid: 3_000_000,
            gid: 5,
            size: 3,
            mtime: -7,
            xattrs: vec![(b"user.k".to_vec(), b"v=\n\0x".to_vec())],
        };
        let link = Entry {
            path: b"l".to_vec(),
            link: long.clone(),
            kind: Kind::Symlink,
            size: 0,
            xattrs: Vec::new(),
            ..entry
        };
        let mut writer = TarWriter::new(Vec::new());
        writer.append(&entry, &mut &b"abc"[..]).unwrap();
        writer.append(&link, &mut io::empty()).unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut reader = TarReader::new(&bytes[..]);
        let first = reader.next_entry().unwrap().unwrap();
        assert_eq!(
            (first.path, first.uid, first.mtime),
            (long.clone(), 3_000_000, -7)
        );
        assert_eq!(
            (first.mode, first.size, first.xattrs),
            (0o4755, 3, entry.xattrs)
        );
        let mut data = String::new();
        reader.read_to_string(&mut data).unwrap();
        assert_eq!(data, "abc");
        let second = reader.next_entry().unwrap().unwrap();
        assert_eq!((second.kind, second.link), (Kind::Symlink, long));
        assert!(reader.next_entry().unwrap().is_none());
    }

    #[test]
    fn record_lengths_count_themselves() {
        for size in 0..1200 {
            let mut data = Vec::new();
            push_record(&mut data, b"path", &vec![b'a'; size]);
            let mut over = Overrides::default();
            parse_pax(&data, &mut over).unwrap();
            assert_eq!(over.path.map_or(0, |p| p.len()), size);
        }
    }

    #[test]
    fn a_long_name_that_never_ends_is_refused_before_it_is_read() {
        let entry = Entry {
            path: b"x".to_vec(),
            link: Vec::new(),
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 1 << 32,
            mtime: 0,
            xattrs: Vec::new(),
        };
        let block = header_block(&entry, b'L');
        let mut reader = TarReader::new(block.chain(io::repeat(b'a')));
        assert!(matches!(reader.next_entry(), Err(TarError::Malformed(_))));
    }
}
