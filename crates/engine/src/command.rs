//! What an instance executes and with which environment: the image's configuration, the user's
//! settings and the container contract put together (Kubernetes, "Define a Command and Arguments
//! for a Container"; Cloud Run, "Container runtime contract").

use std::collections::HashMap;

use lauf_image::RunConfig;
use lauf_model::Container;
use lauf_model::expand::expand;

use crate::{Owner, StartError};

/// The command line: `command` replaces the image's ENTRYPOINT and CMD, `args` alone replaces CMD.
pub(crate) fn command_line(
    container: &Container,
    image: &RunConfig,
    env: &[(String, String)],
) -> Result<Vec<String>, StartError> {
    let lookup: HashMap<&str, &str> = env.iter().map(|(n, v)| (&**n, &**v)).collect();
    let expanded = |words: &[String]| -> Vec<String> {
        words
            .iter()
            .map(|w| expand(w, |name| lookup.get(name).copied()))
            .collect()
    };
    let mut line = Vec::new();
    if container.command.is_empty() {
        line.extend(image.entrypoint.iter().cloned());
        if container.args.is_empty() {
            line.extend(image.cmd.iter().cloned());
        }
    } else {
        line.extend(expanded(&container.command));
    }
    line.extend(expanded(&container.args));
    if line.first().is_none_or(String::is_empty) {
        return Err(StartError::Command(format!(
            "The image '{}' names no ENTRYPOINT or CMD and the container no command. Set the \
             container's command, or build the image with an ENTRYPOINT.",
            container.image
        )));
    }
    Ok(line)
}

/// The variables that `$(VAR)` may refer to: the platform's and the user's, in that order.
pub(crate) fn declared_env(container: &Container, owner: &Owner) -> Vec<(String, String)> {
    let mut env = owner.env(container);
    for var in &container.env {
        let value = expand(&var.value, |name| {
            env.iter()
                .rev()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        });
        env.push((var.name.clone(), value));
    }
    env
}

/// The whole environment: the image's, overridden by what was declared.
pub(crate) fn whole_env(
    image: &RunConfig,
    declared: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = image
        .env
        .iter()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| !declared.iter().any(|(declared, _)| declared == name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    env.extend(declared);
    env
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TaskAttempt;
    use lauf_model::{EnvVar, ExecutionKey, Port, ServiceKey};

    fn container(command: &[&str], args: &[&str]) -> Container {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        Container {
            name: String::new(),
            image: "img".into(),
            command: owned(command),
            args: owned(args),
            env: vec![
                EnvVar {
                    name: "A".into(),
                    value: "1".into(),
                },
                EnvVar {
                    name: "B".into(),
                    value: "$(A)$(PORT)".into(),
                },
            ],
            working_dir: String::new(),
            port: Port::default(),
            cpu_millis: 1000,
            memory_bytes: 1 << 29,
            startup_probe: None,
            liveness_probe: None,
            readiness_probe: None,
        }
    }

    fn image() -> RunConfig {
        RunConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["cmd".into()],
            env: vec!["A=image".into(), "PATH=/bin".into()],
            ..RunConfig::default()
        }
    }

    fn key() -> Owner {
        let service = ServiceKey {
            project: "demo".into(),
            region: "r".into(),
            name: "hello".into(),
        };
        Owner::Revision(service.revision("hello-00001-abc"))
    }

    #[test]
    fn a_task_knows_which_part_it_is_and_has_no_port() {
        let task = Owner::Task(TaskAttempt {
            execution: ExecutionKey {
                project: "demo".into(),
                region: "r".into(),
                name: "etl-abcde".into(),
            },
            job: "etl".into(),
            index: 3,
            count: 10,
            attempt: 2,
        });
        let env = declared_env(&container(&[], &[]), &task);
        let value = |name: &str| {
            env.iter()
                .find(|(n, _)| n == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(value("CLOUD_RUN_JOB"), Some("etl"));
        assert_eq!(value("CLOUD_RUN_EXECUTION"), Some("etl-abcde"));
        assert_eq!(value("CLOUD_RUN_TASK_INDEX"), Some("3"));
        assert_eq!(value("CLOUD_RUN_TASK_ATTEMPT"), Some("2"));
        assert_eq!(value("CLOUD_RUN_TASK_COUNT"), Some("10"));
        assert_eq!(value("PORT"), None);
        assert_eq!(value("B"), Some("1$(PORT)"));
    }

    #[test]
    fn command_and_args_replace_what_kubernetes_says_they_do() {
        for (command, args, expected) in [
            (&[][..], &[][..], vec!["/entry", "cmd"]),
            (&[], &["x"], vec!["/entry", "x"]),
            (&["/c"], &[], vec!["/c"]),
            (&["/c"], &["$(A)", "$$(A)"], vec!["/c", "1", "$(A)"]),
        ] {
            let container = container(command, args);
            let env = declared_env(&container, &key());
            assert_eq!(command_line(&container, &image(), &env).unwrap(), expected);
        }
        let nothing = RunConfig::default();
        assert!(command_line(&container(&[], &[]), &nothing, &[]).is_err());
    }

    #[test]
    fn later_variables_may_refer_to_earlier_ones() {
        let container = container(&[], &[]);
        let env = whole_env(&image(), declared_env(&container, &key()));
        let value = |name: &str| {
            let all: Vec<_> = env
                .iter()
                .filter(|(n, _)| n == name)
                .map(|(_, v)| v)
                .collect();
            assert_eq!(all.len(), 1, "{name} is there once");
            all[0].clone()
        };
        assert_eq!(value("A"), "1");
        assert_eq!(value("B"), "18080");
        assert_eq!(value("PATH"), "/bin");
        assert_eq!(value("K_REVISION"), "hello-00001-abc");
    }
}
