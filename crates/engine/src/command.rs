//! What an instance executes and with which environment: the image's configuration, the user's
//! settings and the container contract put together (Kubernetes, "Define a Command and Arguments
//! for a Container"; Cloud Run, "Container runtime contract").

use std::collections::HashMap;

use lauf_image::RunConfig;
use lauf_model::Container;
use lauf_model::RevisionKey;
use lauf_model::expand::expand;

use crate::StartError;

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
pub(crate) fn declared_env(container: &Container, revision: &RevisionKey) -> Vec<(String, String)> {
    let service = &revision.service.name;
    let mut env = vec![
        ("PORT".to_owned(), container.port.number.to_string()),
        ("K_SERVICE".to_owned(), service.clone()),
        ("K_REVISION".to_owned(), revision.revision.clone()),
        ("K_CONFIGURATION".to_owned(), service.clone()),
    ];
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
    use lauf_model::{EnvVar, Port, ServiceKey};

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

    fn key() -> RevisionKey {
        ServiceKey {
            project: "demo".into(),
            region: "r".into(),
            name: "hello".into(),
        }
        .revision("hello-00001-abc")
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
