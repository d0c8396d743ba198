//! gcloud's own folder: what a setup writes there, and how it is taken back without a trace.
//!
//! ```text
//! configurations/config_NAME       the configuration
//! active_config                    NAME
//! lauf/NAME/{ca.pem,token}         what the configuration points to
//! lauf/NAME/{active,replaced}      what was there before, for the way back
//! ```

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// gcloud's folder and the name of our configuration in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder {
    dir: PathBuf,
    name: String,
}

/// What a configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) project: String,
    pub(super) region: String,
    pub(super) account: String,
    pub(super) ca: String,
    pub(super) token: String,
}

impl Folder {
    /// The folder at `dir`.
    ///
    /// # Errors
    /// When gcloud would not take the name.
    pub(super) fn new(dir: PathBuf, name: &str) -> Result<Self> {
        let mut bytes = name.bytes();
        let fine = bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !fine || name == "default" {
            bail!(
                "gcloud takes no configuration named '{name}': lower-case letters, digits and \
                 hyphens, starting with a letter, and not default."
            );
        }
        Ok(Self {
            dir,
            name: name.to_owned(),
        })
    }

    fn config(&self) -> PathBuf {
        self.dir
            .join("configurations")
            .join(format!("config_{}", self.name))
    }

    fn active(&self) -> PathBuf {
        self.dir.join("active_config")
    }

    fn ours(&self) -> PathBuf {
        self.dir.join("lauf").join(&self.name)
    }

    /// Whether a setup of ours is there.
    pub(super) fn is_set_up(&self) -> bool {
        self.ours().is_dir()
    }

    /// The configuration that gcloud uses now.
    pub(super) fn active_name(&self) -> Result<String> {
        Ok(read(&self.active())?
            .map(|text| text.trim().to_owned())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".to_owned()))
    }

    /// Writes the configuration. A second time renews it.
    pub(super) fn set_up(&self, settings: &Settings, activate: bool) -> Result<()> {
        let ours = self.ours();
        let first = !self.is_set_up();
        fs::create_dir_all(&ours).with_context(|| format!("making {}", ours.display()))?;
        if first && let Some(replaced) = read(&self.config())? {
            write(&ours.join("replaced"), &replaced, 0o600)?;
        }
        let (ca, token) = (ours.join("ca.pem"), ours.join("token"));
        write(&ca, &settings.ca, 0o644)?;
        write(&token, &settings.token, 0o600)?;
        let config = self.config();
        let parent = self.dir.join("configurations");
        fs::create_dir_all(&parent).with_context(|| format!("making {}", parent.display()))?;
        write(&config, &settings.ini(&ca, &token), 0o600)?;
        if activate && self.active_name()? != self.name {
            let before = read(&self.active())?.unwrap_or_default();
            write(&ours.join("active"), &before, 0o600)?;
            write(&self.active(), &self.name, 0o644)?;
        }
        Ok(())
    }

    /// Takes everything back. Says which configuration gcloud uses from here on.
    pub(super) fn undo(&self) -> Result<String> {
        let ours = self.ours();
        if !self.is_set_up() {
            bail!(
                "There is no setup of Lauf named '{}' in {}; nothing to take back.",
                self.name,
                self.dir.display()
            );
        }
        // Somebody who has switched since then keeps what they switched to.
        if self.active_name()? == self.name {
            match read(&ours.join("active"))? {
                Some(before) if !before.trim().is_empty() && before.trim() != self.name => {
                    write(&self.active(), &before, 0o644)?;
                }
                _ => remove(&self.active())?,
            }
        }
        match read(&ours.join("replaced"))? {
            Some(replaced) => write(&self.config(), &replaced, 0o600)?,
            None => remove(&self.config())?,
        }
        fs::remove_dir_all(&ours).with_context(|| format!("removing {}", ours.display()))?;
        // gcloud's own memory of a configuration, made when it was first used.
        remove(&self.dir.join(format!("{}_configs.db", self.name)))?;
        // Only if nothing else is left in them.
        let _ = fs::remove_dir(self.dir.join("lauf"));
        let _ = fs::remove_dir(self.dir.join("configurations"));
        self.active_name()
    }
}

impl Settings {
    /// gcloud's own form. It takes a note behind a value for a part of the value, so there is none.
    fn ini(&self, ca: &Path, token: &Path) -> String {
        format!(
            "# Written by `lauf gcloud setup`; `lauf gcloud setup --undo` takes it away.\n\
             [core]\n\
             project = {project}\n\
             # For display only: the token below decides who you are.\n\
             account = {account}\n\
             custom_ca_certs_file = {ca}\n\
             disable_usage_reporting = true\n\
             [run]\n\
             region = {region}\n\
             [proxy]\n\
             type = http\n\
             address = {host}\n\
             port = {port}\n\
             [auth]\n\
             access_token_file = {token}\n\
             [artifacts]\n\
             allow_unrecognized_registry = true\n\
             [api_endpoint_overrides]\n\
             # The one call that does not use the proxy.\n\
             iamcredentials = http://{host}:{port}/\n",
            project = self.project,
            account = self.account,
            ca = ca.display(),
            region = self.region,
            host = self.host,
            port = self.port,
            token = token.display(),
        )
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes aside and renames, so that gcloud never reads half a file, and a secret is never
/// readable for others, not even at first.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".lauf-new");
    let aside = PathBuf::from(aside);
    let written = (|| {
        remove_quietly(&aside);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&aside)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&aside, path)
    })();
    written.with_context(|| format!("writing {}", path.display()))
}

fn remove_quietly(path: &Path) {
    let _ = fs::remove_file(path);
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn settings() -> Settings {
        Settings {
            host: "127.0.0.1".into(),
            port: 18080,
            project: "demo".into(),
            region: "us-central1".into(),
            account: "admin@run.localhost".into(),
            ca: "-----BEGIN CERTIFICATE-----\n".into(),
            token: "tok".into(),
        }
    }

    /// Every file below a folder and what is in it.
    fn files(dir: &Path) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(path.clone(), fs::read_to_string(path).unwrap());
                }
            }
        }
        found
    }

    #[test]
    fn undo_leaves_what_was_there() {
        for before in [None, Some("work"), Some("default")] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("configurations")).unwrap();
            fs::write(dir.path().join("configurations/config_lauf"), "[core]\n").unwrap();
            fs::write(dir.path().join("configurations/config_work"), "[core]\n").unwrap();
            if let Some(before) = before {
                fs::write(dir.path().join("active_config"), before).unwrap();
            }
            let at_first = files(dir.path());
            let folder = Folder::new(dir.path().to_owned(), "lauf").unwrap();
            folder.set_up(&settings(), true).unwrap();
            // Again, as after a restart on another port.
            let mut second = settings();
            second.port = 18081;
            folder.set_up(&second, true).unwrap();
            assert_eq!(folder.active_name().unwrap(), "lauf");
            let config = fs::read_to_string(dir.path().join("configurations/config_lauf")).unwrap();
            assert!(config.contains("\nport = 18081\n"));
            let token = dir.path().join("lauf/lauf/token");
            assert!(config.contains(&format!("\naccess_token_file = {}\n", token.display())));
            let mode = fs::metadata(&token).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(folder.undo().unwrap(), before.unwrap_or("default"));
            assert_eq!(files(dir.path()), at_first);
            assert!(!dir.path().join("lauf").exists());
            assert!(folder.undo().is_err());
        }
    }

    #[test]
    fn undo_does_not_switch_those_who_have_switched() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned(), "lauf").unwrap();
        folder.set_up(&settings(), true).unwrap();
        fs::write(dir.path().join("active_config"), "work").unwrap();
        assert_eq!(folder.undo().unwrap(), "work");
    }

    #[test]
    fn names_are_those_gcloud_takes() {
        for name in ["default", "", "Lauf", "../x", "1a", "a_b"] {
            assert!(Folder::new("/x".into(), name).is_err(), "{name}");
        }
    }
}
