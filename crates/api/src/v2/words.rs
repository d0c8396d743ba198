//! The names of fields in errors: validation speaks v1's (Knative's) words, and here they become
//! those of v2's messages.

use lauf_model::Status;

/// The fields that v1 has as annotations.
const ANNOTATIONS: [(&str, &str); 9] = [
    (
        "spec.template.metadata.annotations[autoscaling.knative.dev/minScale]",
        "template.scaling.min_instance_count",
    ),
    (
        "spec.template.metadata.annotations[autoscaling.knative.dev/maxScale]",
        "template.scaling.max_instance_count",
    ),
    (
        "spec.template.metadata.annotations[run.googleapis.com/execution-environment]",
        "template.execution_environment",
    ),
    (
        "metadata.annotations[run.googleapis.com/minScale]",
        "scaling.min_instance_count",
    ),
    (
        "metadata.annotations[run.googleapis.com/maxScale]",
        "scaling.max_instance_count",
    ),
    (
        "metadata.annotations[run.googleapis.com/manualInstanceCount]",
        "scaling.manual_instance_count",
    ),
    (
        "metadata.annotations[run.googleapis.com/ingress]",
        "ingress",
    ),
    (
        "metadata.annotations[run.googleapis.com/launch-stage]",
        "launch_stage",
    ),
    (
        "metadata.annotations[run.googleapis.com/description]",
        "description",
    ),
];

/// An error in the words of v2.
pub(crate) fn in_v2(mut status: Status) -> Status {
    if status.violations.is_empty() {
        return status;
    }
    for violation in &mut status.violations {
        let known = ANNOTATIONS.iter().find(|(v1, _)| violation.field == *v1);
        violation.field = match known {
            Some((_, v2)) => (*v2).to_owned(),
            None => snake(&violation.v2_field()),
        };
    }
    Status {
        code: status.code,
        ..Status::invalid(status.violations)
    }
}

/// A path with its fields' names as protobuf has them; keys of maps, in brackets, stay as they are.
fn snake(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 8);
    let mut in_key = false;
    for c in path.chars() {
        in_key = match c {
            '[' => true,
            ']' => false,
            _ => in_key,
        };
        if c.is_ascii_uppercase() && !in_key {
            out.push('_');
            out.push(c.to_ascii_lowercase());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use lauf_model::Violation;

    use super::*;

    #[test]
    fn fields_have_the_names_of_messages() {
        for (v1, v2) in [
            (
                "spec.template.spec.containers[0].livenessProbe.httpGet.path",
                "template.containers[0].liveness_probe.http_get.path",
            ),
            (
                "spec.template.metadata.annotations[autoscaling.knative.dev/maxScale]",
                "template.scaling.max_instance_count",
            ),
            (
                "spec.template.spec.containerConcurrency",
                "template.max_instance_request_concurrency",
            ),
            ("metadata.labels[someKey]", "labels[someKey]"),
        ] {
            let status = in_v2(Status::invalid(vec![Violation::new(v1, "is wrong.")]));
            assert_eq!(status.violations[0].field, v2);
            assert_eq!(status.message, format!("{v2}: is wrong."));
        }
    }
}
