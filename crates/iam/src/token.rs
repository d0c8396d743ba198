//! The administrator's secret: how it is made, kept and compared.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// A secret of which only the hash stays in memory. Comparing hashes leaves nothing for a timing
/// attack to learn about the secret.
#[derive(Debug)]
pub(crate) struct Token([u8; 32]);

impl Token {
    pub(crate) fn read_or_create(path: &Path) -> io::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) if text.trim().len() >= 16 => Ok(Self::of(text.trim())),
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{} holds no token; delete it and a new one is made",
                    path.display()
                ),
            )),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::create(path),
            Err(e) => Err(e),
        }
    }

    fn create(path: &Path) -> io::Result<Self> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let text = URL_SAFE_NO_PAD.encode(bytes);
        // Written aside and renamed, so that a crash leaves either no token or a whole one.
        let aside = path.with_extension("token.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        Ok(Self::of(&text))
    }

    fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    pub(crate) fn matches(&self, presented: &str) -> bool {
        self.0 == Self::of(presented).0
    }
}
