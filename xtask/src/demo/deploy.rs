//! Deploys with the tool that a user would take: the real gcloud where there is one, Lauf's own command line otherwise.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::platform::{Platform, output};
use crate::samples::Sample;
use crate::{tools, ui};

/// The tool.
pub(crate) enum Deployer {
    /// Google's, unmodified, pointed at Lauf by environment variables only.
    Gcloud {
        env: BTreeMap<String, String>,
        config: tempfile::TempDir,
    },
    /// Ours.
    Lauf,
}

impl Deployer {
    /// Takes gcloud where it is installed and can be pointed at Lauf.
    pub(crate) async fn choose(platform: &Platform, no_gcloud: bool) -> Self {
        if no_gcloud || tools::which("gcloud").is_none() {
            return Self::Lauf;
        }
        match Self::gcloud(platform).await {
            Ok(gcloud) => gcloud,
            Err(error) => {
                ui::warn(&format!("there is a gcloud, but it is not used: {error:#}"));
                Self::Lauf
            }
        }
    }

    async fn gcloud(platform: &Platform) -> Result<Self> {
        let env = variables(&platform.lauf(&["gcloud", "env"]).await?);
        ensure!(!env.is_empty(), "`lauf gcloud env` prints no variables");
        // A configuration of its own, so that the person's own is neither read nor changed.
        Ok(Self::Gcloud {
            env,
            config: tempfile::tempdir()?,
        })
    }

    /// What to call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Gcloud { .. } => "gcloud",
            Self::Lauf => "lauf deploy",
        }
    }

    /// Deploys a sample's image as a service that everybody may call.
    pub(crate) async fn deploy(&self, platform: &Platform, sample: &Sample) -> Result<()> {
        let mut args = vec![
            sample.name,
            "--image",
            sample.name,
            "--allow-unauthenticated",
        ];
        if sample.http2 {
            args.push("--use-http2");
        }
        self.run(platform, &["run", "deploy"], &["deploy"], &args)
            .await
    }

    /// Deploys a second revision that greets with `message` and gets no traffic but under its tag.
    pub(crate) async fn deploy_tagged(
        &self,
        platform: &Platform,
        service: &str,
        tag: &str,
        message: &str,
    ) -> Result<()> {
        let setting = format!("MESSAGE={message}");
        let variables = match self {
            Self::Gcloud { .. } => "--set-env-vars",
            Self::Lauf => "--env",
        };
        let args = [
            service,
            "--image",
            service,
            "--no-traffic",
            "--tag",
            tag,
            variables,
            &setting,
        ];
        self.run(platform, &["run", "deploy"], &["deploy"], &args)
            .await
    }

    /// Divides a service's traffic between revisions, in percent.
    pub(crate) async fn split(
        &self,
        platform: &Platform,
        service: &str,
        shares: &[(&str, u32)],
    ) -> Result<()> {
        let shares: Vec<String> = shares
            .iter()
            .map(|(revision, percent)| format!("{revision}={percent}"))
            .collect();
        let shares = shares.join(",");
        let to = match self {
            Self::Gcloud { .. } => "--to-revisions",
            Self::Lauf => "--to",
        };
        self.run(
            platform,
            &["run", "services", "update-traffic"],
            &["traffic"],
            &[service, to, &shares],
        )
        .await
    }

    /// Runs the same intent with either tool.
    async fn run(
        &self,
        platform: &Platform,
        gcloud: &[&str],
        lauf: &[&str],
        args: &[&str],
    ) -> Result<()> {
        match self {
            Self::Lauf => {
                platform.lauf(&[lauf, args].concat()).await?;
            }
            Self::Gcloud { env, config } => {
                let program = tools::which("gcloud").context("gcloud has gone")?;
                output(
                    Command::new(program)
                        .args(gcloud)
                        .args(args)
                        .arg("--quiet")
                        .env("CLOUDSDK_CONFIG", config.path())
                        .env("CLOUDSDK_CORE_DISABLE_PROMPTS", "1")
                        .envs(env),
                )
                .await?;
            }
        }
        Ok(())
    }
}

/// The variables in what a shell is meant to evaluate: `export A=b` or `A=b`, several on a line or one, quoted or not.
fn variables(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .filter_map(|word| word.trim_end_matches(';').split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches(['\'', '"']).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_a_shell_would() {
        let found = variables("# for eval\nexport CLOUDSDK_PROXY_TYPE=http\nA='b'; C=\"d=e\"\n");
        let expected = [("A", "b"), ("C", "d=e"), ("CLOUDSDK_PROXY_TYPE", "http")];
        assert_eq!(
            found,
            expected
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        );
    }
}
