//! A kubeconfig: what is written into one that is there, and how it is taken back without a trace.
//!
//! Everything of ours carries an extension, as minikube's and others' do, by which it is known
//! again; the current context of before stands in it. What else is in the file stays, but for
//! comments, which kubectl does not keep either.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Told;

/// The extension by which our entries are known.
const OURS: &str = "lauf";
/// The largest kubeconfig that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The entries of one server.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entries {
    name: String,
    clusters: Vec<Value>,
    contexts: Vec<Value>,
    user: Value,
}

/// What is left after an undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Undone {
    /// Nothing: the file is gone.
    Gone,
    /// A file, with this current context.
    Current(Option<String>),
}

impl Entries {
    /// The entries of a server under a name.
    pub(super) fn new(name: &str, told: &Told) -> Self {
        let mut clusters = Vec::new();
        let mut contexts = Vec::new();
        for (i, region) in told.regions.iter().enumerate() {
            let own = if i == 0 {
                name.to_owned()
            } else {
                format!("{name}-{region}")
            };
            let mut cluster = json!({
                "server": format!("{}/kubernetes/{region}", told.server),
                "extensions": ours(None),
            });
            if let Some(ca) = &told.ca {
                cluster["certificate-authority-data"] = STANDARD.encode(ca).into();
            }
            if let Some(tls_name) = &told.tls_name {
                cluster["tls-server-name"] = tls_name.clone().into();
            }
            clusters.push(json!({"name": own, "cluster": cluster}));
            contexts.push(json!({"name": own, "context": {
                "cluster": own,
                "user": name,
                "namespace": told.project,
                "extensions": ours(None),
            }}));
        }
        Self {
            name: name.to_owned(),
            clusters,
            contexts,
            user: json!({"name": name, "user": {
                "token": told.token,
                "extensions": ours(None),
            }}),
        }
    }

    /// The address of a cluster.
    pub(super) fn server(&self, i: usize) -> Option<&str> {
        self.clusters.get(i)?["cluster"]["server"].as_str()
    }
}

fn ours(before: Option<&str>) -> Value {
    let mut extension = json!({"writtenBy": "lauf kubeconfig"});
    if let Some(before) = before {
        extension["currentContextBefore"] = before.into();
    }
    json!([{"name": OURS, "extension": extension}])
}

/// Whether an entry of a list is one of ours.
fn is_ours(entry: &Value, kind: &str) -> bool {
    extension(entry, kind).is_some()
}

fn extension<'a>(entry: &'a Value, kind: &str) -> Option<&'a Value> {
    let all = entry[kind]["extensions"].as_array()?;
    let found = all.iter().find(|extension| extension["name"] == OURS)?;
    Some(&found["extension"])
}

/// A file of its own.
pub(super) fn print(entries: &Entries) -> Result<String> {
    let mut config = empty();
    put(&mut config, entries, true, "standard output")?;
    write_yaml(&config)
}

/// Writes the entries into a file. A second time renews them.
pub(super) fn set_up(path: &Path, entries: &Entries, activate: bool) -> Result<()> {
    let mut config = read(path)?.unwrap_or_else(empty);
    put(&mut config, entries, activate, &path.display().to_string())?;
    save(path, &config)
}

/// Takes the entries of a name out of a file.
pub(super) fn undo(path: &Path, name: &str) -> Result<Undone> {
    let Some(mut config) = read(path)? else {
        bail!("There is no {}; nothing to take back.", path.display());
    };
    let context = list(&config, "contexts").find(|entry| entry["name"] == name);
    let Some(before) = context.and_then(|entry| extension(entry, "context").cloned()) else {
        bail!(
            "{} has no context named '{name}' that Lauf wrote; nothing to take back.",
            path.display()
        );
    };
    let prefix = format!("{name}-");
    let current = config["current-context"].as_str().unwrap_or_default();
    // Somebody who has switched since then keeps what they switched to.
    let was_ours = list(&config, "contexts")
        .any(|entry| entry["name"] == current && mine(entry, "context", name, &prefix));
    for (kinds, kind) in [
        ("clusters", "cluster"),
        ("contexts", "context"),
        ("users", "user"),
    ] {
        if let Some(entries) = config[kinds].as_array_mut() {
            entries.retain(|entry| !mine(entry, kind, name, &prefix));
        }
    }
    if was_ours {
        let before = before["currentContextBefore"].as_str().unwrap_or_default();
        let still = list(&config, "contexts").any(|entry| entry["name"] == before);
        config["current-context"] = if still { before.into() } else { "".into() };
    }
    let nothing_left = ["clusters", "contexts", "users"]
        .iter()
        .all(|kinds| list(&config, kinds).next().is_none());
    if nothing_left {
        fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
        return Ok(Undone::Gone);
    }
    save(path, &config)?;
    let current = config["current-context"].as_str();
    Ok(Undone::Current(
        current.filter(|name| !name.is_empty()).map(str::to_owned),
    ))
}

/// Whether an entry is one that a setup under this name wrote.
fn mine(entry: &Value, kind: &str, name: &str, prefix: &str) -> bool {
    let called = entry["name"].as_str().unwrap_or_default();
    is_ours(entry, kind)
        && (called == name
            || called.starts_with(prefix) && (kind != "context" || entry[kind]["user"] == name))
}

fn list<'a>(config: &'a Value, kinds: &str) -> impl Iterator<Item = &'a Value> {
    config[kinds].as_array().into_iter().flatten()
}

fn put(config: &mut Value, entries: &Entries, activate: bool, place: &str) -> Result<()> {
    let name = &entries.name;
    let current = config["current-context"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let old = list(config, "contexts").find(|entry| entry["name"] == *name);
    let before = match old.and_then(|entry| extension(entry, "context")) {
        // Renewed: what was current before the first time counts.
        Some(extension) => extension["currentContextBefore"]
            .as_str()
            .unwrap_or("")
            .to_owned(),
        None => current,
    };
    let mut contexts = entries.contexts.clone();
    for context in &mut contexts {
        context["context"]["extensions"] = ours(Some(&before));
    }
    let all = [
        ("clusters", "cluster", entries.clusters.clone()),
        ("contexts", "context", contexts),
        ("users", "user", vec![entries.user.clone()]),
    ];
    // First a look at all, so that a file is never half changed.
    for (kinds, kind, new) in &all {
        for entry in new {
            let other = list(config, kinds).find(|old| old["name"] == entry["name"]);
            if other.is_some_and(|old| !is_ours(old, kind)) {
                bail!(
                    "{place} has a {kind} named {} that Lauf did not write. Choose another name \
                     with --name.",
                    entry["name"]
                );
            }
        }
    }
    for (kinds, _, new) in all {
        if !config[kinds].is_array() {
            config[kinds] = json!([]);
        }
        if let Some(list) = config[kinds].as_array_mut() {
            for entry in new {
                match list.iter_mut().find(|old| old["name"] == entry["name"]) {
                    Some(old) => *old = entry,
                    None => list.push(entry),
                }
            }
        }
    }
    if activate {
        config["current-context"] = name.clone().into();
    }
    Ok(())
}

fn empty() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [],
        "contexts": [],
        "current-context": "",
        "preferences": {},
        "users": [],
    })
}

fn read(path: &Path) -> Result<Option<Value>> {
    let text = match fs::metadata(path) {
        Ok(about) if about.len() > MAX_FILE => {
            bail!("{} is larger than any kubeconfig.", path.display())
        }
        Ok(_) => fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    if text.trim().is_empty() {
        return Ok(None);
    }
    let config: Value = serde_saphyr::from_str(&text)
        .with_context(|| format!("{} is not valid YAML; it was left as it is", path.display()))?;
    if !config.is_object() {
        bail!(
            "{} is not a kubeconfig; it was left as it is.",
            path.display()
        );
    }
    Ok(Some(config))
}

fn write_yaml(config: &Value) -> Result<String> {
    serde_saphyr::to_string(config).context("the kubeconfig cannot be written as YAML")
}

/// Writes aside and renames, readable for nobody else.
fn save(path: &Path, config: &Value) -> Result<()> {
    let text = write_yaml(config)?;
    // A link is written through, not replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".lauf-new");
    let aside = PathBuf::from(aside);
    let written = (|| {
        let _ = fs::remove_file(&aside);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&aside, &path)
    })();
    written.with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn told(port: u16) -> Told {
        Told {
            server: format!("https://127.0.0.1:{port}"),
            ca: Some("-----BEGIN CERTIFICATE-----\n".to_owned()),
            tls_name: None,
            token: "secret: #1".to_owned(),
            project: "demo".to_owned(),
            regions: vec!["us-central1".to_owned(), "europe-west1".to_owned()],
        }
    }

    const OTHERS: &str = "apiVersion: v1\nkind: Config\ncurrent-context: work\npreferences: {}\n\
        clusters:\n- name: work\n  cluster: {server: 'https://work:6443', insecure-skip-tls-verify: true}\n\
        contexts:\n- name: work\n  context: {cluster: work, user: me}\n\
        users:\n- name: me\n  user: {exec: {apiVersion: v1, command: login, args: ['--no']}}\n";

    #[test]
    fn others_entries_stay_and_undo_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, OTHERS).unwrap();
        let before = read(&path).unwrap().unwrap();
        set_up(&path, &Entries::new("lauf", &told(8080)), true).unwrap();
        // Again, as after a restart on another port.
        set_up(&path, &Entries::new("lauf", &told(9090)), true).unwrap();
        let config = read(&path).unwrap().unwrap();
        assert_eq!(config["current-context"], "lauf");
        let servers: Vec<&Value> = list(&config, "clusters")
            .map(|c| &c["cluster"]["server"])
            .collect();
        assert_eq!(
            servers,
            [
                "https://work:6443",
                "https://127.0.0.1:9090/kubernetes/us-central1",
                "https://127.0.0.1:9090/kubernetes/europe-west1"
            ]
        );
        assert_eq!(config["users"][1]["user"]["token"], "secret: #1");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let undone = undo(&path, "lauf").unwrap();
        assert_eq!(undone, Undone::Current(Some("work".to_owned())));
        assert_eq!(read(&path).unwrap().unwrap(), before);
        assert!(undo(&path, "lauf").is_err());
    }

    #[test]
    fn a_file_of_our_own_goes_with_us() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/config");
        set_up(&path, &Entries::new("lauf", &told(8080)), true).unwrap();
        assert_eq!(undo(&path, "lauf").unwrap(), Undone::Gone);
        assert!(!path.exists());
    }

    #[test]
    fn undo_does_not_switch_those_who_have_switched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, OTHERS).unwrap();
        set_up(&path, &Entries::new("lauf", &told(8080)), false).unwrap();
        assert_eq!(read(&path).unwrap().unwrap()["current-context"], "work");
        let undone = undo(&path, "lauf").unwrap();
        assert_eq!(undone, Undone::Current(Some("work".to_owned())));
    }

    #[test]
    fn what_is_not_ours_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, OTHERS).unwrap();
        let error = set_up(&path, &Entries::new("work", &told(8080)), true).unwrap_err();
        assert!(error.to_string().contains("--name"), "{error}");
        assert!(undo(&path, "work").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), OTHERS);
        fs::write(&path, "a: [").unwrap();
        assert!(set_up(&path, &Entries::new("lauf", &told(8080)), true).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "a: [");
    }
}
