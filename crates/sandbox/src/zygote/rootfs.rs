//! The image: overlay, the files of the spec, the change of root.
//!
//! The image is hostile until shown otherwise, so every path in it is resolved with the image as root and without magic
//! links, and mount points must be real directories.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchmod, fchown, mkdirat, openat2,
    unlinkat,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount_remount, move_mount,
};

use super::prepare::make_dir;
use super::{Failure, Step};
use crate::protocol::FailReason::{BadCwd, Host, Mount};
use crate::spec::ContainerSpec;

const IN_IMAGE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Where an image is mounted.
#[derive(Debug)]
pub(super) struct Stage {
    /// A tmpfs with the folders `upper`, `work`, `root`, `layers` and `empty`.
    pub(super) at: PathBuf,
    /// Where the folders of layers are found, by what the host calls them; `None` where the host's tree still is.
    pub(super) images: Option<Vec<(PathBuf, PathBuf)>>,
    /// The memory limit that it is sized for.
    pub(super) memory_bytes: u64,
    /// See [`takes_layers_one_by_one`].
    pub(super) layers_one_by_one: bool,
}

impl Stage {
    /// The path of a layer as we see it.
    fn layer(&self, path: &Path) -> Result<PathBuf, Failure> {
        let Some(images) = &self.images else {
            return Ok(path.to_owned());
        };
        let mut found = images.iter();
        let found = found.find_map(|(host, here)| Some(here.join(path.strip_prefix(host).ok()?)));
        found.ok_or_else(|| {
            let text = format!(
                "image layer {}: not in a folder of layers that the keeper knows",
                path.display()
            );
            Failure::new(Mount, text)
        })
    }
}

/// Mounts the overlay at `root`, with the files of the spec in it.
pub(super) fn assemble(stage: &Stage, base: u32, spec: &ContainerSpec) -> Result<(), Failure> {
    if spec.memory_bytes != stage.memory_bytes {
        size_writable_layer(&stage.at, spec.memory_bytes).step(Host, "size the writable layer")?;
    }
    let paths = spec.layers.iter().map(|path| stage.layer(path));
    let layers: Vec<PathBuf> = paths.collect::<Result<_, _>>()?;
    if let Some((top, name)) = layers.last().zip(spec.layers.last()) {
        // The root directory of the container has the attributes of the uppermost layer's.
        let meta =
            std::fs::metadata(top).step(Mount, &format!("image layer {}", name.display()))?;
        take_after(&stage.at.join("upper"), &meta).step(Mount, "own the root directory")?;
    }
    let written = write_files_below(stage, &layers, base, spec).step(Mount, "write to /etc")?;
    mount_overlay(stage, &layers).step(
        Mount,
        &format!("mount the image's {} layers", spec.layers.len()),
    )?;
    if written {
        return Ok(());
    }
    write_files(&open(stage)?, base, spec)
}

/// Opens what [`assemble`] has mounted.
pub(super) fn open(stage: &Stage) -> Result<OwnedFd, Failure> {
    let open = openat2(
        CWD,
        stage.at.join("root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    );
    open.step(Mount, "open the image")
}

/// Gives a directory owner and mode of another.
fn take_after(dir: &Path, meta: &std::fs::Metadata) -> io::Result<()> {
    rustix::fs::chown(
        dir,
        Some(Uid::from_raw(meta.uid())),
        Some(Gid::from_raw(meta.gid())),
    )?;
    Ok(rustix::fs::chmod(
        dir,
        Mode::from_raw_mode(meta.mode() & 0o7777),
    )?)
}

/// The options of the tmpfs that is the writable layer.
pub(super) fn size_options(memory_bytes: u64) -> String {
    // A file costs at least about a kilobyte of kernel memory, so this many is more than the limit can hold anyway.
    if memory_bytes == 0 {
        "size=50%".to_owned()
    } else {
        format!(
            "size={memory_bytes},nr_inodes={}",
            (memory_bytes / 1024).max(1024)
        )
    }
}

fn size_writable_layer(stage: &Path, memory_bytes: u64) -> io::Result<()> {
    let data = std::ffi::CString::new(size_options(memory_bytes))?;
    Ok(mount_remount(
        stage,
        MountFlags::NOSUID | MountFlags::NODEV,
        data.as_c_str(),
    )?)
}

/// Layers are named by short links next to the working directory, because the kernel's options are short: 256 bytes for one
/// value, a page for all of them on kernels before 6.5.
fn mount_overlay(stage: &Stage, layers: &[PathBuf]) -> io::Result<()> {
    let links = stage.at.join("layers");
    let mut names = Vec::with_capacity(layers.len());
    for (number, layer) in layers.iter().enumerate() {
        let name = number.to_string();
        symlink(layer, links.join(&name))?;
        names.push(name);
    }
    names.reverse();
    if names.is_empty() {
        symlink("../empty", links.join("0"))?;
        names.push("0".to_owned());
    }
    std::env::set_current_dir(&links)?;
    if stage.layers_one_by_one {
        modern_overlay(&names)
    } else {
        legacy_overlay(&names)
    }
}

/// Whether this kernel's overlayfs takes layers one at a time (Linux 6.5). By its number: others take the option at first, and refuse
/// the mount with a line in their log.
pub(crate) fn takes_layers_one_by_one() -> bool {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    (next(), next()) >= (Some(6), Some(5))
}

fn modern_overlay(names: &[String]) -> io::Result<()> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(fs.as_fd(), "source", "lauf")?;
    for name in names {
        fsconfig_set_string(fs.as_fd(), "lowerdir+", name.as_str())?;
    }
    fsconfig_set_string(fs.as_fd(), "upperdir", "../upper")?;
    fsconfig_set_string(fs.as_fd(), "workdir", "../work")?;
    fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let mount = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(
        mount.as_fd(),
        "",
        CWD,
        "../root",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(())
}

fn legacy_overlay(names: &[String]) -> io::Result<()> {
    let data = std::ffi::CString::new(format!(
        "lowerdir={},upperdir=../upper,workdir=../work",
        names.join(":")
    ))?;
    Ok(rustix::mount::mount(
        "lauf",
        "../root",
        "overlay",
        MountFlags::NODEV | MountFlags::NOSUID,
        data.as_c_str(),
    )?)
}

/// Opens a directory of the image, making it (owned by the container's root) when it is not there.
fn directory(root: &OwnedFd, path: &str, base: u32, extra: ResolveFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(root, path, flags, Mode::empty(), IN_IMAGE | extra) {
        Err(rustix::io::Errno::NOENT) => {}
        found => return Ok(found?),
    }
    let mut at = openat2(root, "/", flags, Mode::empty(), IN_IMAGE)?;
    let mut walked = PathBuf::from("/");
    for part in Path::new(path).components() {
        let Component::Normal(name) = part else {
            continue;
        };
        walked.push(name);
        let made = mkdirat(&at, name, Mode::from_raw_mode(0o755));
        if made.is_ok() {
            chownat(
                &at,
                name,
                Some(Uid::from_raw(base)),
                Some(Gid::from_raw(base)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        // From the root again, so that links on the way resolve inside of the image.
        at = openat2(root, &walked, flags, Mode::empty(), IN_IMAGE | extra)?;
    }
    Ok(at)
}

/// What `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` shall hold.
fn files(spec: &ContainerSpec) -> impl Iterator<Item = (&'static str, String)> {
    let files = [
        ("hostname", Some(format!("{}\n", spec.hostname))),
        ("hosts", spec.hosts.clone()),
        ("resolv.conf", spec.resolv_conf.clone()),
    ];
    files
        .into_iter()
        .filter_map(|(name, text)| Some((name, text?)))
}

/// Writes the files of the spec into the writable layer before it is one: in an overlay, each would first copy its folder up.
/// `false` when the image's `/etc` is something else than a folder, so that the image has to be looked at as a whole.
fn write_files_below(
    stage: &Stage,
    layers: &[PathBuf],
    base: u32,
    spec: &ContainerSpec,
) -> io::Result<bool> {
    let etc = stage.at.join("upper/etc");
    let mut like = None;
    for layer in layers.iter().rev() {
        match std::fs::symlink_metadata(layer.join("etc")) {
            Ok(meta) if meta.is_dir() => {
                like = Some(meta);
                break;
            }
            // Hidden here, whatever is below. The kernel stops at the same place.
            Ok(meta) if meta.file_type().is_char_device() && meta.rdev() == 0 => break,
            Ok(_) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    make_dir(&etc, 0o755, base)?;
    if let Some(meta) = like {
        take_after(&etc, &meta)?;
    }
    let dir = openat2(
        CWD,
        &etc,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )?;
    for (name, text) in files(spec) {
        make_file(&dir, name, &text, base)?;
    }
    Ok(true)
}

/// Writes the files of the spec into the image as it is mounted.
fn write_files(root: &OwnedFd, base: u32, spec: &ContainerSpec) -> Result<(), Failure> {
    let etc = directory(root, "/etc", base, ResolveFlags::empty())
        .step(Mount, "make /etc in the image")?;
    for (name, text) in files(spec) {
        replace_file(&etc, name, &text, base).step(Mount, &format!("write /etc/{name}"))?;
    }
    Ok(())
}

fn replace_file(dir: &OwnedFd, name: &str, text: &str, base: u32) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    make_file(dir, name, text, base)
}

fn make_file(dir: &OwnedFd, name: &str, text: &str, base: u32) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat2(
        dir,
        name,
        flags,
        Mode::from_raw_mode(0o644),
        ResolveFlags::NO_SYMLINKS,
    )?;
    fchmod(&file, Mode::from_raw_mode(0o644))?;
    fchown(&file, Some(Uid::from_raw(base)), Some(Gid::from_raw(base)))?;
    io::Write::write_all(&mut std::fs::File::from(file), text.as_bytes())
}

/// Moves `/proc`, `/dev` and `/sys` into the image, and the image over the stage.
///
/// What is below afterwards (the writable layer and the layers) is out of reach: the way down from a root leads nowhere, only who has
/// power over the mount namespace, which is the host's, can take off what is on top, and nothing is left open. A `pivot_root` would
/// come to the same, and cost a look at every process of the host and a grace period of the kernel.
pub(super) fn enter(stage: &Stage, base: u32, root: OwnedFd) -> Result<(), Failure> {
    for name in ["proc", "dev", "sys"] {
        let what = format!("mount /{name}");
        let target = directory(&root, &format!("/{name}"), base, ResolveFlags::NO_SYMLINKS)
            .step(Mount, &what)?;
        move_mount(
            CWD,
            stage.at.join(name),
            target.as_fd(),
            "",
            MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
        )
        .step(Mount, &what)?;
    }
    rustix::process::fchdir(&root).step(Mount, "enter the image")?;
    move_mount(
        root.as_fd(),
        "",
        CWD,
        "/",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .step(Mount, "make the image the root")?;
    rustix::process::chroot(".").step(Mount, "make the image the root")?;
    rustix::process::chdir("/").step(Mount, "enter the image")
}

/// Makes the working directory when the image lacks it, as container runtimes do.
pub(super) fn make_working_directory(base: u32, spec: &ContainerSpec) -> Result<(), Failure> {
    let what = format!("working directory {:?}", spec.cwd);
    let root = openat2(
        CWD,
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::empty(),
    );
    let root = root.step(BadCwd, &what)?;
    directory(&root, &spec.cwd, base, ResolveFlags::empty())
        .step(BadCwd, &what)
        .map(drop)
}
