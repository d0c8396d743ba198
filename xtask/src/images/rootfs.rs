//! A root directory under construction: programs with the libraries they need, folders, the few files that every program looks for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tools;

/// The root directory, a scratch folder beside it, and the sample's own folder.
pub(crate) struct Rootfs {
    root: PathBuf,
    work: PathBuf,
    source: PathBuf,
}

impl Rootfs {
    /// Begins anew with empty folders.
    pub(crate) fn create(root: PathBuf, work: PathBuf, source: PathBuf) -> Result<Self> {
        for folder in [&root, &work] {
            if folder.exists() {
                fs::remove_dir_all(folder)
                    .with_context(|| format!("removing {}", folder.display()))?;
            }
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        Ok(Self { root, work, source })
    }

    /// The scratch folder; gone when the build is finished.
    pub(crate) fn work(&self) -> &Path {
        &self.work
    }

    /// The sample's folder in the repository.
    pub(crate) fn source(&self) -> &Path {
        &self.source
    }

    /// Where a path of the image is on this machine.
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The layout and the files that a distribution would give: users, host lookup, certificates, a place for temporary files.
    pub(crate) fn base(&self) -> Result<()> {
        for folder in [
            "usr/bin",
            "usr/lib",
            "usr/lib64",
            "etc/ssl/certs",
            "app",
            "proc",
            "sys",
            "dev",
            "tmp",
            "run",
        ] {
            fs::create_dir_all(self.at(folder))?;
        }
        for name in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), self.at(name))?;
        }
        fs::set_permissions(self.at("tmp"), fs::Permissions::from_mode(0o1777))?;
        let files = [
            (
                "etc/passwd",
                "root:x:0:0:root:/root:/sbin/nologin\napp:x:1000:1000:app:/app:/sbin/nologin\n",
            ),
            ("etc/group", "root:x:0:\napp:x:1000:\n"),
            (
                "etc/nsswitch.conf",
                "passwd: files\ngroup: files\nhosts: files dns\n",
            ),
        ];
        for (path, text) in files {
            fs::write(self.at(path), text)?;
        }
        // Not there on a bare machine; a sample that calls out needs it, and none must.
        let certificates = Path::new("/etc/ssl/certs/ca-certificates.crt");
        if certificates.exists() {
            fs::copy(certificates, self.at(certificates))?;
        }
        Ok(())
    }

    /// Copies a program to the same place in the image, with the libraries it loads.
    pub(crate) fn add_program(&self, program: &Path) -> Result<()> {
        self.copy_file(program, &self.at(program))?;
        self.add_libraries(&[program.to_path_buf()])
    }

    /// Copies the shared libraries that these programs or libraries load.
    pub(crate) fn add_libraries(&self, files: &[PathBuf]) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let listing = tools::quiet(Command::new("ldd").args(files))?;
        for library in libraries(&listing) {
            let to = self.at(&library);
            // A library that the file brought along itself is in the image already.
            if !to.exists() && !library.starts_with(&self.root) {
                self.copy_file(&library, &to)?;
            }
        }
        Ok(())
    }

    /// Copies a file, following links, and makes the folders it needs.
    pub(crate) fn copy_file(&self, from: &Path, to: &Path) -> Result<()> {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(from, to)
            .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
        Ok(())
    }

    /// Copies files and folders of the sample into `/app`.
    pub(crate) fn add_app(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let from = self.source.join(name);
            let to = self.at("app").join(name);
            if from.is_dir() {
                self.copy_tree(&from, &to, &|_| true)?
            } else {
                self.copy_file(&from, &to)?
            }
        }
        Ok(())
    }

    /// Copies a folder; `wanted` decides about each path, relative to it. Links are followed, dangling ones left out.
    pub(crate) fn copy_tree(
        &self,
        from: &Path,
        to: &Path,
        wanted: &dyn Fn(&Path) -> bool,
    ) -> Result<()> {
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(from.join(&folder))
                .with_context(|| format!("reading {}", from.display()))?
            {
                let path = folder.join(entry?.file_name());
                if !wanted(&path) {
                    continue;
                }
                match fs::metadata(from.join(&path)) {
                    Ok(meta) if meta.is_dir() => folders.push(path),
                    Ok(_) => self.copy_file(&from.join(&path), &to.join(&path))?,
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Makes everything readable for the image's user and removes the scratch folder.
    pub(crate) fn finish(&self) -> Result<()> {
        tools::quiet(
            Command::new("chmod")
                .arg("-R")
                .arg("a+rX,go-w")
                .arg(&self.root),
        )?;
        let tmp = self.at("tmp");
        if tmp.exists() {
            fs::set_permissions(tmp, fs::Permissions::from_mode(0o1777))?;
        }
        fs::remove_dir_all(&self.work)?;
        Ok(())
    }
}

/// All files below a folder whose name says that they are shared libraries.
pub(crate) fn shared_objects(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = tools::quiet(
        Command::new("find")
            .arg(folder)
            .args(["-type", "f", "-name", "*.so*"]),
    )?;
    Ok(listing.lines().map(PathBuf::from).collect())
}

/// The absolute paths of libraries in what `ldd` prints.
fn libraries(listing: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = listing
        .lines()
        .filter(|line| line.starts_with(char::is_whitespace))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Where a program on `PATH` really is.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let found = tools::which(name)
        .with_context(|| format!("{name} is not installed; `cargo xtask setup` installs it"))?;
    let real = found.canonicalize()?;
    ensure!(
        real.starts_with("/"),
        "{name} is at {}, which is not absolute",
        real.display()
    );
    Ok(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_of_a_program_are_found_in_the_listing() {
        let listing = "/usr/bin/x:\n\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x2)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x3)\n\tlibgone.so => not found\n";
        assert_eq!(
            libraries(listing),
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
    }

    #[test]
    fn a_tree_is_copied_without_what_is_not_wanted_and_without_dangling_links() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir_all(source.join("a/test")).unwrap();
        fs::write(source.join("a/x.py"), "x").unwrap();
        fs::write(source.join("a/test/y.py"), "y").unwrap();
        symlink("nowhere", source.join("dangling")).unwrap();
        let root = Rootfs::create(
            folder.path().join("root"),
            folder.path().join("work"),
            source.clone(),
        )
        .unwrap();
        root.copy_tree(&source, &root.at("/opt"), &|path| !path.ends_with("test"))
            .unwrap();
        assert!(root.at("/opt/a/x.py").exists());
        assert!(!root.at("/opt/a/test").exists() && !root.at("/opt/dangling").exists());
    }
}
