//! Which cgroup layout this host has, and where in it Lauf may make its folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::v2::Controllers;
use super::{CgroupError, CgroupRoot, Result, check_name, v1, v2};

/// One v1 hierarchy.
#[derive(Clone, Debug)]
struct V1Mount {
    /// Where it is mounted.
    mount: PathBuf,
    /// The folder of the group this process is in.
    own: PathBuf,
    controllers: Vec<String>,
}

#[derive(Clone, Debug)]
struct V2Mount {
    mount: PathBuf,
    own: PathBuf,
    controllers: Controllers,
}

/// The cgroup hierarchies of this host.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    v1: Vec<V1Mount>,
    v2: Option<V2Mount>,
}

impl Hierarchy {
    /// Looks at what is mounted.
    ///
    /// # Errors
    /// [`CgroupError::NoController`] when CPU, memory or task limits can't be had on this host.
    pub fn detect() -> Result<Self> {
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|source| CgroupError::File {
                path: path.into(),
                source,
            })
        };
        let found = Self::from_tables(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        for controller in ["cpu", "memory", "pids"] {
            if !found.has(controller) {
                return Err(CgroupError::NoController { controller });
            }
        }
        Ok(found)
    }

    /// From the text of `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5), cgroups(7)).
    fn from_tables(mountinfo: &str, own: &str) -> Self {
        let mut v1: Vec<V1Mount> = Vec::new();
        let mut v2 = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let (left, right): (Vec<&str>, Vec<&str>) =
                (left.split(' ').collect(), right.split(' ').collect());
            let (Some(root), Some(mount), Some(kind)) = (left.get(3), left.get(4), right.first())
            else {
                continue;
            };
            let mount = PathBuf::from(unescape(mount));
            let root = unescape(root);
            match *kind {
                "cgroup" => {
                    let options = right.get(2).copied().unwrap_or_default();
                    let entry = own
                        .lines()
                        .filter_map(|l| l.splitn(3, ':').collect::<Vec<_>>().try_into().ok())
                        .find(|[_, names, _]: &[&str; 3]| {
                            !names.is_empty()
                                && names.split(',').all(|n| options.split(',').any(|o| o == n))
                        });
                    let Some([_, names, path]) = entry else {
                        continue;
                    };
                    // A hierarchy can be mounted more than once; the first place is the usual one.
                    if v1.iter().any(|m| {
                        m.controllers
                            .iter()
                            .any(|c| names.split(',').any(|n| n == c))
                    }) {
                        continue;
                    }
                    let own = below(&mount, &root, path);
                    v1.push(V1Mount {
                        mount,
                        own,
                        controllers: names.split(',').map(str::to_owned).collect(),
                    });
                }
                "cgroup2" if v2.is_none() => {
                    let path = own
                        .lines()
                        .find_map(|l| l.strip_prefix("0::"))
                        .unwrap_or("/");
                    let own = below(&mount, &root, path);
                    let controllers =
                        fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
                    v2 = Some(V2Mount {
                        mount,
                        own,
                        controllers: Controllers::parse(&controllers),
                    });
                }
                _ => {}
            }
        }
        Self { v1, v2 }
    }

    fn has(&self, controller: &str) -> bool {
        let on_v2 = self.v2.as_ref().is_some_and(|v2| match controller {
            "cpu" => v2.controllers.cpu,
            "memory" => v2.controllers.memory,
            "pids" => v2.controllers.pids,
            _ => false,
        });
        on_v2 || self.v1_with(controller).is_some()
    }

    fn v1_with(&self, controller: &str) -> Option<&V1Mount> {
        self.v1
            .iter()
            .find(|m| m.controllers.iter().any(|c| c == controller))
    }

    /// The layout in one line for people: which kind, and where each controller lives.
    #[must_use]
    pub fn describe(&self) -> String {
        let places: Vec<String> = ["cpu", "memory", "pids"]
            .iter()
            .map(|controller| {
                let place = match (self.v1_with(controller), &self.v2) {
                    (Some(m), _) => format!("v1 {}", m.mount.display()),
                    (None, Some(m)) if self.has(controller) => format!("v2 {}", m.mount.display()),
                    _ => "missing".to_owned(),
                };
                format!("{controller}: {place}")
            })
            .collect();
        format!("{} ({})", self.kind(), places.join(", "))
    }

    /// `v2`, `v1` or `hybrid`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        let v1 = ["cpu", "memory", "pids"]
            .iter()
            .any(|c| self.v1_with(c).is_some());
        match (v1, &self.v2) {
            (true, Some(_)) => "hybrid",
            (true, None) => "v1",
            (false, _) => "v2",
        }
    }

    /// Lauf's folder called `name`: made, or adopted when it is there. It is put below the group this process is in where that was
    /// delegated to us (systemd: `Delegate=yes`), else at the top of the hierarchy, else wherever a group may be made.
    ///
    /// # Errors
    /// [`CgroupError::NotWritable`] when no place allows it.
    pub fn root(&self, name: &str) -> Result<CgroupRoot> {
        check_name(name)?;
        let v2 = self.v2.as_ref().map(|m| self.v2_root(m, name)).transpose();
        // A hybrid host can do without its v2 half, at the price of slower freezing; a pure v2 host can't.
        let v2 = match v2 {
            Err(error) if self.kind() == "v2" => return Err(error),
            other => other.ok().flatten(),
        };
        if self.kind() == "v2" {
            return Ok(CgroupRoot { v1: None, v2 });
        }
        let place = |controller: &str| {
            self.v1_with(controller)
                .map(|m| v1_place(m, name))
                .transpose()
        };
        let with_v2 = v2.is_some();
        let dirs = v1::Dirs {
            cpu: place("cpu")?,
            cpuacct: if with_v2 { None } else { place("cpuacct")? },
            memory: place("memory")?,
            pids: place("pids")?,
            devices: self
                .v1_with("devices")
                .map(|m| {
                    let (dir, from) = (v1_place(m, name)?, m.own.clone());
                    Ok(v1::Devices { dir, from })
                })
                .transpose()?,
            freezer: if with_v2 { None } else { place("freezer")? },
        };
        Ok(CgroupRoot {
            v1: Some(v1::Root::create(dirs)?),
            v2,
        })
    }

    fn v2_root(&self, m: &V2Mount, name: &str) -> Result<v2::Root> {
        // A controller bound to a v1 hierarchy never shows up here, so there is no overlap to resolve.
        let order = if delegated(&m.own) {
            [&m.own, &m.mount]
        } else {
            [&m.mount, &m.own]
        };
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for base in order {
            match v2::Root::create(base, &m.own, name, m.controllers) {
                Ok(root) => return Ok(root),
                Err(CgroupError::File { source, .. }) => last = source,
                Err(other) => return Err(other),
            }
        }
        Err(not_writable(name, &order.map(PathBuf::as_path), last))
    }
}

/// The first place in a v1 hierarchy where the folder exists or can be made.
fn v1_place(m: &V1Mount, name: &str) -> Result<PathBuf> {
    let order = [&m.mount, &m.own];
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for base in order {
        let dir = base.join(name);
        match super::files::make_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(CgroupError::File { source, .. }) => last = source,
            Err(other) => return Err(other),
        }
    }
    Err(not_writable(name, &order.map(PathBuf::as_path), last))
}

fn not_writable(name: &str, tried: &[&Path], source: io::Error) -> CgroupError {
    let tried = tried
        .iter()
        .map(|p| p.display().to_string())
        .collect::<Vec<_>>()
        .join(", ");
    CgroupError::NotWritable {
        name: name.to_owned(),
        tried,
        source,
    }
}

/// Whether systemd gave us this group to divide (it marks the folder, systemd.resource-control(5)), or somebody changed its owner to us.
fn delegated(own: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let marked = ["user.delegate", "trusted.delegate"]
        .iter()
        .any(|attribute| {
            let mut value = [0u8; 8];
            rustix::fs::getxattr(own, *attribute, &mut value)
                .is_ok_and(|n| value.get(..n) == Some(b"1"))
        });
    let me = rustix::process::geteuid().as_raw();
    marked || (me != 0 && own.metadata().is_ok_and(|m| m.uid() == me))
}

/// The folder of group `path` in a mount that shows the hierarchy from group `root` on. A path outside it (`/..` in a namespace, or
/// another branch) is best answered by the mount itself.
fn below(mount: &Path, root: &str, path: &str) -> PathBuf {
    let inside = if root == "/" {
        Some(path)
    } else {
        path.strip_prefix(root)
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match inside {
        Some(rest) if !rest.split('/').any(|part| part == "..") => {
            mount.join(rest.trim_start_matches('/'))
        }
        _ => mount.to_owned(),
    }
    // `join("")` would leave a trailing slash, which would make equal paths differ.
    .components()
    .collect()
}

/// Undoes the octal escapes of mountinfo (space, tab, newline, backslash).
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            Some(byte) => {
                out.push(byte.into());
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 22 0:27 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755
31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
34 30 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
35 30 0:32 / /nowhere/unified\\040tree rw - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_host_is_told_apart_and_own_groups_are_found() {
        let own = "4:name=systemd:/x\n3:pids:/x\n2:memory:/jobs/a\n1:cpu,cpuacct:/\n0::/x\n";
        let h = Hierarchy::from_tables(HYBRID, own);
        assert_eq!(h.kind(), "hybrid");
        assert_eq!(
            h.v1_with("memory").unwrap().own,
            Path::new("/sys/fs/cgroup/memory/jobs/a")
        );
        assert_eq!(
            h.v1_with("cpuacct").unwrap().mount,
            Path::new("/sys/fs/cgroup/cpu,cpuacct")
        );
        assert_eq!(
            h.v2.as_ref().unwrap().own,
            Path::new("/nowhere/unified tree/x")
        );
        assert!(h.has("pids") && !h.has("freezer"));
    }

    #[test]
    fn pure_v1_and_pure_v2_are_told_apart() {
        let v1: String = HYBRID
            .lines()
            .filter(|l| !l.contains("cgroup2"))
            .map(|l| format!("{l}\n"))
            .collect();
        assert_eq!(
            Hierarchy::from_tables(&v1, "3:pids:/\n2:memory:/\n1:cpu,cpuacct:/\n").kind(),
            "v1"
        );
        let v2 = "35 30 0:32 / /nowhere rw - cgroup2 cgroup2 rw\n";
        let h = Hierarchy::from_tables(v2, "0::/user.slice\n");
        assert_eq!(h.kind(), "v2");
        assert!(!h.has("cpu"), "no controllers file, so none claimed");
    }

    #[test]
    fn a_mount_of_a_part_of_the_tree_is_translated() {
        assert_eq!(
            below(Path::new("/m"), "/docker/abc", "/docker/abc/x"),
            Path::new("/m/x")
        );
        assert_eq!(
            below(Path::new("/m"), "/docker/abc", "/docker/abcd"),
            Path::new("/m")
        );
        assert_eq!(below(Path::new("/m"), "/", "/../.."), Path::new("/m"));
        assert_eq!(below(Path::new("/m"), "/", "/"), Path::new("/m"));
    }
}
