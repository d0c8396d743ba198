//! The command line for people: deploys, lists, logs, traffic, images, and the setup of gcloud.
//!
//! ```text
//! options, environment, DATA/server.json ── connect ──▶ http ──▶ the server's APIs
//!                                                        ▲
//! a command: what was asked ── pure functions on JSON ───┘──▶ output: table, JSON or YAML
//! ```
//!
//! It speaks the API that gcloud speaks, so it can do nothing that gcloud could not see. Results go
//! to standard output, progress and remarks to standard error.

mod connect;
mod container;
mod delete;
mod deploy;
mod describe;
mod events;
mod gcloud;
mod http;
mod image;
mod jobs;
mod kubeconfig;
mod list;
mod logs;
mod objects;
mod open;
mod output;
mod pairs;
mod revisions;
mod service;
mod simulate;
mod token;
mod traffic;
mod user;
mod worker_pools;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use self::http::Api;
use connect::Target;
use output::{Format, Out};

/// Where the data of a server is unless somebody says otherwise.
const DEFAULT_DATA: &str = "/var/lib/lauf";

// Options of all client commands. (No doc comment: clap would print it as the program's own.)
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The data folder of a server on this machine
    #[arg(long, global = true, env = "LAUF_DATA", value_name = "DIR", default_value = DEFAULT_DATA, hide_env_values = true)]
    pub(crate) data: PathBuf,
    /// The server to talk to, such as http://127.0.0.1:8080 [default: the one of the data folder]
    #[arg(
        long,
        global = true,
        env = "LAUF_SERVER",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) server: Option<String>,
    /// The bearer token [default: the administrator's, from the data folder]
    #[arg(
        long,
        global = true,
        env = "LAUF_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    /// The project [default: the server's]
    #[arg(
        long,
        global = true,
        env = "LAUF_PROJECT",
        value_name = "ID",
        hide_env_values = true
    )]
    pub(crate) project: Option<String>,
    /// The region [default: the server's]
    #[arg(
        long,
        global = true,
        env = "LAUF_REGION",
        value_name = "REGION",
        hide_env_values = true
    )]
    pub(crate) region: Option<String>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(crate) format: Format,
    /// No progress, no questions
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

// The client commands. (No doc comment, as above.)
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Deploy a container image: create a service, or give it a new revision
    Deploy(Box<deploy::DeployArgs>),
    /// List services
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Show one service: address, revisions, traffic, settings
    Describe(describe::DescribeArgs),
    /// List the revisions of a service
    Revisions(revisions::RevisionsArgs),
    /// Read what a service logged, or follow it
    Logs(logs::LogsArgs),
    /// Send traffic to revisions, by percent and by tag
    Traffic(traffic::TrafficArgs),
    /// Play an access log against settings: instances, cold starts, latency, cost
    Simulate(Box<simulate::SimulateArgs>),
    /// Delete a service and all its revisions
    Delete(delete::DeleteArgs),
    /// Print a service's address, and open it in a browser where there is one
    Open(open::OpenArgs),
    /// Print a service's address
    Url(open::UrlArgs),
    /// Make, run and look at jobs
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Make and look at worker pools: instances that fetch their work themselves
    #[command(subcommand, visible_alias = "pools")]
    WorkerPools(worker_pools::WorkerPoolsCommand),
    /// See what is published
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Make, import, list and delete images
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Print the token that the API, the registry and private services accept
    Token(token::TokenArgs),
    /// Point Google's gcloud at this server
    #[command(subcommand)]
    Gcloud(gcloud::GcloudCommand),
    /// Point kubectl and kn at this server, or take that away
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// Print the completions of a shell
    Completion(CompletionArgs),
}

/// Arguments of `lauf completion`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  source <(lauf completion bash)")]
pub(crate) struct CompletionArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Runs a client command. `program` is the whole command line, for the completions.
///
/// # Errors
/// Whatever went wrong, in words for the person at the terminal.
pub(crate) async fn run(
    global: &Global,
    command: Command,
    program: impl FnOnce() -> clap::Command,
) -> Result<()> {
    let out = Out::new(global.format, global.quiet);
    match command {
        Command::Completion(args) => {
            let mut program = program();
            let name = program.get_name().to_owned();
            let mut text = Vec::new();
            clap_complete::generate(args.shell, &mut program, name, &mut text);
            out.raw(&text)
        }
        Command::Gcloud(command) => gcloud::run(global, &out, command).await,
        Command::Kubeconfig(args) => kubeconfig::run(global, &out, &args).await,
        Command::Token(args) => token::run(global, &out, &args),
        Command::Simulate(args) => simulate::run(global, &out, *args).await,
        command => {
            let api = Api::connect(Target::find(global)?).await?;
            with_server(&api, &out, command).await
        }
    }
}

async fn with_server(api: &Api, out: &Out, command: Command) -> Result<()> {
    match command {
        Command::Deploy(args) => deploy::run(api, out, &args).await,
        Command::List(args) => list::run(api, out, &args).await,
        Command::Describe(args) => describe::run(api, out, &args).await,
        Command::Revisions(args) => revisions::run(api, out, &args).await,
        Command::Logs(args) => logs::run(api, out, &args).await,
        Command::Traffic(args) => traffic::run(api, out, &args).await,
        Command::Delete(args) => delete::run(api, out, &args).await,
        Command::Open(args) => open::run(api, out, &args).await,
        Command::Url(args) => open::url(api, out, &args).await,
        Command::Jobs(command) => jobs::run(api, out, command).await,
        Command::Events(command) => events::run(api, out, command).await,
        Command::WorkerPools(command) => worker_pools::run(api, out, command).await,
        Command::Image(command) => image::run(api, out, command).await,
        // They need no server and were run before.
        Command::Token(_)
        | Command::Gcloud(_)
        | Command::Kubeconfig(_)
        | Command::Completion(_)
        | Command::Simulate(_) => Ok(()),
    }
}
