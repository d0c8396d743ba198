//! `hello`: a web server that is ready a millisecond after it is started.
//!
//! One thread waits on one epoll set for the listener, the connections and the pipe that a SIGTERM writes to.
//! [`http`] turns bytes into requests, [`page`] turns requests into answers, [`conn`] carries both over a socket,
//! [`serve`] is the loop. Nothing here knows Lauf; it is an ordinary container for any Cloud Run.

mod conn;
mod http;
mod page;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    let site = page::Site::from_env();
    let port = match std::env::var("PORT") {
        Err(_) => 8080,
        Ok(text) => match text.parse::<u16>() {
            Ok(port) => port,
            Err(_) => {
                log(
                    "ERROR",
                    &format!("PORT is {text:?}; it must be a number from 1 to 65535"),
                );
                return ExitCode::from(2);
            }
        },
    };
    match serve::run(port, site) {
        Ok(served) => {
            log("INFO", &format!("stopped after {served} requests"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            log("ERROR", &format!("port {port}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes one structured line, as Cloud Logging reads them: a JSON object with a severity.
pub(crate) fn log(severity: &str, message: &str) {
    use std::io::Write;
    let line = format!(
        "{{\"severity\":\"{severity}\",\"message\":\"{}\"}}\n",
        page::json_escape(message)
    );
    // A closed stdout is no reason to stop serving.
    let _ = std::io::stdout().write_all(line.as_bytes());
}
