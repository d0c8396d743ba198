//! A Lauf of our own in a temporary folder, driven through its API as any client would.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::http1::Client;
use crate::machine::{Group, now, process_with};
use crate::sample::Sample;

/// How long anything may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running server; taken down, with all it has made, when dropped.
pub(crate) struct Platform {
    program: PathBuf,
    data: PathBuf,
    server: Option<Group>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    project: String,
    region: String,
    token: String,
    // Last, so that the folder goes after the server.
    _dir: tempfile::TempDir,
}

/// The instances of services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Instances {
    pub(crate) starting: u64,
    pub(crate) ready: u64,
}

impl Platform {
    /// Starts it with these arguments of `lauf up` and waits until it says where it is.
    pub(crate) fn up(arguments: &[&str]) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("lauf-bench-").tempdir()?;
        Self::up_in(dir, arguments)
    }

    /// The same in a folder of its own that is there already.
    pub(crate) fn up_in(dir: tempfile::TempDir, arguments: &[&str]) -> anyhow::Result<Self> {
        let program = program()?;
        let data = dir.path().join("data");
        let log = File::create(dir.path().join("log"))?;
        let server = Group::spawn(
            Command::new(&program)
                .arg("up")
                .arg("--data")
                .arg(&data)
                .args(["--listen", "127.0.0.1:0"])
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log),
        )?;
        let mut platform = Self {
            program,
            data,
            server: Some(server),
            address: ([127, 0, 0, 1], 0).into(),
            project: String::new(),
            region: String::new(),
            token: String::new(),
            _dir: dir,
        };
        platform.find()?;
        Ok(platform)
    }

    fn find(&mut self) -> anyhow::Result<()> {
        let begin = now();
        let text = loop {
            if let Ok(text) = fs::read(self.data.join("server.json")) {
                break text;
            }
            let ended = self.server.as_mut().is_none_or(Group::ended);
            if ended || begin.elapsed() > PATIENCE {
                bail!("lauf up failed:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let file: Value = serde_json::from_slice(&text)?;
        let text = |key: &str| {
            file[key]
                .as_str()
                .with_context(|| format!("no {key} in server.json"))
        };
        self.address = text("address")?.parse()?;
        self.project = text("project")?.to_owned();
        self.region = text("region")?.to_owned();
        self.token = fs::read_to_string(text("token_file")?)?.trim().to_owned();
        Ok(())
    }

    /// The administrator's token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// What the server has written.
    pub(crate) fn log(&self) -> String {
        let path = self.data.with_file_name("log");
        fs::read_to_string(path).unwrap_or_default()
    }

    /// The server's process id.
    pub(crate) fn server(&self) -> anyhow::Result<u32> {
        self.server
            .as_ref()
            .map(Group::id)
            .context("the server has ended")
    }

    /// The keeper's process id.
    pub(crate) fn keeper(&self) -> anyhow::Result<u32> {
        process_with("keeper", &self.data.to_string_lossy())
    }

    /// Makes an image of the sample's name in the server's registry.
    pub(crate) fn pack(&self, sample: &Sample) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command
            .args(["image", "pack", "--quiet"])
            .arg(&sample.rootfs)
            .args(["-t", &sample.name, "--user", "1000:1000"])
            .args(["--workdir", &sample.workdir, "--entrypoint"])
            .arg(serde_json::to_string(&sample.entrypoint)?)
            .env("LAUF_DATA", &self.data);
        for (name, value) in &sample.env {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        let output = command.output()?;
        if !output.status.success() {
            bail!(
                "lauf image pack: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Runs a command of the command line and gives what it printed.
    pub(crate) fn lauf(&self, words: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = Command::new(&self.program)
            .args(words)
            .env("LAUF_DATA", &self.data)
            .output()?;
        if !output.status.success() {
            bail!(
                "lauf {}: {}",
                words.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(output.stdout)
    }

    /// A connection to the API.
    pub(crate) fn api(&self) -> Api {
        let host = format!("{}-run.googleapis.com", self.region);
        Api {
            run: Client::new(self.address, &host, &self.token),
            native: Client::new(self.address, &self.address.to_string(), &self.token),
            project: self.project.clone(),
        }
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let down = Command::new(&self.program)
            .args(["down", "--purge", "--data"])
            .arg(&self.data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !down.is_ok_and(|status| status.success()) {
            eprintln!("bench: `lauf down --purge` failed:\n{}", self.log());
        }
        self.server = None;
    }
}

/// `LAUF_BIN`, or the one built beside this program.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let program = match std::env::var_os("LAUF_BIN") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("lauf"),
    };
    if !Path::new(&program).is_file() {
        bail!(
            "{} is missing; `cargo build --profile dist -p lauf` builds it, LAUF_BIN names another",
            program.display()
        );
    }
    Ok(program)
}

/// The platform's API, v1 and native.
pub(crate) struct Api {
    run: Client,
    native: Client,
    project: String,
}

impl Api {
    fn path(&self) -> String {
        format!(
            "/apis/serving.knative.dev/v1/namespaces/{}/services",
            self.project
        )
    }

    /// A service that anybody may call.
    pub(crate) fn service(&self, name: &str, image: &str, manual: Option<u32>) -> Value {
        let mut notes = json!({"run.googleapis.com/invoker-iam-disabled": "true"});
        if let Some(count) = manual {
            notes["run.googleapis.com/scalingMode"] = "manual".into();
            notes["run.googleapis.com/manualInstanceCount"] = count.to_string().into();
        }
        json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Service",
            "metadata": {"name": name, "namespace": self.project, "annotations": notes},
            // The boost is what `gcloud run deploy` asks for, too.
            "spec": {"template": {
                "metadata": {"annotations": {"run.googleapis.com/startup-cpu-boost": "true"}},
                "spec": {"containers": [{"image": image}]},
            }},
        })
    }

    /// Stores a new service.
    pub(crate) fn create(&mut self, service: &Value) -> anyhow::Result<Value> {
        let (path, body) = (self.path(), serde_json::to_vec(service)?);
        answered(&self.run.call("POST", &path, &body)?)
    }

    /// Makes a job of so many tasks and waits until it can be run.
    pub(crate) fn create_job(&mut self, name: &str, image: &str, tasks: u32) -> anyhow::Result<()> {
        let job = json!({
            "apiVersion": "run.googleapis.com/v1", "kind": "Job",
            "metadata": {"name": name, "namespace": self.project},
            "spec": {"template": {"spec": {"taskCount": tasks, "template": {"spec": {
                "containers": [{"image": image}], "maxRetries": 0}}}}},
        });
        let path = self.run_path("jobs");
        answered(&self.run.call("POST", &path, &serde_json::to_vec(&job)?)?)?;
        let begin = now();
        loop {
            let job = answered(&self.run.call("GET", &format!("{path}/{name}"), &[])?)?;
            match settled(&job) {
                Some(("True", _)) => return Ok(()),
                Some(("False", why)) => bail!("{name} cannot be run: {why}"),
                _ if begin.elapsed() > PATIENCE => bail!("{name} does not become ready: {job}"),
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Runs a job, with another number of tasks if one is said. Gives the execution's name.
    pub(crate) fn run_job(&mut self, name: &str, tasks: Option<u32>) -> anyhow::Result<String> {
        let body = json!({"overrides": {"taskCount": tasks}});
        let path = format!("{}/{name}:run", self.run_path("jobs"));
        let made = answered(&self.run.call("POST", &path, &serde_json::to_vec(&body)?)?)?;
        let name = made["metadata"]["name"].as_str();
        Ok(name.context("an execution without a name")?.to_owned())
    }

    /// Waits until an execution has ended, asking every `pause`. Gives it back.
    pub(crate) fn completed(&mut self, name: &str, pause: Duration) -> anyhow::Result<Value> {
        let path = format!("{}/{name}", self.run_path("executions"));
        let begin = now();
        loop {
            let execution = answered(&self.run.call("GET", &path, &[])?)?;
            if execution["status"]["completionTime"].is_string() {
                return Ok(execution);
            }
            if begin.elapsed() > PATIENCE {
                bail!("{name} does not end: {}", execution["status"]);
            }
            std::thread::sleep(pause);
        }
    }

    fn run_path(&self, kind: &str) -> String {
        format!(
            "/apis/run.googleapis.com/v1/namespaces/{}/{kind}",
            self.project
        )
    }

    /// Stores a change of a service.
    pub(crate) fn put(&mut self, name: &str, service: &Value) -> anyhow::Result<Value> {
        let path = format!("{}/{name}", self.path());
        let body = serde_json::to_vec(service)?;
        answered(&self.run.call("PUT", &path, &body)?)
    }

    /// Reads a service.
    pub(crate) fn read(&mut self, name: &str) -> anyhow::Result<Value> {
        let path = format!("{}/{name}", self.path());
        answered(&self.run.call("GET", &path, &[])?)
    }

    /// Waits until what was last stored is in effect, asking every `pause`. Gives the service back.
    pub(crate) fn ready(&mut self, name: &str, pause: Duration) -> anyhow::Result<Value> {
        let begin = now();
        loop {
            let service = self.read(name)?;
            match settled(&service) {
                Some(("True", _)) => return Ok(service),
                Some(("False", why)) => bail!("{name} did not become ready: {why}"),
                _ if begin.elapsed() > PATIENCE => bail!("{name} does not become ready: {service}"),
                _ => std::thread::sleep(pause),
            }
        }
    }

    /// Creates a service and waits until it is ready. Gives its host back.
    pub(crate) fn deploy(&mut self, service: &Value) -> anyhow::Result<String> {
        let name = service["metadata"]["name"].as_str().unwrap_or_default();
        self.create(service)?;
        let ready = self.ready(name, Duration::from_millis(10))?;
        let url = ready["status"]["url"].as_str().unwrap_or_default();
        let host = url
            .strip_prefix("http://")
            .with_context(|| format!("{name} has no URL"))?;
        Ok(host.to_owned())
    }

    /// The instances of one service, or of all.
    pub(crate) fn instances(&mut self, name: Option<&str>) -> anyhow::Result<Instances> {
        let path = format!("/lauf/v1/projects/{}/services", self.project);
        let list = answered(&self.native.call("GET", &path, &[])?)?;
        let mut sum = Instances::default();
        for service in list["services"].as_array().into_iter().flatten() {
            if name.is_none_or(|name| service["name"] == name) {
                let count = |key: &str| service["instances"][key].as_u64().unwrap_or(0);
                sum.starting += count("starting");
                sum.ready += count("ready");
            }
        }
        Ok(sum)
    }

    /// Waits until a service, or all, has no instance.
    pub(crate) fn wait_for_none(&mut self, name: Option<&str>) -> anyhow::Result<()> {
        let begin = now();
        loop {
            let left = self.instances(name)?;
            if left == Instances::default() {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                bail!("{left:?} do not go away");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The status of `Ready` and why, once the latest change was seen.
fn settled(service: &Value) -> Option<(&str, &str)> {
    if service["status"]["observedGeneration"] != service["metadata"]["generation"] {
        return None;
    }
    let conditions = service["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|c| c["type"] == "Ready")?;
    Some((
        ready["status"].as_str()?,
        ready["message"].as_str().unwrap_or_default(),
    ))
}

fn answered(answer: &crate::http1::Answer) -> anyhow::Result<Value> {
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status != 200 && answer.status != 201 {
        bail!("the API answered {}: {text}", answer.status);
    }
    serde_json::from_str(&text).with_context(|| format!("the API answered {text}"))
}
