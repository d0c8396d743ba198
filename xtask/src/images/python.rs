//! Python: the interpreter and standard library of Debian, packages from PyPI, everything compiled beforehand.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::recipes::PATH;
use super::rootfs::{Rootfs, shared_objects};
use super::spec::ImageSpec;
use crate::tools;

/// Debian's own, whatever else is on `PATH`: its standard library is where we expect it.
pub(super) const PYTHON: &str = "/usr/bin/python3";
const SITE: &str = "/app/site";

/// Parts of the standard library that a server has no use for.
const LEFT_OUT: [&str; 14] = [
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "idle_test",
    "tkinter",
    "turtledemo",
    "turtle.py",
    "lib2to3",
    "ensurepip",
    "pydoc_data",
    "distutils",
    "venv",
    "EXTERNALLY-MANAGED",
];

/// Flask behind gunicorn.
pub(crate) fn flask(root: &mut Rootfs) -> Result<ImageSpec> {
    let python = interpreter(root)?;
    install(root)?;
    root.add_app(&["guestbook.py", "gunicorn.conf.py", "templates"])?;
    compile(root)?;
    let entrypoint = [
        &python,
        "-m",
        "gunicorn",
        "-c",
        "gunicorn.conf.py",
        "guestbook:app",
    ];
    Ok(ImageSpec::new(&entrypoint, "/app", &environment()))
}

/// grpcio, with the messages generated from the proto file.
pub(crate) fn grpc(root: &mut Rootfs) -> Result<ImageSpec> {
    let python = interpreter(root)?;
    install(root)?;
    root.add_app(&["server.py", "places.py"])?;
    generate(root)?;
    compile(root)?;
    Ok(ImageSpec::new(
        &[&python, "server.py"],
        "/app",
        &environment(),
    ))
}

pub(super) fn environment() -> [(&'static str, &'static str); 4] {
    // Output line by line, and no attempt to write what is compiled already into a folder that user 1000 cannot write.
    [
        PATH,
        ("PYTHONPATH", SITE),
        ("PYTHONUNBUFFERED", "1"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ]
}

/// The interpreter, its standard library and what its extension modules load. Returns the interpreter's path in the image.
pub(super) fn interpreter(root: &Rootfs) -> Result<String> {
    root.base()?;
    let python = Path::new(PYTHON)
        .canonicalize()
        .with_context(|| format!("{PYTHON}; `cargo xtask setup` installs it"))?;
    root.add_program(&python)?;
    let library = tools::quiet(Command::new(&python).args([
        "-I",
        "-c",
        "import sysconfig; print(sysconfig.get_path('stdlib'))",
    ]))?;
    let library = PathBuf::from(library.trim());
    ensure!(
        library.starts_with("/usr/lib"),
        "the standard library is in {}, not in /usr/lib",
        library.display()
    );
    root.copy_tree(&library, &root.at(&library), &|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !LEFT_OUT.contains(&&*name) && !name.starts_with("config-")
    })?;
    root.add_libraries(&shared_objects(&library.join("lib-dynload"))?)?;
    Ok(python.to_string_lossy().into_owned())
}

/// The packages of `requirements.txt` into the image's own folder.
pub(super) fn install(root: &Rootfs) -> Result<()> {
    pip(&root.at(SITE), &root.source().join("requirements.txt"))?;
    root.add_libraries(&shared_objects(&root.at(SITE))?)
}

fn pip(into: &Path, requirements: &Path) -> Result<()> {
    tools::quiet(
        Command::new(PYTHON)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-compile",
                "--only-binary=:all:",
                "--no-warn-script-location",
            ])
            .args(["--disable-pip-version-check", "--root-user-action=ignore"])
            .arg("--target")
            .arg(into)
            .arg("--requirement")
            .arg(requirements),
    )?;
    Ok(())
}

/// `route_pb2.py` and `route_pb2_grpc.py` from `route.proto`, with tools that stay outside the image.
fn generate(root: &Rootfs) -> Result<()> {
    let build_site = root.work().join("site");
    pip(&build_site, &root.source().join("requirements-build.txt"))?;
    tools::quiet(
        Command::new(PYTHON)
            .args(["-m", "grpc_tools.protoc", "-I."])
            .arg(format!("--python_out={}", root.at("/app").display()))
            .arg(format!("--grpc_python_out={}", root.at("/app").display()))
            .arg("route.proto")
            .current_dir(root.source())
            .env("PYTHONPATH", build_site)
            .env("PYTHONDONTWRITEBYTECODE", "1"),
    )?;
    Ok(())
}

/// Compiles every module. Without this each cold start compiles anew, which doubles its time; `unchecked-hash` keeps the result good
/// whatever times the packing gives to files, and saves a look at each source.
pub(super) fn compile(root: &Rootfs) -> Result<()> {
    for (folder, inside) in [("/usr/lib", "/usr/lib"), ("/app", "/app")] {
        tools::quiet(
            Command::new(PYTHON)
                .args([
                    "-I",
                    "-m",
                    "compileall",
                    "-q",
                    "-j",
                    "2",
                    "--invalidation-mode",
                    "unchecked-hash",
                    "-s",
                ])
                .arg(root.at(folder))
                .args(["-p", inside])
                .arg(root.at(folder)),
        )?;
    }
    Ok(())
}
