//! `image.json`: what the root directory cannot say, how it is started.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// How an image is started; the arguments of `lauf image pack` in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageSpec {
    /// The sample's name.
    pub(crate) name: String,
    /// What the build was made from; see `content_hash`.
    pub(crate) hash: String,
    /// The command, in exec form.
    pub(crate) entrypoint: Vec<String>,
    /// The environment that the image brings along.
    pub(crate) env: BTreeMap<String, String>,
    /// `UID:GID` inside the container.
    pub(crate) user: String,
    /// The port it listens on when `PORT` says nothing else.
    pub(crate) port: u16,
    /// The working directory.
    pub(crate) workdir: String,
    /// Whether it speaks HTTP/2 without TLS.
    pub(crate) http2: bool,
}

impl ImageSpec {
    /// An image that is started so, as user 1000 on port 8080.
    pub(crate) fn new(entrypoint: &[&str], workdir: &str, env: &[(&str, &str)]) -> Self {
        Self {
            name: String::new(),
            hash: String::new(),
            entrypoint: entrypoint.iter().map(ToString::to_string).collect(),
            env: env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            user: "1000:1000".to_owned(),
            port: 8080,
            workdir: workdir.to_owned(),
            http2: false,
        }
    }

    /// Reads a finished build's file; `None` when there is none that can be used.
    pub(crate) fn read(file: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    /// Writes the file.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }

    /// The arguments of `lauf image pack` after the directory.
    pub(crate) fn pack_args(&self) -> Result<Vec<String>> {
        let mut args = vec![
            "--entrypoint".to_owned(),
            serde_json::to_string(&self.entrypoint)?,
        ];
        for (name, value) in &self.env {
            args.extend(["--env".to_owned(), format!("{name}={value}")]);
        }
        for (name, value) in [
            ("--user", &self.user),
            ("--port", &self.port.to_string()),
            ("--workdir", &self.workdir),
        ] {
            args.extend([name.to_owned(), value.clone()]);
        }
        Ok(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_written_and_becomes_the_arguments_of_pack() {
        let mut spec = ImageSpec::new(&["/usr/bin/node", "server.js"], "/app", &[("A", "b c")]);
        spec.name = "node".into();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("image.json");
        assert_eq!(ImageSpec::read(&file), None);
        spec.write(&file).unwrap();
        assert_eq!(ImageSpec::read(&file), Some(spec.clone()));
        let args = spec.pack_args().unwrap();
        let expected = [
            "--entrypoint",
            r#"["/usr/bin/node","server.js"]"#,
            "--env",
            "A=b c",
            "--user",
            "1000:1000",
            "--port",
            "8080",
            "--workdir",
            "/app",
        ];
        assert_eq!(args, expected);
    }
}
