//! How a keeper is set up: what the server decides once, before the first instance.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::net::{NetworkConfig, Subnet};

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

/// How instances reach the outside; see [`NetworkConfig`] for what each field means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// Name of the rule tables and beginning of the bridges' names.
    pub name: String,
    /// The addresses of instances, such as `10.213.0.0/16`; chosen when absent.
    pub subnet: Option<String>,
    /// TCP ports of the host that instances may reach at the bridge's address.
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
    /// When the subnet is not one.
    pub fn config(&self) -> Result<NetworkConfig, String> {
        let parse = |text: &String| {
            text.parse::<Subnet>()
                .map_err(|e| format!("network subnet {text:?}: {e}"))
        };
        Ok(NetworkConfig {
            name: self.name.clone(),
            subnet: self.subnet.as_ref().map(parse).transpose()?,
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
    /// The most bytes of unread log on disk; the oldest are dropped beyond it.
    pub spool_max_bytes: u64,
    /// Directories whose mounts must stay visible to the keeper besides `state_dir`: where image layers are.
    pub layer_dirs: Vec<PathBuf>,
}

impl KeeperSettings {
    /// Settings with everything but the place at its default: a pool of 8, ids from 1,000,000, the own runtime, no egress,
    /// 256 MiB of spool.
    #[must_use]
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            pool_size: 8,
            uid_base: 1_000_000,
            runtime: Runtime::Own,
            network: None,
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
