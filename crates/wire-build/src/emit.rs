//! Writing what was found: descriptors for the pool, Rust for the compiler.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use prost::Message as _;
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use tonic_build::manual;

use crate::reach::{Kept, WELL_KNOWN, split};
use crate::recover::Whole;
use crate::table::{Rpc, Table};
use crate::words::snake;

/// Writes `descriptors.bin`, a `google.protobuf.FileDescriptorSet` with one file a package.
///
/// # Errors
/// When it cannot be written.
pub fn descriptors(
    kept: &BTreeMap<String, Kept>,
    table: &Table,
    whole: &Whole,
    out: &Path,
) -> Result<()> {
    let set = file_set(kept, table, whole)?;
    std::fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;
    Ok(())
}

/// The files that stand for the kept packages, in the order in which they need each other.
///
/// # Errors
/// When a service's package holds no messages.
pub fn file_set(
    kept: &BTreeMap<String, Kept>,
    table: &Table,
    whole: &Whole,
) -> Result<FileDescriptorSet> {
    let mut services: BTreeMap<String, Vec<ServiceDescriptorProto>> = BTreeMap::new();
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (service, methods) in services_of(table) {
        let (package, name) = service
            .rsplit_once('.')
            .context("a service in no package")?;
        let mut descriptor = ServiceDescriptorProto {
            name: Some(name.to_owned()),
            ..ServiceDescriptorProto::default()
        };
        for method in methods {
            let stub = &whole.rpcs[&format!("/{service}/{}", method.method)];
            for ty in [&stub.input, &stub.output] {
                needs
                    .entry(package.to_owned())
                    .or_default()
                    .insert(ty.clone());
            }
            descriptor.method.push(MethodDescriptorProto {
                name: Some(method.method.clone()),
                input_type: Some(format!(".{}", stub.input)),
                output_type: Some(format!(".{}", stub.output)),
                client_streaming: Some(stub.client_streaming),
                server_streaming: Some(stub.server_streaming),
                ..MethodDescriptorProto::default()
            });
        }
        services
            .entry(package.to_owned())
            .or_default()
            .push(descriptor);
    }
    let mut set = FileDescriptorSet::default();
    let names: BTreeSet<String> = kept.keys().chain(services.keys()).cloned().collect();
    let mut left: Vec<&String> = names.iter().collect();
    let nothing = Kept::default();
    // Few enough that looking again for one whose needs are met is quick.
    while !left.is_empty() {
        let mut met = false;
        for name in std::mem::take(&mut left) {
            let package = kept.get(name).unwrap_or(&nothing);
            let (mut others, mut known) = (package.needs.clone(), package.well_known.clone());
            for ty in needs.get(name).into_iter().flatten() {
                match ty.strip_prefix(WELL_KNOWN) {
                    Some(ty) => {
                        known.insert(ty.to_owned());
                    }
                    None => {
                        others.insert(split(whole, ty)?.0.to_owned());
                    }
                }
            }
            others.remove(name);
            let is_there = |n: &str| set.file.iter().any(|f| f.name() == file_name(n));
            if !others.iter().all(|n| is_there(n)) {
                left.push(name);
                continue;
            }
            met = true;
            let known: BTreeSet<String> = known.iter().map(|ty| well_known_file(ty)).collect();
            set.file.push(FileDescriptorProto {
                name: Some(file_name(name)),
                package: Some(name.clone()),
                dependency: others.iter().map(|n| file_name(n)).chain(known).collect(),
                message_type: package.messages.clone(),
                enum_type: package.enums.clone(),
                service: services.remove(name).unwrap_or_default(),
                syntax: Some("proto3".to_owned()),
                ..FileDescriptorProto::default()
            });
        }
        anyhow::ensure!(met, "packages need each other in a circle: {left:?}");
    }
    Ok(set)
}

fn file_name(package: &str) -> String {
    format!("{}.proto", package.replace('.', "/"))
}

fn well_known_file(ty: &str) -> String {
    let file = match ty {
        "Struct" | "Value" | "ListValue" | "NullValue" => "struct",
        ty if ty.ends_with("Value") => "wrappers",
        ty => &snake(ty),
    };
    format!("google/protobuf/{file}.proto")
}

/// Services with their methods, each once, in the table's order.
fn services_of(table: &Table) -> Vec<(&str, Vec<&Rpc>)> {
    let mut services: Vec<(&str, Vec<&Rpc>)> = Vec::new();
    for rpc in &table.rpcs {
        let methods = match services.iter_mut().find(|(name, _)| *name == rpc.service) {
            Some((_, methods)) => methods,
            None => {
                services.push((&rpc.service, Vec::new()));
                &mut services.last_mut().expect("one was pushed").1
            }
        };
        if !methods.iter().any(|known| known.method == rpc.method) {
            methods.push(rpc);
        }
    }
    services
}

/// Writes `apis.rs`: modules as protobuf has packages, each with its messages and server traits; the
/// names of messages; the HTTP bindings.
///
/// # Errors
/// When it cannot be written.
pub fn rust(kept: &BTreeMap<String, Kept>, table: &Table, whole: &Whole, out: &Path) -> Result<()> {
    let mut services: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (service, methods) in services_of(table) {
        let (package, name) = service
            .rsplit_once('.')
            .context("a service in no package")?;
        services.entry(package).or_default().push(service);
        let mut made = manual::Service::builder().name(name).package(package);
        for method in methods {
            made = made.method(rpc(method, whole)?);
        }
        manual::Builder::new()
            .build_client(false)
            .build_transport(false)
            .out_dir(out)
            .compile(&[made.build()]);
    }
    let mut root = Module::default();
    let packages = kept
        .keys()
        .map(String::as_str)
        .chain(services.keys().copied());
    for package in packages.collect::<BTreeSet<_>>() {
        let mut body = String::new();
        let path = package.replace('.', "::").replace("::type", "::r#type");
        writeln!(
            body,
            "pub use ::{}::{path}::*;",
            whole.packages[package].krate
        )?;
        for service in services.get(package).into_iter().flatten() {
            writeln!(
                body,
                "include!(concat!(env!(\"OUT_DIR\"), \"/{service}.rs\"));"
            )?;
        }
        root.at(package).body = body;
    }
    let mut text = String::from("// Made by lauf-wire-build.\n");
    root.write(&mut text)?;
    for (package, kept) in kept {
        for message in &kept.messages {
            let path = rust_path(whole, &format!("{package}.{}", message.name()))?;
            writeln!(
                text,
                "impl Named for {path} {{ const NAME: &'static str = \"{package}.{}\"; }}",
                message.name()
            )?;
        }
    }
    writeln!(
        text,
        "/// The HTTP bindings of all RPCs in the table, in its order."
    )?;
    writeln!(text, "pub const BINDINGS: &[Binding] = &[")?;
    for rpc in &table.rpcs {
        let Some(http) = &rpc.http else { continue };
        writeln!(
            text,
            "Binding {{ api: {:?}, service: {:?}, method: {:?}, verb: {:?}, path: {:?}, body: {:?} }},",
            rpc.api, rpc.service, rpc.method, http.verb, http.path, http.body
        )?;
    }
    writeln!(text, "];")?;
    std::fs::write(out.join("apis.rs"), text)?;
    Ok(())
}

fn rpc(rpc: &Rpc, whole: &Whole) -> Result<manual::Method> {
    let stub = &whole.rpcs[&format!("/{}/{}", rpc.service, rpc.method)];
    let mut made = manual::Method::builder()
        .name(snake(&rpc.method))
        .route_name(&rpc.method)
        .input_type(rust_path(whole, &stub.input)?)
        .output_type(rust_path(whole, &stub.output)?)
        .codec_path("::tonic_prost::ProstCodec");
    if stub.client_streaming {
        made = made.client_streaming();
    }
    if stub.server_streaming {
        made = made.server_streaming();
    }
    Ok(made.build())
}

/// The Rust type of a top-level message.
fn rust_path(whole: &Whole, name: &str) -> Result<String> {
    match name.strip_prefix(WELL_KNOWN) {
        // tonic-build wants a path, which `()` is not.
        Some("Empty") => return Ok("crate::Empty".to_owned()),
        Some(known) => return Ok(format!("::prost_types::{known}")),
        None => {}
    }
    let (package, top) = split(whole, name)?;
    let path = package.replace('.', "::").replace("::type", "::r#type");
    Ok(format!(
        "::{}::{path}::{top}",
        whole.packages[package].krate
    ))
}

/// A tree of modules.
#[derive(Default)]
struct Module {
    body: String,
    inner: BTreeMap<String, Module>,
}

impl Module {
    fn at(&mut self, package: &str) -> &mut Self {
        package.split('.').fold(self, |module, part| {
            module.inner.entry(part.to_owned()).or_default()
        })
    }

    fn write(&self, text: &mut String) -> Result<()> {
        text.push_str(&self.body);
        for (name, module) in &self.inner {
            let name = if name == "type" { "r#type" } else { name };
            writeln!(
                text,
                "#[allow(missing_docs, unused_qualifications, clippy::all)]"
            )?;
            writeln!(text, "pub mod {name} {{")?;
            module.write(text)?;
            writeln!(text, "}}")?;
        }
        Ok(())
    }
}
