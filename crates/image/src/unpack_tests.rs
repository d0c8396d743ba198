//! Hostile and odd layers. A canary outside the folder tells whether anything escaped.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::tape::{Entry, Kind, TarWriter};
use crate::unpack::{LayerLimits, Unpacked, is_opaque, unpack};

const BASE: u32 = 300_000;

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: unpacking layers needs root");
    }
    root
}

fn entry(kind: Kind, path: &str, link: &str) -> Entry {
    Entry {
        path: path.into(),
        link: link.into(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: 1_000,
        xattrs: Vec::new(),
    }
}

fn dir(path: &str) -> (Entry, Vec<u8>) {
    (entry(Kind::Directory, path, ""), Vec::new())
}

fn file(path: &str, text: &str) -> (Entry, Vec<u8>) {
    let size = text.len() as u64;
    (
        Entry {
            size,
            ..entry(Kind::File, path, "")
        },
        text.into(),
    )
}

fn link(kind: Kind, path: &str, to: &str) -> (Entry, Vec<u8>) {
    (entry(kind, path, to), Vec::new())
}

fn tar(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (entry, data) in entries {
        writer.append(entry, &mut data.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

/// A folder to unpack into, beside things that must stay as they are.
struct Cell {
    _dir: tempfile::TempDir,
    outside: PathBuf,
    root: PathBuf,
}

impl Cell {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        let root = dir.path().join("a/root");
        fs::create_dir_all(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("canary"), "alive").unwrap();
        Self {
            outside,
            root,
            _dir: dir,
        }
    }

    fn unpack_with(&self, bytes: &[u8], limits: LayerLimits) -> Result<Unpacked, ImageError> {
        let fd: OwnedFd = fs::File::open(&self.root).unwrap().into();
        unpack("sha256:test", bytes, &fd, BASE, limits)
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Unpacked, ImageError> {
        let limits = LayerLimits {
            max_bytes: 16 << 20,
            max_entries: 1000,
            compressed: bytes.len() as u64,
        };
        self.unpack_with(bytes, limits)
    }

    fn assert_untouched(&self) {
        let names: Vec<_> = fs::read_dir(&self.outside)
            .unwrap()
            .map(|e| e.unwrap())
            .collect();
        assert_eq!(names.len(), 1);
        let canary = self.outside.join("canary");
        assert_eq!(fs::read_to_string(&canary).unwrap(), "alive");
        let meta = canary.metadata().unwrap();
        assert_eq!((meta.nlink(), meta.uid()), (1, 0));
        let beside: Vec<_> = fs::read_dir(self.root.parent().unwrap()).unwrap().collect();
        assert_eq!(beside.len(), 1);
    }
}

fn opaque(path: &Path) -> bool {
    is_opaque(&fs::File::open(path).unwrap().into())
}

#[test]
fn names_that_lead_out_are_refused_or_confined() {
    if !is_root() {
        return;
    }
    let refused = [
        vec![file("../outside/canary", "dead")],
        vec![file("a/../../outside/new", "x")],
        vec![
            link(Kind::Symlink, "l", "../../outside"),
            link(Kind::HardLink, "h", "../../outside/canary"),
        ],
        vec![link(Kind::HardLink, "h", "/outside/canary")],
        vec![
            link(Kind::Symlink, "l", "/"),
            link(Kind::HardLink, "h", "l/outside/canary"),
        ],
        vec![
            link(Kind::Symlink, "l", "../../outside"),
            file("l/canary", "dead"),
        ],
        vec![
            link(Kind::Symlink, "l", "/proc/self/root/"),
            file("l/tmp/x", "dead"),
        ],
        vec![link(Kind::Symlink, "l", "l"), file("l/x", "loop")],
        vec![file("f", "x"), file("f/below", "x")],
        vec![file(".wh...", "")],
        vec![file(".wh.", "")],
        vec![link(Kind::Symlink, ".", "x")],
        vec![link(Kind::HardLink, "h", "")],
        vec![dir("d"), link(Kind::HardLink, "h", "d")],
        vec![file(".wh.gone", ""), link(Kind::HardLink, "h", "gone")],
        vec![file(&"x/".repeat(400), "")],
        vec![file(&"n".repeat(256), "")],
        vec![file(&"long/".repeat(1000), "")],
    ];
    for entries in refused {
        let cell = Cell::new();
        let error = cell.unpack(&tar(&entries)).unwrap_err();
        assert!(
            matches!(error, ImageError::UnsafeEntry { .. }),
            "{entries:?}: {error}"
        );
        assert!(error.to_string().contains("sha256:test"));
        cell.assert_untouched();
    }
    // A leading slash says nothing: the root is the image's.
    let cell = Cell::new();
    cell.unpack(&tar(&[file("/etc/x", "1"), file("./y", "2")]))
        .unwrap();
    assert_eq!(fs::read_to_string(cell.root.join("etc/x")).unwrap(), "1");
    // An absolute link is followed as in a chroot.
    let cell = Cell::new();
    cell.unpack(&tar(&[
        dir("usr/lib"),
        link(Kind::Symlink, "lib", "/usr/lib"),
        file("lib/x", "1"),
    ]))
    .unwrap();
    assert_eq!(
        fs::read_to_string(cell.root.join("usr/lib/x")).unwrap(),
        "1"
    );
    assert!(cell.root.join("lib").is_symlink());
    // Links that stack folders deeper than names can be come to an end.
    let cell = Cell::new();
    let deep = "d/".repeat(200);
    let mut entries = vec![dir(&deep)];
    let mut at = deep;
    for i in 0..3 {
        entries.push(link(Kind::Symlink, &format!("s{i}"), &format!("/{at}")));
        at = format!("s{i}/{}", "e/".repeat(200));
        entries.push(dir(&at));
    }
    assert!(cell.unpack(&tar(&entries)).is_err());
    cell.assert_untouched();
}

#[test]
fn later_entries_replace_earlier_ones_without_following_them() {
    if !is_root() {
        return;
    }
    let cell = Cell::new();
    let out = cell.outside.to_str().unwrap().to_owned();
    let entries = [
        link(Kind::Symlink, "a", &format!("{out}/canary")),
        file("a", "file over link"),
        dir("b/c/d"),
        file("b/c/d/e", "x"),
        file("b", "file over folder"),
        file("f", "x"),
        dir("f"),
        file("f/g", "folder over file"),
        link(Kind::Symlink, "s", &out),
        dir("s"),
        file("s/new", "folder over link"),
        file("twice", "1"),
        file("twice", "2"),
        file("h1", "linked"),
        link(Kind::HardLink, "h2", "h1"),
        link(Kind::HardLink, "h1", "h2"),
        link(Kind::HardLink, "h2", "./h1"),
    ];
    cell.unpack(&tar(&entries)).unwrap();
    let read = |name: &str| fs::read_to_string(cell.root.join(name)).unwrap();
    assert_eq!(read("a"), "file over link");
    assert_eq!(read("b"), "file over folder");
    assert_eq!(read("f/g"), "folder over file");
    assert_eq!(read("s/new"), "folder over link");
    assert_eq!(read("twice"), "2");
    assert_eq!((read("h1"), read("h2")), ("linked".into(), "linked".into()));
    cell.assert_untouched();
}

#[test]
fn whiteouts_take_the_form_overlayfs_reads() {
    if !is_root() {
        return;
    }
    let cell = Cell::new();
    let entries = [
        file(".wh.gone", ""),
        dir("etc"),
        file("etc/.wh..wh..opq", ""),
        file("etc/kept", "x"),
        file(".wh.back", ""),
        dir("back"),
        file("both", "stays"),
        file(".wh.both", ""),
        dir("late"),
        file("late/x", "stays"),
        file(".wh.late", ""),
        file(".wh..wh.plnk", ""),
        file(".wh.deep", ""),
        file("deep/below", "x"),
    ];
    let unpacked = cell.unpack(&tar(&entries)).unwrap();
    assert!(!unpacked.opaque_root);
    let gone = cell.root.join("gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for folder in ["etc", "back", "late", "deep"] {
        assert!(opaque(&cell.root.join(folder)), "{folder}");
    }
    assert!(cell.root.join("both").is_file() && cell.root.join("late/x").is_file());
    assert!(!cell.root.join(".wh.gone").exists() && !cell.root.join("plnk").exists());
    let cell = Cell::new();
    assert!(
        cell.unpack(&tar(&[file(".wh..wh..opq", "")]))
            .unwrap()
            .opaque_root
    );
}

#[test]
fn owners_modes_times_attributes_and_devices() {
    if !is_root() {
        return;
    }
    let cell = Cell::new();
    let mut program = file("program", "x");
    program.0.mode = 0o6755;
    program.0.uid = 1000;
    program.0.gid = 4_000_000;
    let mut capability = vec![0, 0, 0, 2];
    capability.resize(20, 0);
    capability[5] = 4; // CAP_NET_BIND_SERVICE, permitted
    program.0.xattrs = vec![
        (b"security.capability".to_vec(), capability),
        (b"user.note".to_vec(), b"n".to_vec()),
        (b"user.overlay.redirect".to_vec(), b"/".to_vec()),
        (b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()),
        (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
    ];
    let entries = [
        program,
        (entry(Kind::CharDevice, "null", ""), Vec::new()),
        (entry(Kind::BlockDevice, "disk", ""), Vec::new()),
        (entry(Kind::Fifo, "pipe", ""), Vec::new()),
        dir("d"),
        file("d/new", "x"),
    ];
    let unpacked = cell.unpack(&tar(&entries)).unwrap();
    assert_eq!(unpacked.skipped_devices, 2);
    assert!(!cell.root.join("null").exists() && !cell.root.join("disk").exists());
    assert!(
        cell.root
            .join("pipe")
            .metadata()
            .unwrap()
            .file_type()
            .is_fifo()
    );
    let path = cell.root.join("program");
    let meta = path.metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid()), (BASE + 1000, BASE + 65_534));
    assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o6755, 1000));
    assert_eq!(cell.root.join("d").metadata().unwrap().mtime(), 1000);
    let mut value = [0_u8; 64];
    let has = |name: &str, value: &mut [u8]| rustix::fs::getxattr(&path, name, value).ok();
    assert_eq!(has("user.note", &mut value), Some(1));
    assert_eq!(has("trusted.overlay.redirect", &mut value), None);
    assert_eq!(has("user.overlay.redirect", &mut value), None);
    // Version 3, of the namespace's root.
    if let Some(length) = has("security.capability", &mut value) {
        assert_eq!((length, value[3]), (24, 3));
        assert_eq!(value[20..24], BASE.to_le_bytes());
    }
}

#[test]
fn limits_hold_while_streaming() {
    if !is_root() {
        return;
    }
    let small = |max_bytes, max_entries| LayerLimits {
        max_bytes,
        max_entries,
        compressed: 100,
    };
    let many: Vec<_> = (0..50).map(|i| file(&format!("f{i}"), "")).collect();
    let error = Cell::new()
        .unpack_with(&tar(&many), small(1 << 30, 49))
        .unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    let error = Cell::new()
        .unpack_with(&tar(&many), small(9_000, 100))
        .unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    // A bomb: zeros behind the end of the archive count as well.
    let mut bomb = tar(&[file("x", "x")]);
    bomb.resize(64 << 20, 0);
    let packed = zstd::bulk::compress(&bomb, 1).unwrap();
    let error = Cell::new()
        .unpack_with(&packed, small(1 << 20, 10))
        .unwrap_err();
    assert!(error.to_string().contains("1048576"), "{error}");
    // A ratio no real layer has.
    let zeros = io::Read::take(io::repeat(0), 400 << 20);
    let packed = zstd::stream::encode_all(zeros, 1).unwrap();
    let limits = LayerLimits {
        max_bytes: 1 << 40,
        max_entries: 10,
        compressed: packed.len() as u64,
    };
    let error = Cell::new().unpack_with(&packed, limits).unwrap_err();
    assert!(error.to_string().contains("5000 times"), "{error}");
}

#[test]
fn broken_streams_are_errors() {
    if !is_root() {
        return;
    }
    let whole = tar(&[file("a", "0123456789"), file("b", &"x".repeat(3000))]);
    for cut in [1, 100, 511, 513, 1100, 2000, 3500] {
        assert!(Cell::new().unpack(&whole[..cut]).is_err(), "{cut}");
    }
    let mut gzip = Vec::new();
    io::Read::read_to_end(
        &mut flate2::read::GzEncoder::new(&whole[..], flate2::Compression::fast()),
        &mut gzip,
    )
    .unwrap();
    assert!(Cell::new().unpack(&gzip[..gzip.len() / 2]).is_err());
    assert_eq!(
        Cell::new().unpack(&gzip).unwrap().diff_id,
        Digest::of(&whole)
    );
    let zstd = zstd::bulk::compress(&whole, 3).unwrap();
    assert_eq!(
        Cell::new().unpack(&zstd).unwrap().diff_id,
        Digest::of(&whole)
    );
    assert!(Cell::new().unpack(b"").is_ok());
    assert!(Cell::new().unpack(b"<html>not a layer</html>").is_err());
}

fn a_name() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "l",
        "..",
        ".",
        "",
        ".wh.a",
        ".wh..wh..opq",
        ".wh.b",
        "outside",
        "canary",
    ]);
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.join("/"))
}

fn an_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let kind = prop::sample::select(vec![
        Kind::File,
        Kind::File,
        Kind::Directory,
        Kind::Symlink,
        Kind::Symlink,
        Kind::HardLink,
        Kind::Fifo,
        Kind::CharDevice,
    ]);
    let target = prop_oneof![
        a_name(),
        a_name().prop_map(|n| format!("/{n}")),
        Just("../../outside".to_owned()),
        Just("../../outside/canary".to_owned()),
        Just("/proc/self/root".to_owned()),
    ];
    (
        kind,
        a_name(),
        target,
        prop::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(|(kind, path, target, data)| {
            let data = if kind == Kind::File { data } else { Vec::new() };
            (
                Entry {
                    size: data.len() as u64,
                    ..entry(kind, &path, &target)
                },
                data,
            )
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the names and links, nothing escapes and nothing panics; entries that are refused on
    /// their own are left out, so that the rest gets its chance.
    #[test]
    fn nothing_escapes(entries in prop::collection::vec(an_entry(), 1..25)) {
        if rustix::process::geteuid().is_root() {
            let cell = Cell::new();
            for one in &entries {
                let _ = cell.unpack(&tar(std::slice::from_ref(one)));
            }
            let _ = cell.unpack(&tar(&entries));
            symlink("x", cell.root.join("probe")).ok();
            cell.assert_untouched();
        }
    }

    /// Flipped bytes and cuts anywhere: an error or a confined result.
    #[test]
    fn mutated_tars_are_harmless(
        entries in prop::collection::vec(an_entry(), 1..8),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        zstd in any::<bool>(),
    ) {
        if rustix::process::geteuid().is_root() {
            let mut bytes = tar(&entries);
            if zstd {
                bytes = zstd::bulk::compress(&bytes, 1).unwrap();
            }
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= value;
            }
            if cut.index(4) == 0 {
                bytes.truncate(cut.index(bytes.len()));
            }
            let cell = Cell::new();
            let _ = cell.unpack(&bytes);
            cell.assert_untouched();
        }
    }
}
