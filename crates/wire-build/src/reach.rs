//! What the table's RPCs can reach: the rest of the crates' thousand messages is nobody's business.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use prost_types::{DescriptorProto, EnumDescriptorProto};

use crate::recover::Whole;
use crate::table::Table;

/// The prefix of what every descriptor pool knows by itself.
pub(crate) const WELL_KNOWN: &str = "google.protobuf.";

/// What is kept of a package.
#[derive(Debug, Default, PartialEq)]
pub struct Kept {
    /// Its messages, with all that is inside them.
    pub messages: Vec<DescriptorProto>,
    /// Its enums.
    pub enums: Vec<EnumDescriptorProto>,
    /// The packages that those need, the well-known one not among them.
    pub needs: BTreeSet<String>,
    /// The well-known types that those need, by their short names.
    pub well_known: BTreeSet<String>,
}

/// Keeps, by package, what the table's RPCs reach.
///
/// # Errors
/// For an RPC that no stub stands for, and a message that is nowhere.
pub fn keep(whole: &Whole, table: &Table) -> Result<BTreeMap<String, Kept>> {
    let mut left: Vec<String> = table.any.clone();
    for rpc in &table.rpcs {
        let path = format!("/{}/{}", rpc.service, rpc.method);
        let stub = whole.rpcs.get(&path);
        let stub = stub.with_context(|| format!("no message crate has a stub of {path}"))?;
        left.extend([stub.input.clone(), stub.output.clone()]);
    }
    let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
    let mut done = BTreeSet::new();
    while let Some(name) = left.pop() {
        if name.starts_with(WELL_KNOWN) {
            continue;
        }
        let (package, top) = split(whole, &name)?;
        if !done.insert(format!("{package}.{top}")) {
            continue;
        }
        let from = &whole.packages[package];
        let into = kept.entry(package.to_owned()).or_default();
        if let Some(found) = from.enums.iter().find(|e| e.name() == top) {
            into.enums.push(found.clone());
            continue;
        }
        let found = from.messages.iter().find(|m| m.name() == top);
        let message = found.with_context(|| format!("there is no message {name}"))?;
        for needed in references(message) {
            match needed.strip_prefix(WELL_KNOWN) {
                Some(known) => {
                    into.well_known.insert(known.to_owned());
                }
                None => {
                    let (other, _) = split(whole, &needed)?;
                    if other != package {
                        into.needs.insert(other.to_owned());
                    }
                    left.push(needed);
                }
            }
        }
        into.messages.push(message.clone());
    }
    for package in kept.values_mut() {
        package.messages.sort_by(|a, b| a.name().cmp(b.name()));
        package.enums.sort_by(|a, b| a.name().cmp(b.name()));
    }
    Ok(kept)
}

/// A full name's package and the top-level type in it.
pub(crate) fn split<'a>(whole: &'a Whole, name: &'a str) -> Result<(&'a str, &'a str)> {
    let found = name
        .match_indices('.')
        .rev()
        .find_map(|(at, _)| whole.packages.get_key_value(&name[..at]))
        .with_context(|| format!("no message crate has the package of {name}"))?;
    let package = found.0.as_str();
    let inside = &name[package.len() + 1..];
    Ok((package, inside.split('.').next().unwrap_or(inside)))
}

fn references(message: &DescriptorProto) -> Vec<String> {
    let own = message.field.iter().filter_map(|f| f.type_name.as_ref());
    let own = own.map(|name| name.trim_start_matches('.').to_owned());
    let nested = message.nested_type.iter().flat_map(references);
    own.chain(nested).collect()
}
