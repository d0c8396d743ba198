//! The image: overlay, the files of the spec, the change of root.
//!
//! The image is hostile until shown otherwise, so every path in it is resolved with the image as root and without magic
//! links, and mount points must be real directories.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchmod, fchown, mkdirat, openat2,
    unlinkat,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_remount, move_mount, unmount,
};

use super::{Failure, Step, Template};
use crate::protocol::FailReason::{BadCwd, Host, Mount};
use crate::spec::ContainerSpec;

const IN_IMAGE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Mounts the overlay at `stage/root` and opens it.
pub(super) fn assemble(template: &Template, spec: &ContainerSpec) -> Result<OwnedFd, Failure> {
    let stage = &template.stage;
    size_writable_layer(stage, spec.memory_bytes).step(Host, "size the writable layer")?;
    if let Some(top) = spec.layers.last() {
        // The root directory of the container has the attributes of the uppermost layer's.
        let meta = std::fs::metadata(top).step(Mount, &format!("image layer {}", top.display()))?;
        let upper = stage.join("upper");
        rustix::fs::chown(
            &upper,
            Some(Uid::from_raw(meta.uid())),
            Some(Gid::from_raw(meta.gid())),
        )
        .step(Mount, "own the root directory")?;
        rustix::fs::chmod(&upper, Mode::from_raw_mode(meta.mode() & 0o7777))
            .step(Mount, "set the mode of the root directory")?;
    }
    mount_overlay(stage, spec).step(
        Mount,
        &format!("mount the image's {} layers", spec.layers.len()),
    )?;
    let open = openat2(
        CWD,
        stage.join("root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    );
    open.step(Mount, "open the image")
}

fn size_writable_layer(stage: &Path, memory_bytes: u64) -> io::Result<()> {
    // A file costs at least about a kilobyte of kernel memory, so this many is more than the limit can hold anyway.
    let data = if memory_bytes == 0 {
        "size=50%".to_owned()
    } else {
        format!(
            "size={memory_bytes},nr_inodes={}",
            (memory_bytes / 1024).max(1024)
        )
    };
    let data = std::ffi::CString::new(data)?;
    Ok(mount_remount(
        stage,
        MountFlags::NOSUID | MountFlags::NODEV,
        data.as_c_str(),
    )?)
}

/// Layers are named by short links next to the working directory, because the kernel's options are short: 256 bytes for one
/// value, a page for all of them on kernels before 6.5.
fn mount_overlay(stage: &Path, spec: &ContainerSpec) -> io::Result<()> {
    let links = stage.join("layers");
    let mut names = Vec::with_capacity(spec.layers.len());
    for (number, layer) in spec.layers.iter().enumerate() {
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
    match modern_overlay(&names) {
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::EINVAL | libc::ENOSYS | libc::ENOTSUP)
            ) =>
        {
            legacy_overlay(&names)
        }
        done => done,
    }
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
    let mut walked = std::path::PathBuf::from("/");
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

/// Writes `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` into the writable layer.
pub(super) fn write_files(root: &OwnedFd, base: u32, spec: &ContainerSpec) -> Result<(), Failure> {
    let hostname = format!("{}\n", spec.hostname);
    let files = [
        ("hostname", Some(hostname.as_str())),
        ("hosts", spec.hosts.as_deref()),
        ("resolv.conf", spec.resolv_conf.as_deref()),
    ];
    let etc = directory(root, "/etc", base, ResolveFlags::empty())
        .step(Mount, "make /etc in the image")?;
    for (name, text) in files {
        if let Some(text) = text {
            replace_file(&etc, name, text, base).step(Mount, &format!("write /etc/{name}"))?;
        }
    }
    Ok(())
}

fn replace_file(dir: &OwnedFd, name: &str, text: &str, base: u32) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
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

/// Moves `/proc`, `/dev` and `/sys` into the image and makes it the root; the host's tree is gone afterwards.
pub(super) fn enter(template: &Template, root: OwnedFd) -> Result<(), Failure> {
    for name in ["proc", "dev", "sys"] {
        let what = format!("mount /{name} (it must be a directory in the image, not a link)");
        let target = directory(
            &root,
            &format!("/{name}"),
            template.uid_base,
            ResolveFlags::NO_SYMLINKS,
        )
        .step(Mount, &what)?;
        move_mount(
            CWD,
            template.stage.join(name),
            target.as_fd(),
            "",
            MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
        )
        .step(Mount, &what)?;
    }
    rustix::process::fchdir(&root).step(Mount, "enter the image")?;
    drop(root);
    // The old root ends up on top of the new one, where it is taken off.
    rustix::process::pivot_root(".", ".").step(Mount, "make the image the root")?;
    unmount(".", UnmountFlags::DETACH).step(Mount, "let go of the host's tree")?;
    rustix::process::chdir("/").step(Mount, "enter the image")?;
    Ok(())
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
