//! Finding the command in the image and becoming it.

use std::ffi::CString;
use std::io::{self, Read};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use super::Failure;
use crate::protocol::FailReason::{
    ArgumentsTooLong, CommandNotFound, Host, InvalidSpec, NotExecutable,
};
use crate::spec::ContainerSpec;
use crate::sys;

/// The path that is searched when the environment names none.
pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command ready to be executed.
pub(super) struct Command {
    name: String,
    files: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

fn text(value: impl Into<Vec<u8>>) -> Result<CString, Failure> {
    CString::new(value)
        .map_err(|_| Failure::new(InvalidSpec, "an argument contains a NUL character"))
}

impl Command {
    /// Prepares everything that allocates. The image must be the root by now.
    pub(super) fn new(spec: &ContainerSpec) -> Result<Self, Failure> {
        let name = spec.args.first().cloned().unwrap_or_default();
        let of = |wanted: &str| {
            spec.env
                .iter()
                .rev()
                .find(|(key, _)| key == wanted)
                .map(|(_, value)| value.as_str())
        };
        let path = of("PATH").unwrap_or(DEFAULT_PATH);
        let files = if name.contains('/') {
            vec![text(name.clone())?]
        } else {
            path.split(':')
                .map(|dir| text(format!("{}/{name}", if dir.is_empty() { "." } else { dir })))
                .collect::<Result<_, _>>()?
        };
        let mut env: Vec<CString> = Vec::with_capacity(spec.env.len() + 2);
        if of("PATH").is_none() {
            env.push(text(format!("PATH={DEFAULT_PATH}"))?);
        }
        if of("HOME").is_none() {
            env.push(text(format!("HOME={}", home_of(spec.uid)))?);
        }
        for (key, value) in &spec.env {
            env.push(text(format!("{key}={value}"))?);
        }
        let args = spec
            .args
            .iter()
            .map(|arg| text(arg.as_str()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name,
            files,
            args,
            env,
        })
    }

    /// Executes the first file that can be. Returns only what went wrong.
    pub(super) fn execute(&self) -> Failure {
        let mut refused = None;
        for file in &self.files {
            let error = sys::execve(file, &self.args, &self.env);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {
                    let there = file
                        .to_str()
                        .is_ok_and(|f| std::fs::symlink_metadata(f).is_ok());
                    if there && refused.is_none() {
                        let text = format!(
                            "{file:?} is in the image, but the interpreter or loader it names is not"
                        );
                        refused = Some(Failure::new(CommandNotFound, text));
                    }
                }
                // As a shell does: remember, and see whether a later directory has one that works.
                Some(libc::EACCES) => refused = Some(self.not_executable(file, &error)),
                Some(libc::ENOEXEC) => {
                    let text = format!(
                        "{file:?}: exec format error: not a program for this machine (linux/amd64), or a script without a #! line"
                    );
                    return Failure::new(NotExecutable, text);
                }
                Some(libc::E2BIG) => {
                    return Failure::new(
                        ArgumentsTooLong,
                        format!("{:?}: arguments and environment are too long", self.name),
                    );
                }
                Some(
                    libc::ETXTBSY
                    | libc::ELOOP
                    | libc::EISDIR
                    | libc::ELIBBAD
                    | libc::EINVAL
                    | libc::EPERM,
                ) => return self.not_executable(file, &error),
                _ => return Failure::new(Host, format!("execute {file:?}: {error}")),
            }
        }
        refused.unwrap_or_else(|| {
            let place = if self.name.contains('/') {
                "no such file in the image"
            } else {
                "executable file not found in $PATH"
            };
            Failure::new(CommandNotFound, format!("command {:?}: {place}", self.name))
        })
    }

    fn not_executable(&self, file: &CString, error: &io::Error) -> Failure {
        Failure::new(
            NotExecutable,
            format!(
                "command {:?}: {file:?} cannot be executed: {error}",
                self.name
            ),
        )
    }
}

/// The home directory of a user, by the image's `/etc/passwd`.
fn home_of(uid: u32) -> String {
    let fallback = || "/".to_owned();
    // Not a FIFO that would make us wait, and not endless.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // Nor a link into /proc, where we are still more than the instance is.
    let resolve = ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let Ok(file) =
        openat2(CWD, "/etc/passwd", flags, Mode::empty(), resolve).map(std::fs::File::from)
    else {
        return fallback();
    };
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return fallback();
    }
    let mut text = Vec::new();
    if file.take(1 << 20).read_to_end(&mut text).is_err() {
        return fallback();
    }
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.nth(2)?.parse() == Ok(uid)).then(|| fields.nth(2).map(str::to_owned))?
    });
    line.filter(|home| home.starts_with('/'))
        .unwrap_or_else(fallback)
}
