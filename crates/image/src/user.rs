//! Files of an image as a container would see them, and from them the image's user.
//!
//! Layers are looked through without mounting them: from the top down, a whiteout or an opaque folder
//! ends the search, and symbolic links are followed inside the image only.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::ImageError;
use crate::prepare::PreparedImage;
use crate::unpack::{is_opaque, is_whiteout};

/// The longest `/etc/passwd` or `/etc/group` that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;
const MAX_LINKS: usize = 40;
const MAX_GROUPS: usize = 256;

/// Who a process of the image runs as, in the ids of the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// The home folder by `/etc/passwd`, for `HOME`.
    pub home: Option<String>,
}

impl PreparedImage {
    /// Reads the `USER` of an image as Docker does: empty, `1000`, `1000:1000`, `name`, `name:group`.
    /// Numbers need no entry in `/etc/passwd`. Blocks on the disk for a moment.
    ///
    /// # Errors
    /// `UnknownUser` when a name is in none of the files.
    pub fn resolve_user(&self, user: &str) -> Result<User, ImageError> {
        let (name, group) = match user.split_once(':') {
            Some((name, group)) => (name, Some(group).filter(|g| !g.is_empty())),
            None => (user, None),
        };
        let name = if name.is_empty() { "0" } else { name };
        let passwd = self.read_file("etc/passwd", MAX_FILE)?.unwrap_or_default();
        let entry = passwd
            .lines()
            .map(|l| l.split(':').collect::<Vec<_>>())
            .find(|fields| fields.len() >= 4 && (fields[0] == name || fields[2] == name));
        let unknown = |user: &str, file| ImageError::UnknownUser {
            user: user.to_owned(),
            file,
        };
        let (login, uid, mut gid, home) = match &entry {
            Some(fields) => {
                let uid = fields[2]
                    .parse()
                    .map_err(|_| unknown(name, "/etc/passwd"))?;
                let home = fields
                    .get(5)
                    .filter(|h| h.starts_with('/'))
                    .map(|h| (*h).to_owned());
                (Some(fields[0]), uid, fields[3].parse().unwrap_or(0), home)
            }
            None => (
                None,
                name.parse().map_err(|_| unknown(name, "/etc/passwd"))?,
                0,
                None,
            ),
        };
        let groups_file = self.read_file("etc/group", MAX_FILE)?.unwrap_or_default();
        let groups_table = || {
            groups_file
                .lines()
                .map(|l| l.split(':').collect::<Vec<_>>())
                .filter(|fields| fields.len() >= 3)
        };
        let mut groups = Vec::new();
        if let Some(group) = group {
            let found = groups_table().find(|fields| fields[0] == group || fields[2] == group);
            gid = match found {
                Some(fields) => fields[2]
                    .parse()
                    .map_err(|_| unknown(group, "/etc/group"))?,
                None => group.parse().map_err(|_| unknown(group, "/etc/group"))?,
            };
        } else if let Some(login) = login {
            groups = groups_table()
                .filter(|f| {
                    f.get(3)
                        .is_some_and(|members| members.split(',').any(|m| m == login))
                })
                .filter_map(|fields| fields[2].parse().ok())
                .filter(|id| *id != gid)
                .take(MAX_GROUPS)
                .collect();
        }
        Ok(User {
            uid,
            gid,
            groups,
            home,
        })
    }

    /// A regular file of the image as a container would see it; `None` when there is none of that
    /// name. Not valid UTF-8 is replaced. Blocks on the disk for a moment.
    ///
    /// # Errors
    /// `TooLarge` above `max` bytes, `Storage` when the disk fails.
    pub fn read_file(&self, path: &str, max: u64) -> Result<Option<String>, ImageError> {
        let failed = |e: Errno| ImageError::storage(format!("read /{path} of the image"), e);
        let Some(file) = self.open_file(path).map_err(failed)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(max + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| ImageError::storage(format!("read /{path} of the image"), e))?;
        if bytes.len() as u64 > max {
            return Err(ImageError::TooLarge {
                what: format!("/{path} of the image"),
                found: format!("more than {max} bytes"),
                limit: format!("{max} bytes"),
            });
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn open_file(&self, path: &str) -> Result<Option<File>, Errno> {
        // The merged root: the layers' roots, top first.
        let mut root = Vec::new();
        for layer in self.layers.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            root.push(std::rc::Rc::new(rustix::fs::open(
                layer,
                flags,
                Mode::empty(),
            )?));
        }
        let mut stack = vec![root];
        let mut todo: VecDeque<Vec<u8>> = split(path.as_bytes()).collect();
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            if part == b".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let Some(at) = stack.last() else {
                return Ok(None);
            };
            match step(at, &part)? {
                Step::Gone => return Ok(None),
                Step::Folder(next) => stack.push(next),
                Step::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Ok(None);
                    }
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    for part in split(&target).collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(part);
                    }
                }
                Step::File(file) => return Ok(todo.is_empty().then_some(file)),
            }
        }
        Ok(None)
    }
}

fn split(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|b| *b == b'/')
        .filter(|part| !matches!(part, [] | [b'.']))
        .map(<[u8]>::to_vec)
}

type Folder = std::rc::Rc<OwnedFd>;

enum Step {
    Gone,
    Folder(Vec<Folder>),
    Link(Vec<u8>),
    File(File),
}

/// One part of a name, looked up in a merged folder.
fn step(at: &[Folder], part: &[u8]) -> Result<Step, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut folders = Vec::new();
    for layer in at {
        let stat = match rustix::fs::statat(layer, part, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => continue,
            Err(e) => return Err(e),
        };
        if is_whiteout(&stat) {
            break;
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let fd = rustix::fs::openat2(layer, part, flags, Mode::empty(), resolve)?;
                let opaque = is_opaque(&fd);
                folders.push(std::rc::Rc::new(fd));
                if opaque {
                    break;
                }
            }
            // A file below a folder is hidden by it.
            _ if !folders.is_empty() => break,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(layer, part, Vec::new())?;
                return Ok(Step::Link(target.into_bytes()));
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let fd = rustix::fs::openat2(layer, part, flags, Mode::empty(), resolve)?;
                return Ok(Step::File(File::from(fd)));
            }
            // A pipe or socket is nothing to read.
            _ => return Ok(Step::Gone),
        }
    }
    Ok(if folders.is_empty() {
        Step::Gone
    } else {
        Step::Folder(folders)
    })
}
