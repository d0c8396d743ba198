//! Requests that the platform is to send, as Scheduler and Tasks both say them: the method, and who it
//! comes from.

use lauf_events::Identity;
use lauf_model::Status;

use crate::rpc::wrong;

/// What an access token may be used for if nobody says.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// The method of the numbers that both APIs use; POST if nobody says.
pub(crate) fn read_method(field: &str, sent: i32) -> Result<String, Status> {
    let method = match sent {
        0 | 1 => "POST",
        2 => "GET",
        3 => "HEAD",
        4 => "PUT",
        5 => "DELETE",
        6 => "PATCH",
        7 => "OPTIONS",
        other => return Err(wrong(field, format!("{other} is no method."))),
    };
    Ok(method.to_owned())
}

/// The number of a method.
pub(crate) fn show_method(method: &str) -> i32 {
    match method {
        "POST" => 1,
        "GET" => 2,
        "HEAD" => 3,
        "PUT" => 4,
        "DELETE" => 5,
        "PATCH" => 6,
        "OPTIONS" => 7,
        _ => 0,
    }
}

/// An identity token, for the target itself if nobody says for whom.
pub(crate) fn oidc(email: String, audience: String, uri: &str) -> Identity {
    let audience = if audience.is_empty() {
        uri.to_owned()
    } else {
        audience
    };
    Identity::Oidc { email, audience }
}

/// An access token, for everything if nobody says for what.
pub(crate) fn oauth(email: String, scope: String) -> Identity {
    let scope = if scope.is_empty() {
        SCOPE.to_owned()
    } else {
        scope
    };
    Identity::OAuth { email, scope }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_those_of_both_apis() {
        use lauf_wire::google::cloud::{scheduler::v1 as scheduler, tasks::v2 as tasks};
        for number in 1..=7 {
            let method = read_method("m", number).unwrap();
            assert_eq!(show_method(&method), number);
            let theirs = scheduler::HttpMethod::try_from(number).unwrap();
            assert_eq!(theirs.as_str_name(), method);
            let theirs = tasks::HttpMethod::try_from(number).unwrap();
            assert_eq!(theirs.as_str_name(), method);
        }
        assert_eq!(read_method("m", 0).unwrap(), "POST");
        assert!(read_method("m", 8).is_err());
    }
}
