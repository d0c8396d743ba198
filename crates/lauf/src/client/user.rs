//! Whose settings they are. Under sudo the files belong to the person behind it: their half of the
//! work is done by this program again, as that person, so that root never writes into their folder.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The person behind sudo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::client) struct Person {
    name: String,
    uid: u32,
    gid: u32,
    home: PathBuf,
}

/// Who ran sudo; `None` when nobody did, or root did.
pub(in crate::client) fn behind_sudo() -> Result<Option<Person>> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let (Some(uid), Some(gid)) = (number("SUDO_UID"), number("SUDO_GID")) else {
        return Ok(None);
    };
    // SUDO_UID may be left over in the shell of somebody who is not root.
    let root = fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| effective_uid(&status) == Some(0));
    if uid == 0 || !root {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
    match person(&passwd, uid, gid) {
        Some(person) => Ok(Some(person)),
        None => bail!(
            "User {uid}, who ran sudo, is not in /etc/passwd. Run this without sudo and give the \
             token: --token \"$(sudo lauf token)\""
        ),
    }
}

fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn person(passwd: &str, uid: u32, gid: u32) -> Option<Person> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, id, home) = (fields.first()?, fields.get(2)?, fields.get(5)?);
        (id.parse() == Ok(uid) && home.starts_with('/')).then(|| Person {
            name: (*name).to_owned(),
            uid,
            gid,
            home: PathBuf::from(home),
        })
    })
}

/// Runs this program as that person with `args`, giving it `input`.
pub(in crate::client) fn run_as(person: &Person, args: &[&str], input: &str) -> Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command
        .args(args)
        .uid(person.uid)
        .gid(person.gid)
        .current_dir("/")
        .env("HOME", &person.home)
        .env("USER", &person.name)
        .env("LOGNAME", &person.name)
        .stdin(Stdio::piped());
    for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND"] {
        command.env_remove(name);
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("starting as {}", person.name))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("It did not work as {} ({status}).", person.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_found_by_number() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\nann:x:1000:1000:Ann:/home/ann:/bin/sh\nb:x:1001:1:::\n";
        let ann = person(passwd, 1000, 1000).unwrap();
        assert_eq!(
            (ann.name.as_str(), ann.home.to_str()),
            ("ann", Some("/home/ann"))
        );
        assert_eq!(person(passwd, 1001, 1), None);
        assert_eq!(effective_uid("Name:\tx\nUid:\t1\t0\t1\t1\n"), Some(0));
    }
}
