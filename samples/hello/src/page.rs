//! What the service says: a pure function from a request to an answer.

use std::time::Duration;

use crate::http::Request;

/// The longest wait that `/slow` accepts.
const MAX_SLOW: Duration = Duration::from_secs(60);

/// What this instance was told about itself at its start.
pub(crate) struct Site {
    service: String,
    revision: String,
    target: String,
    message: String,
}

/// An answer, and how long to hold it back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) delay: Duration,
}

impl Site {
    /// Reads the names that Cloud Run gives each container, and our own two settings.
    pub(crate) fn from_env() -> Self {
        let var =
            |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        Self {
            service: var("K_SERVICE", "hello"),
            revision: var("K_REVISION", "local"),
            target: var("TARGET", "World"),
            message: var("MESSAGE", ""),
        }
    }

    /// The greeting in one line, as it also stands in the log.
    pub(crate) fn greeting(&self) -> String {
        let message = if self.message.is_empty() {
            String::new()
        } else {
            format!(" {}", self.message)
        };
        format!(
            "Hello {}!{message} (service {}, revision {})",
            self.target, self.service, self.revision
        )
    }

    /// Answers `request`; `served` and `uptime` are this instance's own, for `/info`.
    pub(crate) fn answer(&self, request: &Request, served: u64, uptime: Duration) -> Answer {
        let text = |status, body: &str| Answer {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.as_bytes().to_vec(),
            delay: Duration::ZERO,
        };
        match (request.method.as_str(), request.path.as_str()) {
            ("GET" | "HEAD", "/") if request.wants_html => Answer {
                status: 200,
                content_type: "text/html; charset=utf-8",
                body: self.html().into_bytes(),
                delay: Duration::ZERO,
            },
            ("GET" | "HEAD", "/") => text(200, &(self.greeting() + "\n")),
            ("GET" | "HEAD", "/info") => Answer {
                status: 200,
                content_type: "application/json",
                body: self.info(served, uptime).into_bytes(),
                delay: Duration::ZERO,
            },
            ("GET" | "HEAD", "/slow") => match slow(&request.query) {
                Some(delay) => Answer {
                    delay,
                    ..text(200, &(self.greeting() + "\n"))
                },
                None => text(
                    400,
                    "ms must be a number from 0 to 60000, as in /slow?ms=250\n",
                ),
            },
            ("POST" | "PUT", "/echo") => Answer {
                status: 200,
                content_type: "application/octet-stream",
                body: request.body.clone(),
                delay: Duration::ZERO,
            },
            (_, "/" | "/info" | "/slow") => text(405, "only GET is answered here\n"),
            (_, "/echo") => text(405, "POST a body here to get it back\n"),
            _ => text(404, "there is /, /info, /slow?ms=N and /echo\n"),
        }
    }

    fn info(&self, served: u64, uptime: Duration) -> String {
        format!(
            "{{\"service\":\"{}\",\"revision\":\"{}\",\"target\":\"{}\",\"message\":\"{}\",\"served\":{served},\"uptime_ms\":{}}}\n",
            json_escape(&self.service),
            json_escape(&self.revision),
            json_escape(&self.target),
            json_escape(&self.message),
            uptime.as_millis()
        )
    }

    fn html(&self) -> String {
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
             <title>Hello {target}</title>\
             <style>body{{font:18px/1.5 system-ui;margin:15vh auto;max-width:34em;padding:0 1em;color:#123}}\
             h1{{font-size:3em;margin:0}}dt{{color:#678;float:left;width:6em}}</style>\
             <h1>Hello {target}!</h1><p>{message}<dl><dt>service<dd>{service}<dt>revision<dd>{revision}</dl></html>\n",
            target = html_escape(&self.target),
            message = html_escape(&self.message),
            service = html_escape(&self.service),
            revision = html_escape(&self.revision),
        )
    }
}

/// The wait asked for by `ms=N` in a query.
fn slow(query: &str) -> Option<Duration> {
    let ms = query.split('&').find_map(|pair| pair.strip_prefix("ms="))?;
    ms.parse()
        .ok()
        .map(Duration::from_millis)
        .filter(|delay| *delay <= MAX_SLOW)
}

/// Escapes text for a JSON string.
pub(crate) fn json_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

fn html_escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, query: &str, wants_html: bool) -> Answer {
        let site = Site {
            service: "shop".into(),
            revision: "shop-00002".into(),
            target: "<World>".into(),
            message: "say \"hi\"".into(),
        };
        let request = Request {
            method: "GET".into(),
            path: path.into(),
            query: query.into(),
            wants_html,
            keep_alive: true,
            body: Vec::new(),
        };
        site.answer(&request, 7, Duration::from_millis(1500))
    }

    #[test]
    fn the_page_names_service_and_revision_and_escapes_what_it_was_given() {
        let page = String::from_utf8(get("/", "", true).body).unwrap();
        assert!(
            page.contains("shop-00002")
                && page.contains("&lt;World&gt;")
                && !page.contains("<World>")
        );
        let text = String::from_utf8(get("/", "", false).body).unwrap();
        assert_eq!(
            text,
            "Hello <World>! say \"hi\" (service shop, revision shop-00002)\n"
        );
    }

    #[test]
    fn info_is_json_and_slow_is_bounded() {
        let info = String::from_utf8(get("/info", "", false).body).unwrap();
        assert!(
            info.contains(r#""message":"say \"hi\"","served":7,"uptime_ms":1500"#),
            "{info}"
        );
        assert_eq!(
            get("/slow", "ms=250", false).delay,
            Duration::from_millis(250)
        );
        assert_eq!(get("/slow", "ms=60001", false).status, 400);
        assert_eq!(get("/slow", "", false).status, 400);
        assert_eq!(get("/nowhere", "", false).status, 404);
    }
}
