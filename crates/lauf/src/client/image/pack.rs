//! `lauf image pack` and `lauf image import`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use lauf_image::{Bundle, Compression, Limits, PackOptions, Reference};
use serde_json::{Value, json};

use super::{reference, registry};
use crate::client::deploy::progress::Steps;
use crate::client::http::Api;
use crate::client::output::Out;
use crate::client::pairs;

const PACK_EXAMPLES: &str = "\
Examples:
  A static binary alone:
    lauf image pack build/ -t hello --entrypoint /hello

  A folder on top of another image:
    lauf image pack app/ -t web --base debian:12 --prefix /app \\
      --entrypoint '[\"/usr/bin/python3\", \"main.py\"]' --workdir /app --env MODE=live

The same folder and options give the same image, byte by byte.";

/// Arguments of `lauf image pack`.
#[derive(Debug, Args)]
#[command(after_help = PACK_EXAMPLES)]
pub(crate) struct PackArgs {
    /// The folder whose content becomes the image's
    dir: PathBuf,
    /// The image's name, such as hello or team/hello:v2
    #[arg(long, short, value_name = "NAME")]
    tag: String,
    /// The command: words or a JSON array
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    entrypoint: Option<String>,
    /// Arguments of the command that a deploy may replace: words or a JSON array
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    cmd: Option<String>,
    /// An environment variable. May be given more than once
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The user, such as 1000:1000 or nobody
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The port it listens on unless PORT says otherwise. May be given more than once
    #[arg(long, short, value_name = "NUMBER")]
    port: Vec<u16>,
    /// The working directory
    #[arg(long, short, value_name = "PATH")]
    workdir: Option<String>,
    /// A label. May be given more than once
    #[arg(long, short, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// The image to build on, from the server's registry
    #[arg(long, value_name = "IMAGE")]
    base: Option<String>,
    /// Where in the image the folder's content goes
    #[arg(long, value_name = "PATH", default_value = "/")]
    prefix: String,
    /// How the layer is compressed
    #[arg(long, value_enum, default_value_t = Compress::Gzip)]
    compression: Compress,
    /// Keep the owners of the files instead of giving them to root
    #[arg(long)]
    keep_owners: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Compress {
    /// Understood by every tool
    Gzip,
    /// Smaller and faster
    Zstd,
    /// Fastest on one machine
    None,
}

/// Arguments of `lauf image import`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  docker save app:v1 -o app.tar && lauf image import app.tar\n  lauf image import layout/ -t team/app:v2"
)]
pub(crate) struct ImportArgs {
    /// An OCI layout (a folder or an archive of one) or the file of `docker save`
    file: PathBuf,
    /// The name in the registry [default: the names in the file]
    #[arg(long, short, value_name = "NAME")]
    tag: Option<String>,
}

/// Runs `lauf image pack`.
pub(super) async fn pack(api: &Api, out: &Out, args: PackArgs) -> Result<()> {
    const TITLE: &str = "Packing";
    let name = reference(&args.tag)?;
    let mut options = options(&args)?;
    let registry = registry(api)?;
    if let Some(base) = &args.base {
        options.base = Some(registry.base_image(&reference(base)?).await?);
    }
    let mut steps = Steps::new(out);
    steps.working("pack", TITLE, &args.dir.display().to_string());
    let packed =
        tokio::task::spawn_blocking(move || lauf_image::pack_directory(&args.dir, &options))
            .await
            .context("packing was broken off")?;
    let bundle = match packed {
        Ok(bundle) => bundle,
        Err(error) => {
            steps.failed("pack", TITLE);
            return Err(error.into());
        }
    };
    steps.done("pack", TITLE);
    let pushed = push(api, &mut steps, &bundle, &[(0, name)]).await;
    steps.stop();
    report(out, &pushed?)
}

fn options(args: &PackArgs) -> Result<PackOptions> {
    let words = |option: &str, text: &Option<String>| -> Result<Vec<String>> {
        Ok(match text {
            Some(text) => pairs::words(option, text)?,
            None => Vec::new(),
        })
    };
    let env = pairs::single("--env", &args.env)?;
    Ok(PackOptions {
        entrypoint: words("--entrypoint", &args.entrypoint)?,
        cmd: words("--cmd", &args.cmd)?,
        env: env.into_iter().map(|(k, v)| format!("{k}={v}")).collect(),
        user: args.user.clone(),
        working_dir: args.workdir.clone(),
        ports: args.port.iter().map(ToString::to_string).collect(),
        labels: pairs::single("--label", &args.label)?.into_iter().collect(),
        prefix: args.prefix.clone(),
        keep_owners: args.keep_owners,
        compression: match args.compression {
            Compress::Gzip => Compression::Gzip,
            Compress::Zstd => Compression::Zstd,
            Compress::None => Compression::None,
        },
        ..PackOptions::default()
    })
}

/// Runs `lauf image import`.
pub(super) async fn import(api: &Api, out: &Out, args: &ImportArgs) -> Result<()> {
    const TITLE: &str = "Reading";
    let tag = args.tag.as_deref().map(reference).transpose()?;
    let mut steps = Steps::new(out);
    steps.working("import", TITLE, &args.file.display().to_string());
    let file = args.file.clone();
    let read = tokio::task::spawn_blocking(move || lauf_image::import(&file, &Limits::default()))
        .await
        .context("reading was broken off")?;
    let bundle = match read {
        Ok(bundle) => bundle,
        Err(error) => {
            steps.failed("import", TITLE);
            return Err(error.into());
        }
    };
    steps.done("import", TITLE);
    let named: Vec<Vec<String>> = bundle.images.iter().map(|i| i.names.clone()).collect();
    let wanted = wanted(&named, tag, &args.file.display().to_string())?;
    let pushed = push(api, &mut steps, &bundle, &wanted).await;
    steps.stop();
    report(out, &pushed?)
}

/// Which image of a file gets which name.
fn wanted(
    named: &[Vec<String>],
    tag: Option<Reference>,
    file: &str,
) -> Result<Vec<(usize, Reference)>> {
    if let Some(tag) = tag {
        return match named.len() {
            0 => bail!("{file} holds no image."),
            1 => Ok(vec![(0, tag)]),
            many => bail!(
                "{file} holds {many} images, so one name does not do: leave out -t to keep their \
                 own names."
            ),
        };
    }
    let mut wanted = Vec::new();
    for (i, names) in named.iter().enumerate() {
        for name in names {
            wanted.push((i, reference(name)?));
        }
    }
    if wanted.is_empty() {
        bail!("The image in {file} has no name of its own: give it one with -t NAME.");
    }
    Ok(wanted)
}

/// Sends images to the server; what was sent, as JSON.
async fn push(
    api: &Api,
    steps: &mut Steps,
    bundle: &Bundle,
    wanted: &[(usize, Reference)],
) -> Result<Vec<Value>> {
    let registry = registry(api)?;
    let mut pushed = Vec::new();
    for (index, name) in wanted {
        let title = format!("Pushing {name} ({})", size(bundle.size_bytes()));
        let kind = name.to_string();
        steps.working(&kind, &title, "");
        match registry.push(bundle, *index, name).await {
            Ok(image) => {
                steps.done(&kind, &title);
                pushed.push(json!({"image": name.to_string(), "digest": image.digest.to_string()}));
            }
            Err(error) => {
                steps.failed(&kind, &title);
                return Err(error.into());
            }
        }
    }
    Ok(pushed)
}

fn report(out: &Out, pushed: &[Value]) -> Result<()> {
    if out.structured(&Value::from(pushed.to_vec()))? {
        return Ok(());
    }
    for image in pushed {
        let text = |key: &str| image[key].as_str().unwrap_or_default();
        out.line(&format!("{}@{}", text("image"), text("digest")))?;
    }
    Ok(())
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut tenths, mut unit) = (bytes, 0, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 {
        format!("{whole} B")
    } else {
        format!("{whole}.{tenths} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
    }

    #[test]
    fn names_of_imported_images() {
        let named = vec![vec!["a:1".to_owned(), "a:2".to_owned()]];
        assert_eq!(wanted(&named, None, "f").unwrap().len(), 2);
        let tag = || Some(reference("b").unwrap());
        assert_eq!(wanted(&named, tag(), "f").unwrap()[0].1.path, "b");
        assert!(wanted(&[vec![], vec![]], tag(), "f").is_err());
        assert!(wanted(&[vec![]], None, "f").is_err());
    }
}
