//! What can be typed about a container, whatever runs it.

use anyhow::Result;
use clap::Args;

use super::deploy::Change;
use super::pairs;

// What a container executes. (No doc comment: clap would print it as the command's own.)
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ProgramArgs {
    /// An environment variable; the others stay. May be given more than once
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Container")]
    env: Vec<String>,
    /// All environment variables: those not named are removed
    #[arg(long, value_name = "NAME=VALUE,...", help_heading = "Container")]
    set_env_vars: Vec<String>,
    /// Environment variables to set; the others stay
    #[arg(long, value_name = "NAME=VALUE,...", help_heading = "Container")]
    update_env_vars: Vec<String>,
    /// Environment variables to remove
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        help_heading = "Container"
    )]
    remove_env_vars: Vec<String>,
    /// Remove all environment variables
    #[arg(long, help_heading = "Container", conflicts_with = "set_env_vars")]
    clear_env_vars: bool,
    /// The command instead of the image's: words or a JSON array; empty for the image's own
    #[arg(
        long,
        value_name = "WORDS",
        help_heading = "Container",
        allow_hyphen_values = true
    )]
    command: Option<String>,
    /// The arguments instead of the image's: words or a JSON array; empty for the image's own
    #[arg(
        long,
        value_name = "WORDS",
        help_heading = "Container",
        allow_hyphen_values = true
    )]
    args: Option<String>,
    /// The working directory instead of the image's
    #[arg(long, value_name = "PATH", help_heading = "Container")]
    working_dir: Option<String>,
}

impl ProgramArgs {
    /// Only this, as a change.
    ///
    /// # Errors
    /// What is not a pair or not words, with the option's name.
    pub(crate) fn change(&self) -> Result<Change> {
        let mut set_env = pairs::list("--set-env-vars", &self.set_env_vars)?;
        set_env.extend(pairs::list("--update-env-vars", &self.update_env_vars)?);
        set_env.extend(pairs::single("--env", &self.env)?);
        let words = |option: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| pairs::words(option, text))
                .transpose()
        };
        Ok(Change {
            clear_env: self.clear_env_vars || !self.set_env_vars.is_empty(),
            set_env,
            remove_env: self.remove_env_vars.clone(),
            command: words("--command", &self.command)?,
            args: words("--args", &self.args)?,
            working_dir: self.working_dir.clone(),
            ..Change::default()
        })
    }
}

// What runs without requests: a job's task, a worker pool's instance. (No doc comment, as above.)
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    program: ProgramArgs,
    /// CPUs of an instance, such as 1, 2 or 500m
    #[arg(long, value_name = "CPU", help_heading = "Container")]
    cpu: Option<String>,
    /// Memory of an instance, such as 512Mi or 2Gi
    #[arg(long, value_name = "SIZE", help_heading = "Container")]
    memory: Option<String>,

    /// The account the instances run as
    #[arg(long, value_name = "EMAIL", help_heading = "Description")]
    service_account: Option<String>,
    /// A label of it and of what is made from it. May be given more than once
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Description")]
    label: Vec<String>,
}

impl WorkerArgs {
    /// This and the image, as a change.
    ///
    /// # Errors
    /// As [`ProgramArgs::change`].
    pub(crate) fn change(&self, image: Option<&String>) -> Result<Change> {
        Ok(Change {
            image: image.cloned(),
            cpu: self.cpu.clone(),
            memory: self.memory.clone(),
            service_account: self.service_account.clone(),
            set_labels: pairs::single("--label", &self.label)?,
            ..self.program.change()?
        })
    }
}
