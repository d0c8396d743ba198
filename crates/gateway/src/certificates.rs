//! Certificates from files, as a public authority or one's own has signed them, for the names they are for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(10);

/// A certificate, or the chain it begins, and its key; both in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFile {
    /// The certificate, then those that lead to a root.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFileError {
    /// A file cannot be read, or holds something else.
    #[error("cannot read {what} from {}: {source}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// The file has no certificate.
    #[error("{} holds no certificate: it must be in PEM form, the server's certificate first", .0.display())]
    Empty(PathBuf),
    /// The certificate is none of a server, or the key is none of the certificate.
    #[error("{} and {} do not belong together, or cannot be used: {source}", file.certificate.display(), file.key.display())]
    Pair {
        /// The two files.
        file: CertificateFile,
        /// Why not.
        source: rustls::Error,
    },
}

/// The certificates of some files. They are read again when the files change, as they do when a certificate is renewed.
#[derive(Debug)]
pub struct CertificateFiles {
    files: Vec<CertificateFile>,
    loaded: ArcSwap<Vec<Arc<CertifiedKey>>>,
}

impl CertificateFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn load(files: Vec<CertificateFile>) -> Result<Self, CertificateFileError> {
        let loaded = ArcSwap::from_pointee(load_all(&files)?);
        Ok(Self { files, loaded })
    }

    /// The first certificate that is for a name. Names of certificates are those of RFC 6125, section 6.4: a star
    /// stands for one label.
    pub(crate) fn of(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = ServerName::try_from(name).ok()?;
        let is_for = |key: &&Arc<CertifiedKey>| {
            key.end_entity_cert()
                .and_then(ParsedCertificate::try_from)
                .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
        };
        self.loaded.load().iter().find(is_for).cloned()
    }

    /// Reads the files again whenever they have changed, for as long as it is polled. What cannot be used is told and
    /// leaves the certificates as they are: half of a pair may be there before the other.
    pub async fn follow(self: Arc<Self>) {
        self.look_each(LOOK).await;
    }

    async fn look_each(self: Arc<Self>, pause: Duration) {
        let mut seen = stamps(&self.files);
        loop {
            tokio::time::sleep(pause).await;
            let this = Arc::clone(&self);
            let before = seen.clone();
            let read = tokio::task::spawn_blocking(move || {
                let now = stamps(&this.files);
                (now != before).then(|| (now, load_all(&this.files)))
            });
            match read.await {
                Ok(Some((now, Ok(loaded)))) => {
                    tracing::info!("read the certificates again, as their files have changed");
                    self.loaded.store(Arc::new(loaded));
                    seen = now;
                }
                Ok(Some((now, Err(error)))) => {
                    tracing::error!("the certificates from before are served on: {error}");
                    seen = now;
                }
                Ok(None) | Err(_) => {}
            }
        }
    }
}

/// By what it is seen that a file has changed. Links are followed, as tools that renew certificates set links.
fn stamps(files: &[CertificateFile]) -> Vec<Option<(SystemTime, u64)>> {
    let stamp = |path: &PathBuf| -> io::Result<_> {
        let facts = fs::metadata(path)?;
        Ok((facts.modified()?, facts.len()))
    };
    files
        .iter()
        .flat_map(|file| [&file.certificate, &file.key])
        .map(|path| stamp(path).ok())
        .collect()
}

fn load_all(files: &[CertificateFile]) -> Result<Vec<Arc<CertifiedKey>>, CertificateFileError> {
    files.iter().map(load).collect()
}

fn load(file: &CertificateFile) -> Result<Arc<CertifiedKey>, CertificateFileError> {
    let wrong = |what, path: &Path| {
        let path = path.to_owned();
        move |source| CertificateFileError::File { what, path, source }
    };
    let chain = CertificateDer::pem_file_iter(&file.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(wrong("a certificate", &file.certificate))?;
    let Some(first) = chain.first() else {
        return Err(CertificateFileError::Empty(file.certificate.clone()));
    };
    let pair = |source| CertificateFileError::Pair {
        file: file.clone(),
        source,
    };
    ParsedCertificate::try_from(first).map_err(pair)?;
    let key = PrivateKeyDer::from_pem_file(&file.key).map_err(wrong("a private key", &file.key))?;
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(pair)?;
    Ok(Arc::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a pair for some names.
    fn pair(dir: &Path, stem: &str, names: &[&str]) -> CertificateFile {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let file = CertificateFile {
            certificate: dir.join(format!("{stem}.pem")),
            key: dir.join(format!("{stem}.key")),
        };
        fs::write(&file.certificate, made.cert.pem()).unwrap();
        fs::write(&file.key, made.signing_key.serialize_pem()).unwrap();
        file
    }

    fn der(files: &CertificateFiles, name: &str) -> Option<Vec<u8>> {
        files.of(name).map(|key| key.cert[0].to_vec())
    }

    #[test]
    fn a_name_has_the_first_certificate_that_is_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let stars = pair(dir.path(), "stars", &["*.eu.run.test", "run.test"]);
        let one = pair(dir.path(), "one", &["a.us.run.test", "b.eu.run.test"]);
        let files = CertificateFiles::load(vec![stars, one]).unwrap();
        let of = |name| der(&files, name);
        let (stars, one) = (of("run.test").unwrap(), of("a.us.run.test").unwrap());
        assert_ne!(stars, one);
        assert_eq!(of("b.eu.run.test"), Some(stars.clone()));
        assert_eq!(of("X.EU.run.test"), Some(stars));
        for other in ["eu.run.test", "a.b.eu.run.test", "c.us.run.test", "", "::1"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_the_name_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (
            pair(dir.path(), "a", &["a.test"]),
            pair(dir.path(), "b", &["b.test"]),
        );
        let refused = |certificate: &Path, key: &Path| {
            let (certificate, key) = (certificate.to_owned(), key.to_owned());
            CertificateFiles::load(vec![CertificateFile { certificate, key }])
                .unwrap_err()
                .to_string()
        };
        assert!(refused(&a.certificate, &b.key).contains("do not belong together"));
        let missing = dir.path().join("missing.pem");
        assert!(refused(&missing, &a.key).contains("missing.pem"));
        assert!(refused(&a.key, &a.key).contains("holds no certificate"));
        assert!(refused(&a.certificate, &b.certificate).contains("a private key from"));
    }

    #[tokio::test]
    async fn renewed_files_are_read_again_and_broken_ones_are_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = pair(dir.path(), "a", &["a.test"]);
        let files = Arc::new(CertificateFiles::load(vec![file.clone()]).unwrap());
        let pause = Duration::from_millis(2);
        let following = tokio::spawn(Arc::clone(&files).look_each(pause));
        tokio::time::sleep(pause * 2).await;
        let first = der(&files, "a.test").unwrap();

        fs::write(&file.certificate, "half").unwrap();
        tokio::time::sleep(pause * 20).await;
        assert_eq!(der(&files, "a.test"), Some(first.clone()));

        pair(dir.path(), "a", &["a.test", "b.test"]);
        while der(&files, "b.test").is_none() {
            tokio::time::sleep(pause).await;
        }
        assert_ne!(der(&files, "a.test"), Some(first));
        following.abort();
    }
}
