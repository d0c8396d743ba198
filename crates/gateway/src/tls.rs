//! TLS for names that no public authority would certify for us: a private authority of this platform,
//! and leaves it makes when a client asks for a name.
//!
//! Clients trust it by file, one configuration at a time, never in a system store. X.509 name
//! constraints bind it to the names that the platform answers for, so a stolen key opens nothing else.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lauf_model::Clock;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, SanType,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use crate::certificates::CertificateFiles;
use crate::host;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);
const LEAF_LIFE: Duration = DAY.saturating_mul(30);
/// Leaves kept; the oldest goes first.
const LEAVES: usize = 1024;
/// Google's API domains, which the platform answers for.
const GOOGLE: [&str; 3] = ["googleapis.com", "pkg.dev", "gcr.io"];

/// Why the authority could not be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What a file holds, or the domain, does not make a certificate.
    #[error("cannot make certificates from {}: {source}. Remove the folder to have a new authority made; clients must then trust its new ca.pem", dir.display())]
    Certificate {
        /// The folder.
        dir: PathBuf,
        /// Why not.
        source: rcgen::Error,
    },
}

/// The platform's certificate authority.
pub struct CertAuthority {
    ca_file: PathBuf,
    domain: String,
    issuer: Issuer<'static, KeyPair>,
    clock: Arc<dyn Clock>,
    leaves: Mutex<Leaves>,
}

#[derive(Default)]
struct Leaves {
    by_name: HashMap<String, Leaf>,
    order: VecDeque<String>,
}

struct Leaf {
    key: Arc<CertifiedKey>,
    renew: Duration,
}

impl fmt::Debug for CertAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertAuthority")
            .field("ca_file", &self.ca_file)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

impl CertAuthority {
    /// Opens the authority of a folder, or makes one there. It is bound to `domain` and made anew when
    /// that changes.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or holds something else.
    pub fn open_or_create(
        dir: &Path,
        domain: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CertError> {
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        let ca_file = dir.join("ca.pem");
        let key_file = dir.join("ca.key");
        let domain_file = dir.join("domain");
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| CertError::File { path, source }
        };
        let certificate = |source| CertError::Certificate {
            dir: dir.to_owned(),
            source,
        };
        fs::create_dir_all(dir).map_err(file(dir))?;
        // The domain is written last: where it is right, so is the rest.
        let known = fs::read_to_string(&domain_file).is_ok_and(|known| known.trim() == domain);
        let key = if known && ca_file.exists() {
            let pem = fs::read_to_string(&key_file).map_err(file(&key_file))?;
            KeyPair::from_pem(&pem).map_err(certificate)?
        } else {
            let key = KeyPair::generate().map_err(certificate)?;
            let ca: Certificate = authority(&domain, clock.as_ref())
                .self_signed(&key)
                .map_err(certificate)?;
            write(&key_file, &key.serialize_pem(), 0o600).map_err(file(&key_file))?;
            write(&ca_file, &ca.pem(), 0o644).map_err(file(&ca_file))?;
            write(&domain_file, &domain, 0o644).map_err(file(&domain_file))?;
            key
        };
        // Leaves need of the authority only its name and its key, which do not depend on when it was made.
        let issuer = Issuer::new(authority(&domain, clock.as_ref()), key);
        Ok(Self {
            ca_file,
            domain,
            issuer,
            clock,
            leaves: Mutex::default(),
        })
    }

    /// The file that clients trust, in PEM form.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// TLS settings with certificates by name, those from files first; HTTP/2 and HTTP/1.1.
    pub(crate) fn server_config(
        self: &Arc<Self>,
        files: Option<Arc<CertificateFiles>>,
    ) -> Result<ServerConfig, rustls::Error> {
        let resolver = Resolver {
            files,
            authority: Arc::clone(self),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// The leaf of a name; `None` for names that are none of ours.
    fn leaf(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        // A client that connects to an address names none.
        let name = name.unwrap_or("localhost").to_ascii_lowercase();
        let ours = host::within(&name, &self.domain)
            || host::within(&name, "localhost")
            || GOOGLE.iter().any(|domain| host::within(&name, domain));
        if !ours {
            return None;
        }
        let now = self.clock.monotonic();
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = leaves.by_name.get(&name)
            && now < leaf.renew
        {
            return Some(Arc::clone(&leaf.key));
        }
        let key = match self.make_leaf(&name) {
            Ok(key) => Arc::new(key),
            Err(error) => {
                tracing::error!("cannot make a certificate for {name}: {error}");
                return None;
            }
        };
        let leaf = Leaf {
            key: Arc::clone(&key),
            renew: now + LEAF_LIFE / 2,
        };
        if leaves.by_name.insert(name.clone(), leaf).is_none() {
            leaves.order.push_back(name);
        }
        if leaves.order.len() > LEAVES
            && let Some(oldest) = leaves.order.pop_front()
        {
            leaves.by_name.remove(&oldest);
        }
        Some(key)
    }

    fn make_leaf(&self, name: &str) -> Result<CertifiedKey, Box<dyn std::error::Error>> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        // Addresses are asked for without a name, which leads here.
        if host::within(name, "localhost") || name == self.domain {
            for address in [
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ] {
                params.subject_alt_names.push(SanType::IpAddress(address));
            }
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(self.clock.as_ref(), LEAF_LIFE);
        let leaf = params.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = ring::sign::any_ecdsa_type(&private)?;
        Ok(CertifiedKey::new(vec![leaf.der().clone()], signer))
    }
}

#[derive(Debug)]
struct Resolver {
    files: Option<Arc<CertificateFiles>>,
    authority: Arc<CertAuthority>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        let files = self.files.as_ref();
        files
            .zip(name)
            .and_then(|(files, name)| files.of(name))
            .or_else(|| self.authority.leaf(name))
    }
}

/// What the authority says of itself.
fn authority(domain: &str, clock: &dyn Clock) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Lauf local authority for {domain}"),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mut permitted: Vec<_> = GOOGLE
        .into_iter()
        .chain(["localhost", domain])
        .map(|name| GeneralSubtree::DnsName(name.to_owned()))
        .collect();
    permitted.push(GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(
        [127, 0, 0, 0],
        8,
    )));
    permitted.push(GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(
        Ipv6Addr::LOCALHOST.octets(),
        128,
    )));
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: permitted,
        excluded_subtrees: Vec::new(),
    });
    (params.not_before, params.not_after) = validity(clock, AUTHORITY_LIFE);
    params
}

/// From a day ago (clocks differ) for as long as given.
fn validity(clock: &dyn Clock, life: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::from_unix_timestamp(clock.now().as_second())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (now - DAY, now + life)
}

/// Writes a file with its final permissions, whole or not at all.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}
