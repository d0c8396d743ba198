//! How a keeper is set up: what the server decides once, before the first instance.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::net::{NetworkConfig, Private, Subnet};

/// What starts containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Runtime {
    /// The runtime in this crate: zygotes and `clone3`.
    #[default]
    Own,
    /// Any command line of the OCI runtime specification: runc, crun, runsc (gVisor), kata.
    Oci {
        /// The program.
        path: PathBuf,
        /// Arguments put before the subcommand, such as `--network=host --ignore-cgroups` for runsc.
        args: Vec<String>,
    },
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("own"),
            Self::Oci { path, args } => {
                write!(f, "{}", path.display())?;
                args.iter().try_for_each(|arg| write!(f, " {arg}"))
            }
        }
    }
}

/// How instances reach the outside; see [`NetworkConfig`] for what each field means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// Name of the rule tables and beginning of the links' names.
    pub name: String,
    /// The addresses of instances, such as `10.213.0.0/16`; chosen when absent.
    pub subnet: Option<String>,
    /// Private networks that instances may reach, such as `192.168.1.0/24`, or `all`.
    #[serde(default)]
    pub private: Vec<String>,
    /// TCP ports of the host that instances may reach at the gateway's address.
    pub allow_host_ports: Vec<u16>,
    /// Where the host's DNS server for instances listens, if not on port 53.
    pub dns_port: Option<u16>,
    /// Where requests to 169.254.169.254:80 are sent.
    pub metadata_port: Option<u16>,
}

impl Egress {
    /// Parses the settings into what the network takes.
    ///
    /// # Errors
    /// When a network is not one.
    pub fn config(&self) -> Result<NetworkConfig, String> {
        let parse = |text: &String| text.parse::<Subnet>().map_err(|e| format!("network: {e}"));
        let private = if self.private.iter().any(|text| text == "all") {
            Private::All
        } else {
            Private::Only(self.private.iter().map(parse).collect::<Result<_, _>>()?)
        };
        Ok(NetworkConfig {
            name: self.name.clone(),
            subnet: self.subnet.as_ref().map(parse).transpose()?,
            private,
            allow_host_ports: self.allow_host_ports.clone(),
            dns_port: self.dns_port,
            metadata_port: self.metadata_port,
        })
    }
}

/// Everything a keeper must know. Handed over at its start; only the pool size changes later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeeperSettings {
    /// Where the lock, the socket, the spool and the mount points are. One keeper per directory.
    pub state_dir: PathBuf,
    /// How many zygotes wait ready.
    pub pool_size: u32,
    /// The host id of user 0 inside; layers on disk are shifted by it. Ids up to `uid_base + 65535` belong to instances.
    pub uid_base: u32,
    /// What starts containers.
    pub runtime: Runtime,
    /// How instances reach the outside; `None` leaves them with a loopback interface only.
    pub network: Option<Egress>,
    /// The most bytes of memory of all instances together; by what the machine has when absent.
    #[serde(default)]
    pub memory_max: Option<u64>,
    /// The most instances; by how many files a process may have open when absent.
    #[serde(default)]
    pub max_instances: Option<u32>,
    /// The most bytes of unread log on disk; the oldest are dropped beyond it.
    pub spool_max_bytes: u64,
    /// Where image layers are: every layer of a spec lies below one of these.
    pub layer_dirs: Vec<PathBuf>,
}

impl KeeperSettings {
    /// Settings with everything but the place at its default: a pool of 8, ids from 1,000,000, the own runtime, no egress,
    /// as many instances as the machine bears, 256 MiB of spool.
    #[must_use]
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            pool_size: 8,
            uid_base: 1_000_000,
            runtime: Runtime::Own,
            network: None,
            memory_max: None,
            max_instances: None,
            spool_max_bytes: 256 << 20,
            layer_dirs: Vec::new(),
        }
    }

    /// Where the spool is.
    #[must_use]
    pub fn spool_dir(&self) -> PathBuf {
        self.state_dir.join("spool")
    }

    /// The name of this keeper's cgroups and links on the host: the same for the same state directory, so that a new
    /// keeper finds what a dead one left.
    #[must_use]
    pub fn host_name(&self) -> String {
        // FNV-1a: stable over builds, unlike the standard hasher.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in self.state_dir.as_os_str().as_encoded_bytes() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        format!("lauf-{:08x}", (hash ^ (hash >> 32)) & 0xffff_ffff)
    }
}

/// A setting that a living keeper has otherwise than it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub setting: &'static str,
    /// As the keeper has it.
    pub kept: String,
    /// As it is asked for.
    pub wanted: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            setting,
            kept,
            wanted,
        } = self;
        write!(f, "{setting} is {kept}, not {wanted}")
    }
}

impl KeeperSettings {
    /// What a keeper with these settings does otherwise than one with those wanted would. The size of
    /// the pool is left out, since it can be changed; so is where things are, since a keeper is found
    /// by that.
    #[must_use]
    pub fn differences(&self, wanted: &Self) -> Vec<Difference> {
        let network = |of: &Self, what: fn(&Egress) -> String| {
            of.network.as_ref().map_or_else(|| "off".to_owned(), what)
        };
        let egress = |of: &Self| network(of, |_| "on".to_owned());
        let ports = |of: &Self| {
            network(of, |n| {
                n.allow_host_ports
                    .iter()
                    .map(u16::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            })
        };
        let by_machine = || "by the machine's".to_owned();
        let bytes = |of: Option<u64>| of.map_or_else(by_machine, |n| format!("{} MiB", n >> 20));
        let number = |of: Option<u32>| of.map_or_else(by_machine, |n| n.to_string());
        let mut all = vec![
            (
                "the runtime",
                self.runtime.to_string(),
                wanted.runtime.to_string(),
            ),
            ("egress", egress(self), egress(wanted)),
            (
                "the first user id",
                self.uid_base.to_string(),
                wanted.uid_base.to_string(),
            ),
            (
                "the most memory of all instances",
                bytes(self.memory_max),
                bytes(wanted.memory_max),
            ),
            (
                "the most instances",
                number(self.max_instances),
                number(wanted.max_instances),
            ),
            (
                "the most bytes of unread log",
                self.spool_max_bytes.to_string(),
                wanted.spool_max_bytes.to_string(),
            ),
        ];
        if self.network.is_some() && wanted.network.is_some() {
            let ports_open = "the host's ports that instances reach";
            all.push((ports_open, ports(self), ports(wanted)));
            let private = |of: &Self| {
                network(of, |n| match n.private.as_slice() {
                    [] => "none".to_owned(),
                    some => some.join(", "),
                })
            };
            let reached = "what instances reach of private networks";
            all.push((reached, private(self), private(wanted)));
        }
        all.into_iter()
            .filter(|(_, kept, wanted)| kept != wanted)
            .map(|(setting, kept, wanted)| Difference {
                setting,
                kept,
                wanted,
            })
            .collect()
    }
}

/// How the server reaches or makes its keeper.
#[derive(Debug, Clone)]
pub struct KeeperConfig {
    /// The program whose subcommand calls [`crate::keeper_main`]; normally the running binary itself.
    pub exe: PathBuf,
    /// The arguments that lead to that subcommand, such as `["keeper"]`.
    pub args: Vec<String>,
    /// The settings of a keeper that has to be made. A living keeper keeps the settings it was made with.
    pub settings: KeeperSettings,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_egress(port: u16) -> KeeperSettings {
        KeeperSettings {
            network: Some(Egress {
                name: "lf12345n".to_owned(),
                subnet: None,
                private: Vec::new(),
                allow_host_ports: vec![port],
                dns_port: None,
                metadata_port: None,
            }),
            ..KeeperSettings::new(PathBuf::from("/data/keeper"))
        }
    }

    fn told(kept: &KeeperSettings, wanted: &KeeperSettings) -> Vec<String> {
        let all = kept.differences(wanted);
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_living_keeper_has_otherwise_is_named() {
        let kept = with_egress(8080);
        assert_eq!(told(&kept, &kept), [""; 0]);
        let wanted = KeeperSettings {
            pool_size: 99,
            state_dir: PathBuf::from("data/keeper"),
            runtime: Runtime::Oci {
                path: PathBuf::from("/usr/bin/runsc"),
                args: vec!["--network=host".to_owned()],
            },
            ..with_egress(9090)
        };
        assert_eq!(
            told(&kept, &wanted),
            [
                "the runtime is own, not /usr/bin/runsc --network=host",
                "the host's ports that instances reach is 8080, not 9090",
            ]
        );
        let none = KeeperSettings::new(PathBuf::from("/data/keeper"));
        assert_eq!(told(&none, &kept), ["egress is off, not on"]);
    }
}
