//! What to run: the image's layers, the command, the identity and the limits of one instance.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::Limits;

/// How many user and group ids an instance has: 0 to 65535, mapped to `uid_base` and up on the host.
pub const ID_COUNT: u32 = 65_536;

/// The most a spec may take in its encoded form. `execve` allows about 2 MiB of arguments and environment; more than this
/// is a mistake.
pub const MAX_SPEC_BYTES: usize = 1 << 20;

/// The most image layers an instance may have; the kernel's overlayfs takes 500.
pub const MAX_LAYERS: usize = 400;

/// The name of an instance, unique within a keeper. It names cgroups and files, so it is kept to 1 to 63 of `[A-Za-z0-9_-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(String);

impl InstanceId {
    /// Parses a name.
    ///
    /// # Errors
    /// [`SpecError::Id`] when it is empty, too long, or has another character in it.
    pub fn new(name: impl Into<String>) -> Result<Self, SpecError> {
        let name = name.into();
        let fits = !name.is_empty()
            && name.len() <= 63
            && !name.starts_with('-')
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if fits {
            Ok(Self(name))
        } else {
            Err(SpecError::Id(name))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for InstanceId {
    type Error = SpecError;
    fn try_from(name: String) -> Result<Self, SpecError> {
        Self::new(name)
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.0
    }
}

/// One container to start. User and group ids are as seen inside, 0 to 65535.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The name of the instance; must not be in use by a living or unacknowledged instance.
    pub id: InstanceId,
    /// Unpacked image layers, lowest first, owned as shifted by `uid_base`. May be empty.
    pub layers: Vec<PathBuf>,
    /// The command and its arguments. A first word without a slash is looked up in the `PATH` of `env`.
    pub args: Vec<String>,
    /// The environment, in order. `PATH` and `HOME` are added when absent, as container runtimes do.
    pub env: Vec<(String, String)>,
    /// The working directory; made when the image lacks it.
    pub cwd: String,
    /// The user id to run as.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub additional_gids: Vec<u32>,
    /// The host name; also written to `/etc/hostname`.
    pub hostname: String,
    /// CPU limit in thousandths of a CPU; 0 means none.
    pub cpu_millis: u32,
    /// CPU limit while it starts, in thousandths of a CPU, until the server says that it has; 0 means that there is no other.
    #[serde(default)]
    pub startup_cpu_millis: u32,
    /// Memory limit in bytes, the writable layer included; 0 means none.
    pub memory_bytes: u64,
    /// The most processes and threads; 0 means none.
    pub pids_max: u32,
    /// What `/etc/resolv.conf` shall hold; `None` leaves the image's.
    pub resolv_conf: Option<String>,
    /// What `/etc/hosts` shall hold; `None` leaves the image's.
    pub hosts: Option<String>,
    /// Kept by the keeper and given back at adoption; not looked at.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the instance to stop (15, `SIGTERM`, unless the image says otherwise). Given back at adoption;
    /// sending it is the caller's business.
    pub stop_signal: i32,
    /// Whether it is started also when the connection that asked for it is gone by then. Otherwise it is killed, as whoever
    /// comes next does not know of it.
    #[serde(default)]
    pub outlives_asker: bool,
}

impl ContainerSpec {
    /// A spec with the given name, layers and command, and every limit off: for tests and small tools.
    #[must_use]
    pub fn new(id: InstanceId, layers: Vec<PathBuf>, args: Vec<String>) -> Self {
        Self {
            hostname: id.as_str().to_owned(),
            id,
            layers,
            args,
            env: Vec::new(),
            cwd: "/".to_owned(),
            uid: 0,
            gid: 0,
            additional_gids: Vec::new(),
            cpu_millis: 0,
            startup_cpu_millis: 0,
            memory_bytes: 0,
            pids_max: 0,
            resolv_conf: None,
            hosts: None,
            labels: BTreeMap::new(),
            stop_signal: 15,
            outlives_asker: false,
        }
    }

    /// What it may use while it starts.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            cpu_millis: match self.startup_cpu_millis {
                0 => self.cpu_millis,
                more => more,
            },
            memory_bytes: self.memory_bytes,
            pids_max: self.pids_max,
        }
    }

    /// Checks everything that can be checked without touching the host.
    ///
    /// # Errors
    /// The first fault found; each names the field and the value.
    pub fn validate(&self) -> Result<(), SpecError> {
        if self.args.first().is_none_or(String::is_empty) {
            return Err(SpecError::NoCommand);
        }
        for (field, id) in [("uid", self.uid), ("gid", self.gid)].into_iter().chain(
            self.additional_gids
                .iter()
                .map(|gid| ("additional_gids", *gid)),
        ) {
            if id >= ID_COUNT {
                return Err(SpecError::IdRange { field, value: id });
            }
        }
        if self.layers.len() > MAX_LAYERS {
            return Err(SpecError::Layers(self.layers.len()));
        }
        if let Some(layer) = self.layers.iter().find(|layer| !layer.is_absolute()) {
            return Err(SpecError::RelativeLayer(layer.clone()));
        }
        if !self.cwd.starts_with('/') {
            return Err(SpecError::Cwd(self.cwd.clone()));
        }
        if self.hostname.is_empty() || self.hostname.len() > 64 {
            return Err(SpecError::Hostname(self.hostname.clone()));
        }
        if let Some((name, _)) = self
            .env
            .iter()
            .find(|(name, _)| name.is_empty() || name.contains('='))
        {
            return Err(SpecError::EnvName(name.clone()));
        }
        let texts = self
            .args
            .iter()
            .chain(self.env.iter().flat_map(|(k, v)| [k, v]))
            .chain([&self.cwd, &self.hostname]);
        if let Some(text) = texts.into_iter().find(|text| text.contains('\0')) {
            return Err(SpecError::Nul(text.replace('\0', "\\0")));
        }
        Ok(())
    }
}

/// Why a spec is refused before anything is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// See [`InstanceId`].
    #[error("instance id {0:?} must be 1 to 63 letters, digits, '-' or '_', not starting with '-'")]
    Id(String),
    /// `args` is empty, or its first word is.
    #[error("args is empty: the image has no entrypoint or command; give one")]
    NoCommand,
    /// A user or group id outside of the map.
    #[error("{field} {value} is out of range: ids in a container go from 0 to 65535")]
    IdRange {
        /// Which id.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// Too many layers.
    #[error("layers has {0} entries; at most 400 are allowed, squash the image")]
    Layers(usize),
    /// A layer path that is not absolute.
    #[error("layer {0:?} must be an absolute path")]
    RelativeLayer(PathBuf),
    /// A working directory that is not absolute.
    #[error("cwd {0:?} must be an absolute path")]
    Cwd(String),
    /// An empty or overlong host name.
    #[error("hostname {0:?} must have 1 to 64 characters")]
    Hostname(String),
    /// An environment name that is empty or has `=` in it.
    #[error("env name {0:?} must not be empty and must not contain '='")]
    EnvName(String),
    /// A zero byte, which no argument can carry.
    #[error("{0:?} contains a NUL character, which cannot be passed to a program")]
    Nul(String),
    /// The encoded spec is over [`MAX_SPEC_BYTES`].
    #[error("the command, environment and files take {0} bytes; at most 1 MiB is allowed")]
    TooLarge(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ContainerSpec {
        ContainerSpec::new(
            InstanceId::new("a").unwrap(),
            vec!["/l".into()],
            vec!["/x".into()],
        )
    }

    #[test]
    fn ids_name_files_safely() {
        for bad in ["", "..", "a/b", "-a", "a b", &"x".repeat(64)] {
            assert!(InstanceId::new(bad).is_err(), "{bad:?}");
        }
        assert!(InstanceId::new("hello-00001-abc_x").is_ok());
    }

    #[test]
    fn each_fault_is_named() {
        assert!(spec().validate().is_ok());
        let fault = |change: fn(&mut ContainerSpec)| {
            let mut s = spec();
            change(&mut s);
            s.validate().unwrap_err().to_string()
        };
        assert!(fault(|s| s.args.clear()).contains("args"));
        assert!(fault(|s| s.uid = 70_000).contains("uid 70000"));
        assert!(fault(|s| s.additional_gids = vec![65_536]).contains("additional_gids 65536"));
        assert!(fault(|s| s.cwd = "x".into()).contains("cwd"));
        assert!(fault(|s| s.env.push(("A=B".into(), String::new()))).contains("env"));
        assert!(fault(|s| s.args.push("a\0b".into())).contains("NUL"));
        assert!(fault(|s| s.layers = vec!["rel".into()]).contains("absolute"));
    }
}
