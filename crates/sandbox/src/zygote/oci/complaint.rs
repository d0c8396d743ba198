//! What a foreign runtime says when it cannot start a container.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Deserializer;

use crate::protocol::FailReason;
use crate::protocol::FailReason::{BadCwd, CommandNotFound, Host, Mount, NotExecutable};
use crate::zygote::Failure;

/// One entry of the log that every runtime writes with `--log-format json`. gVisor puts nothing between two of them.
#[derive(Deserialize)]
struct Entry {
    level: String,
    msg: String,
}

/// More than any runtime has to say.
const MOST_TEXT: usize = 4 << 10;

/// Reads the runtime's complaints, and what kind they are of.
pub(super) fn failure_from(log: &Path) -> Failure {
    let text = told(&fs::read_to_string(log).unwrap_or_default());
    Failure::new(classify(&text), text)
}

/// The errors, the first being the cause: runtimes of several processes let each say what it sees of it.
fn told(log: &str) -> String {
    let mut errors: Vec<String> = Vec::new();
    for entry in Deserializer::from_str(log).into_iter::<Entry>() {
        match entry {
            Ok(Entry { level, msg }) if matches!(level.as_str(), "error" | "fatal") => {
                if !errors.contains(&msg) {
                    errors.push(msg);
                }
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let mut text = errors.join("; ");
    if text.is_empty() {
        "the runtime failed without a word".clone_into(&mut text);
    }
    text.truncate(text.floor_char_boundary(MOST_TEXT));
    text
}

fn classify(text: &str) -> FailReason {
    // Their libraries do not agree on capitals.
    let text = text.to_lowercase();
    let has = |part: &str| text.contains(part);
    let executes = has("exec") || has("failed to load");
    if (has("executable file") && has("not found"))
        || (executes && has("no such file or directory") && !has("mount"))
    {
        CommandNotFound
    } else if has("exec format error") || (executes && has("permission denied")) {
        NotExecutable
    } else if ["cwd", "chdir", "working directory"].into_iter().any(has)
        || (has("mkdir") && !has("mount"))
    {
        BadCwd
    } else if has("mount") || has("the target `/") || has("openat2") {
        Mount
    } else {
        Host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_the_cause() {
        let log = r#"{"msg":"mkdir /data.txt: not a directory","level":"error","time":"x"}{"msg":"hm","level":"warning"}
{"msg":"waiting for sandbox to start: EOF","level":"error"}{"msg":"waiting for sandbox to start: EOF","level":"error"}torn"#;
        let text = "mkdir /data.txt: not a directory; waiting for sandbox to start: EOF";
        assert_eq!(told(log), text);
        assert_eq!(told(""), "the runtime failed without a word");
        let long = "\u{fc}".repeat(9000);
        let log = format!(r#"{{"msg":"{long}","level":"error"}}"#);
        assert!(told(&log).len() <= MOST_TEXT);
    }

    #[test]
    fn complaints_are_sorted() {
        for (text, reason) in [
            // runc
            (
                "exec: \"x\": executable file not found in $PATH: unknown",
                CommandNotFound,
            ),
            (
                "exec: \"/x\": stat /x: no such file or directory",
                CommandNotFound,
            ),
            (
                "exec: \"/data.txt\": permission denied: unknown",
                NotExecutable,
            ),
            (
                "chdir to cwd (\"/f\") set in config.json failed: not a directory",
                BadCwd,
            ),
            ("error mounting \"proc\" to rootfs at \"/proc\"", Mount),
            // crun
            (
                "executable file `x` not found in $PATH: No such file or directory",
                CommandNotFound,
            ),
            ("chdir `/data.txt`: Not a directory", BadCwd),
            ("the target `/proc` is invalid: Not a directory", Mount),
            ("openat2 `/dev/null`: No such file or directory", Mount),
            // runsc
            (
                "starting sandbox: error finding executable \"x\" in PATH [/bin]: no such file or directory",
                CommandNotFound,
            ),
            (
                "starting sandbox: creating process: failed to load /x: no such file or directory",
                CommandNotFound,
            ),
            (
                "Error setting up root FS: creating working directory \"/f\": mkdir /proc/fs/root/f: not a directory; Error reading mounts file",
                BadCwd,
            ),
            ("something else", Host),
        ] {
            assert_eq!(classify(text), reason, "{text}");
        }
    }
}
