//! Descriptors from generated Rust: the way back from what prost-build wrote.
//!
//! What is not in the Rust and so cannot be recovered: the case of acronyms in type names (`TCPProbe`
//! is `TcpProbe`), comments, options, and which file a message was in. None of that is on the wire,
//! but for the names of messages inside an `Any`; those are held against Google's own files by a test.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use proc_macro2::{TokenStream, TokenTree};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    MessageOptions, OneofDescriptorProto,
};
use quote::ToTokens as _;
use syn::punctuated::Punctuated;
use syn::{Expr, ExprLit, FnArg, Item, ItemEnum, ItemStruct, Lit, Meta, Token};

use crate::sources::Package;
use crate::words::{camel, plain, snake};

/// Everything that was recovered.
#[derive(Debug, Default)]
pub struct Whole {
    /// Packages by name.
    pub packages: BTreeMap<String, Recovered>,
    /// RPCs by `/service/method`.
    pub rpcs: BTreeMap<String, Stub>,
}

/// One package.
#[derive(Debug)]
pub struct Recovered {
    /// The crate it is in, as an identifier.
    pub krate: String,
    /// Its messages.
    pub messages: Vec<DescriptorProto>,
    /// Its enums.
    pub enums: Vec<EnumDescriptorProto>,
}

/// What the client stub of an RPC says of it. Types are full names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stub {
    /// The request.
    pub input: String,
    /// The response.
    pub output: String,
    /// Whether the client sends many.
    pub client_streaming: bool,
    /// Whether the server sends many.
    pub server_streaming: bool,
}

/// Types by their path in Rust, `google::cloud::run::v2::condition::State`.
type Names = BTreeMap<String, String>;

/// Recovers all packages.
///
/// # Errors
/// When prost-build's way to write has changed in a manner that this does not understand.
pub fn recover(packages: &[Package]) -> Result<Whole> {
    let mut names = Names::new();
    for package in packages {
        let module = package.name.replace('.', "::");
        name(&package.file.items, &module, &package.name, &mut names);
    }
    let mut whole = Whole::default();
    for package in packages {
        let scope = Scope {
            module: package.name.replace('.', "::"),
            items: &package.file.items,
            names: &names,
        };
        let (messages, enums) = scope.types().with_context(|| package.name.clone())?;
        scope.stubs(&mut whole.rpcs)?;
        whole.packages.insert(
            package.name.clone(),
            Recovered {
                krate: package.krate.clone(),
                messages,
                enums,
            },
        );
    }
    Ok(whole)
}

/// Learns the names of all types below `items`.
fn name(items: &[Item], module: &str, full: &str, names: &mut Names) {
    for item in items {
        let ident = match item {
            Item::Struct(item) if derives(&item.attrs, "Message") => &item.ident,
            Item::Enum(item) if derives(&item.attrs, "Enumeration") => &item.ident,
            _ => continue,
        };
        let (ident, inner) = (plain(ident), snake(&plain(ident)));
        names.insert(format!("{module}::{ident}"), format!("{full}.{ident}"));
        if let Some(items) = inside(items, &inner) {
            name(
                items,
                &format!("{module}::{inner}"),
                &format!("{full}.{ident}"),
                names,
            );
        }
    }
}

/// The items of the module of that name.
fn inside<'a>(items: &'a [Item], module: &str) -> Option<&'a [Item]> {
    items.iter().find_map(|item| match item {
        Item::Mod(item) if plain(&item.ident) == module => {
            Some(item.content.as_ref()?.1.as_slice())
        }
        _ => None,
    })
}

fn derives(attrs: &[syn::Attribute], what: &str) -> bool {
    attrs.iter().any(|attr| {
        let paths = Punctuated::<syn::Path, Token![,]>::parse_terminated;
        attr.path().is_ident("derive")
            && attr
                .parse_args_with(paths)
                .is_ok_and(|all| all.iter().any(|p| is_prost(p, what)))
    })
}

fn is_prost(path: &syn::Path, what: &str) -> bool {
    let mut parts = path.segments.iter().rev().map(|s| s.ident.to_string());
    parts.next().as_deref() == Some(what) && parts.next().as_deref() == Some("prost")
}

/// A module: where it is and what is in it.
struct Scope<'a> {
    module: String,
    items: &'a [Item],
    names: &'a Names,
}

impl<'a> Scope<'a> {
    fn types(&self) -> Result<(Vec<DescriptorProto>, Vec<EnumDescriptorProto>)> {
        let (mut messages, mut enums) = (Vec::new(), Vec::new());
        for item in self.items {
            match item {
                Item::Struct(item) if derives(&item.attrs, "Message") => {
                    let message = self.message(item);
                    messages.push(message.with_context(|| item.ident.to_string())?);
                }
                Item::Enum(item) if derives(&item.attrs, "Enumeration") => {
                    let one = self.enumeration(item);
                    enums.push(one.with_context(|| item.ident.to_string())?);
                }
                _ => {}
            }
        }
        Ok((messages, enums))
    }

    fn below(&self, module: &str) -> Scope<'a> {
        Scope {
            module: format!("{}::{module}", self.module),
            items: inside(self.items, module).unwrap_or_default(),
            names: self.names,
        }
    }

    fn message(&self, item: &ItemStruct) -> Result<DescriptorProto> {
        let ident = plain(&item.ident);
        let inner = self.below(&snake(&ident));
        let (nested_type, enum_type) = inner.types()?;
        let mut message = DescriptorProto {
            name: Some(ident),
            nested_type,
            enum_type,
            ..DescriptorProto::default()
        };
        let mut optional = Vec::new();
        for field in &item.fields {
            let name = plain(field.ident.as_ref().context("a field has no name")?);
            let at = || format!("field {name}");
            let attr = Attr::read(&field.attrs).with_context(at)?;
            if let Some(path) = &attr.oneof {
                let group = i32::try_from(message.oneof_decl.len())?;
                message.oneof_decl.push(oneof(&name));
                for mut member in self.members(path).with_context(at)? {
                    member.oneof_index = Some(group);
                    message.field.push(member);
                }
                continue;
            }
            let field = self
                .field(&name, &attr, &field.ty, &mut message)
                .with_context(at)?;
            if field.proto3_optional == Some(true) {
                optional.push(message.field.len());
            }
            message.field.push(field);
        }
        // An optional scalar is a oneof of one; those come after the real ones.
        for at in optional {
            let group = i32::try_from(message.oneof_decl.len())?;
            let field = &mut message.field[at];
            field.oneof_index = Some(group);
            let name = format!("_{}", field.name());
            message.oneof_decl.push(oneof(&name));
        }
        Ok(message)
    }

    /// The fields of a oneof.
    fn members(&self, path: &str) -> Result<Vec<FieldDescriptorProto>> {
        let (module, ident) = path.split_once("::").context("a oneof in no module")?;
        let scope = self.below(module);
        let found = scope.items.iter().find_map(|item| match item {
            Item::Enum(item) if plain(&item.ident) == ident => Some(item),
            _ => None,
        });
        let mut none = DescriptorProto::default();
        found
            .with_context(|| format!("there is no oneof {path}"))?
            .variants
            .iter()
            .map(|variant| {
                let name = snake(&plain(&variant.ident));
                let attr = Attr::read(&variant.attrs)?;
                let ty = &variant.fields.iter().next().context("it holds nothing")?.ty;
                let mut field = scope.field(&name, &attr, ty, &mut none)?;
                field.proto3_optional = None;
                Ok(field)
            })
            .collect()
    }

    fn field(
        &self,
        name: &str,
        attr: &Attr,
        ty: &syn::Type,
        message: &mut DescriptorProto,
    ) -> Result<FieldDescriptorProto> {
        let tag = attr.tag.context("it has no tag")?;
        if let Some(map) = &attr.map {
            let (key, value) = map.split_once(',').context("a map of one thing")?;
            let entry = format!("{}Entry", camel(name));
            let full = self
                .names
                .get(&format!("{}::{}", self.module, message.name()));
            let full = full.context("a map in no message")?;
            let value = self.typed("value", 2, value.trim(), || Ok(last_argument(ty)?.clone()))?;
            let key = self.typed("key", 1, key.trim(), || bail!("a message as a key"))?;
            message.nested_type.push(DescriptorProto {
                name: Some(entry.clone()),
                field: vec![key, value],
                options: Some(MessageOptions {
                    map_entry: Some(true),
                    ..MessageOptions::default()
                }),
                ..DescriptorProto::default()
            });
            return Ok(FieldDescriptorProto {
                name: Some(name.to_owned()),
                number: Some(tag),
                label: Some(Label::Repeated.into()),
                r#type: Some(Type::Message.into()),
                type_name: Some(format!(".{full}.{entry}")),
                ..FieldDescriptorProto::default()
            });
        }
        let mut field = self.typed(name, tag, &attr.kind, || Ok(innermost(ty)?.clone()))?;
        if attr.repeated {
            field.label = Some(Label::Repeated.into());
        } else if attr.optional && field.r#type() != Type::Message {
            field.proto3_optional = Some(true);
        }
        Ok(field)
    }

    /// A field of one of prost's kinds; `message` tells the type of a message.
    fn typed(
        &self,
        name: &str,
        tag: i32,
        kind: &str,
        message: impl FnOnce() -> Result<syn::Type>,
    ) -> Result<FieldDescriptorProto> {
        let mut field = FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(tag),
            label: Some(Label::Optional.into()),
            ..FieldDescriptorProto::default()
        };
        let (ty, type_name) = match kind {
            "message" => (Type::Message, Some(self.message_name(&message()?)?)),
            kind if kind.starts_with("enumeration(") => {
                let path = kind
                    .trim_start_matches("enumeration(")
                    .trim_end_matches(')');
                (Type::Enum, Some(self.resolve(path.trim())?))
            }
            kind => (scalar(kind)?, None),
        };
        field.r#type = Some(ty.into());
        field.type_name = type_name.map(|name| format!(".{name}"));
        Ok(field)
    }

    /// The full name of a message by its Rust type. Wrappers are the bare types they wrap.
    fn message_name(&self, ty: &syn::Type) -> Result<String> {
        let text = ty.to_token_stream().to_string().replace(' ', "");
        let wrapper = match text.as_str() {
            "()" => Some("Empty"),
            "bool" => Some("BoolValue"),
            "i32" => Some("Int32Value"),
            "i64" => Some("Int64Value"),
            "u32" => Some("UInt32Value"),
            "u64" => Some("UInt64Value"),
            "f32" => Some("FloatValue"),
            "f64" => Some("DoubleValue"),
            "::prost::alloc::string::String" => Some("StringValue"),
            "::prost::bytes::Bytes" | "::prost::alloc::vec::Vec<u8>" => Some("BytesValue"),
            _ => None,
        };
        if let Some(wrapper) = wrapper {
            return Ok(format!("google.protobuf.{wrapper}"));
        }
        self.resolve(&text)
    }

    /// The full name of what a path in this module leads to.
    fn resolve(&self, path: &str) -> Result<String> {
        let path = path.replace("r#", "");
        if let Some(known) = path.strip_prefix("::prost_types::") {
            return Ok(format!("google.protobuf.{known}"));
        }
        let mut module: Vec<&str> = self.module.split("::").collect();
        let mut rest = path.as_str();
        while let Some(after) = rest.strip_prefix("super::") {
            module.pop().context("a path above the crate")?;
            rest = after;
        }
        module.push(rest);
        let whole = module.join("::");
        let found = self.names.get(&whole).cloned();
        found.with_context(|| format!("nothing is called {whole}"))
    }

    fn enumeration(&self, item: &ItemEnum) -> Result<EnumDescriptorProto> {
        let ident = plain(&item.ident);
        let written = self.written_names(&item.ident)?;
        let values = item.variants.iter().map(|variant| {
            let (_, number) = variant.discriminant.as_ref().context("it has no number")?;
            let variant = variant.ident.to_string();
            let name = written.get(&variant);
            Ok(EnumValueDescriptorProto {
                name: Some(
                    name.with_context(|| format!("{variant} has no name"))?
                        .clone(),
                ),
                number: Some(integer(number)?),
                ..EnumValueDescriptorProto::default()
            })
        });
        Ok(EnumDescriptorProto {
            name: Some(ident),
            value: values.collect::<Result<_>>()?,
            ..EnumDescriptorProto::default()
        })
    }

    /// The names of an enum's values, from the arms of its `as_str_name`.
    fn written_names(&self, of: &syn::Ident) -> Result<BTreeMap<String, String>> {
        let body = self.items.iter().find_map(|item| match item {
            Item::Impl(item) if *of == item.self_ty.to_token_stream().to_string() => {
                item.items.iter().find_map(|item| match item {
                    syn::ImplItem::Fn(f) if f.sig.ident == "as_str_name" => Some(&f.block),
                    _ => None,
                })
            }
            _ => None,
        });
        let body = body.context("it has no as_str_name")?;
        let [syn::Stmt::Expr(Expr::Match(arms), _)] = body.stmts.as_slice() else {
            bail!("as_str_name is no match");
        };
        let arms = arms.arms.iter().map(|arm| {
            let pattern = arm.pat.to_token_stream().to_string().replace(' ', "");
            let variant = pattern.rsplit("::").next().unwrap_or_default().to_owned();
            let name = strings(arm.body.to_token_stream()).pop();
            Ok((variant, name.context("an arm without a name")?))
        });
        arms.collect()
    }

    /// The RPCs of the client stubs in this package.
    fn stubs(&self, rpcs: &mut BTreeMap<String, Stub>) -> Result<()> {
        for item in self.items {
            let Item::Mod(module) = item else { continue };
            let module = plain(&module.ident);
            if !module.ends_with("_client") {
                continue;
            }
            let scope = self.below(&module);
            let functions = scope.items.iter().flat_map(|item| match item {
                Item::Impl(item) => item.items.as_slice(),
                _ => &[],
            });
            for item in functions {
                let syn::ImplItem::Fn(function) = item else {
                    continue;
                };
                if function.sig.asyncness.is_some() {
                    let (path, stub) = scope.stub(function).with_context(|| module.clone())?;
                    rpcs.insert(path, stub);
                }
            }
        }
        Ok(())
    }

    fn stub(&self, function: &syn::ImplItemFn) -> Result<(String, Stub)> {
        let path = strings(function.block.to_token_stream())
            .into_iter()
            .find(|text| text.starts_with('/') && text.matches('/').count() == 2)
            .context("a stub without a path")?;
        let request = function.sig.inputs.iter().find_map(|input| match input {
            FnArg::Typed(input) => Some(input.ty.to_token_stream().to_string().replace(' ', "")),
            FnArg::Receiver(_) => None,
        });
        let request = request.with_context(|| format!("{path} takes nothing"))?;
        // impl tonic::IntoRequest<super::X> or impl tonic::IntoStreamingRequest<Message=super::X>
        let client_streaming = request.contains("IntoStreamingRequest");
        let input = between(&request, '<', '>')?.trim_start_matches("Message=");
        let input = input.trim_end_matches(',');
        let response = function
            .sig
            .output
            .to_token_stream()
            .to_string()
            .replace(' ', "");
        // ->Result<tonic::Response<super::X>,..>, or ..Response<tonic::codec::Streaming<super::X>>..
        let (_, response) = response
            .split_once("Response<")
            .with_context(|| format!("{path} gives no response"))?;
        let server_streaming = response.contains("Streaming<");
        let output = match response.split_once("Streaming<") {
            Some((_, streamed)) => streamed,
            None => response,
        };
        let output = output.split('>').next().unwrap_or_default();
        let output = output.trim_end_matches(',');
        let stub = Stub {
            input: self.message_name(&syn::parse_str(input)?)?,
            output: self.message_name(&syn::parse_str(output)?)?,
            client_streaming,
            server_streaming,
        };
        Ok((path, stub))
    }
}

fn oneof(name: &str) -> OneofDescriptorProto {
    OneofDescriptorProto {
        name: Some(name.to_owned()),
        ..OneofDescriptorProto::default()
    }
}

/// A `#[prost(...)]` attribute.
#[derive(Debug, Default)]
struct Attr {
    tag: Option<i32>,
    kind: String,
    map: Option<String>,
    oneof: Option<String>,
    optional: bool,
    repeated: bool,
}

impl Attr {
    fn read(attrs: &[syn::Attribute]) -> Result<Self> {
        let attr = attrs.iter().find(|attr| attr.path().is_ident("prost"));
        let attr = attr.context("it has no prost attribute")?;
        let metas = attr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)?;
        let mut out = Self::default();
        for meta in metas {
            let key = meta.path().to_token_stream().to_string();
            let value = match &meta {
                Meta::NameValue(pair) => Some(text(&pair.value)?),
                _ => None,
            };
            match (key.as_str(), value) {
                ("tag", Some(number)) => out.tag = Some(number.parse()?),
                ("tags" | "packed", Some(_)) | ("boxed", None) => {}
                ("optional", None) => out.optional = true,
                ("repeated", None) => out.repeated = true,
                ("oneof", Some(path)) => out.oneof = Some(path),
                ("map" | "btree_map" | "hash_map", Some(pair)) => out.map = Some(pair),
                ("enumeration", Some(path)) => out.kind = format!("enumeration({path})"),
                ("bytes", _) => out.kind = "bytes".to_owned(),
                (kind, None) => out.kind = kind.to_owned(),
                (key, Some(value)) => bail!("#[prost({key} = \"{value}\")] is new"),
            }
        }
        Ok(out)
    }
}

fn scalar(kind: &str) -> Result<Type> {
    Ok(match kind {
        "double" => Type::Double,
        "float" => Type::Float,
        "int64" => Type::Int64,
        "uint64" => Type::Uint64,
        "int32" => Type::Int32,
        "fixed64" => Type::Fixed64,
        "fixed32" => Type::Fixed32,
        "bool" => Type::Bool,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "uint32" => Type::Uint32,
        "sfixed32" => Type::Sfixed32,
        "sfixed64" => Type::Sfixed64,
        "sint32" => Type::Sint32,
        "sint64" => Type::Sint64,
        other => bail!("'{other}' is no kind of field"),
    })
}

/// What an `Option`, `Vec` or `Box` holds, however deep; bytes are no container.
fn innermost(ty: &syn::Type) -> Result<&syn::Type> {
    let text = ty.to_token_stream().to_string().replace(' ', "");
    let outer = [
        "::core::option::Option<",
        "::prost::alloc::vec::Vec<",
        "::prost::alloc::boxed::Box<",
    ];
    if text == "::prost::alloc::vec::Vec<u8>" || !outer.iter().any(|o| text.starts_with(o)) {
        return Ok(ty);
    }
    innermost(last_argument(ty)?)
}

fn last_argument(ty: &syn::Type) -> Result<&syn::Type> {
    let syn::Type::Path(path) = ty else {
        bail!("a type that is no path");
    };
    let last = path.path.segments.last().context("an empty path")?;
    let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else {
        bail!("{} holds nothing", last.ident);
    };
    match arguments.args.last() {
        Some(syn::GenericArgument::Type(ty)) => Ok(ty),
        _ => bail!("{} holds no type", last.ident),
    }
}

fn text(expr: &Expr) -> Result<String> {
    match expr {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Ok(text.value()),
        _ => bail!("an attribute's value is no text"),
    }
}

fn integer(expr: &Expr) -> Result<i32> {
    let text = expr.to_token_stream().to_string().replace(' ', "");
    text.parse()
        .with_context(|| format!("'{text}' is no number"))
}

fn between(text: &str, open: char, close: char) -> Result<&str> {
    let found = text
        .split_once(open)
        .and_then(|(_, rest)| rest.rsplit_once(close));
    Ok(found
        .with_context(|| format!("'{text}' has no {open}{close}"))?
        .0)
}

/// All texts in quotes, in order.
fn strings(tokens: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => found.extend(strings(group.stream())),
            TokenTree::Literal(literal) => {
                if let Lit::Str(text) = Lit::new(literal) {
                    found.push(text.value());
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r##"
        #[derive(Clone, PartialEq, ::prost::Message)]
        pub struct HttpThing {
            #[prost(string, tag = "1")]
            pub r#type: ::prost::alloc::string::String,
            #[prost(btree_map = "string, message", tag = "2")]
            pub by_name: ::prost::alloc::collections::BTreeMap<
                ::prost::alloc::string::String, http_thing::Part,
            >,
            #[prost(enumeration = "http_thing::Kind", repeated, tag = "3")]
            pub kinds: ::prost::alloc::vec::Vec<i32>,
            #[prost(int32, optional, tag = "4")]
            pub count: ::core::option::Option<i32>,
            #[prost(message, optional, tag = "5")]
            pub wrapped: ::core::option::Option<::prost::alloc::string::String>,
            #[prost(message, optional, boxed, tag = "6")]
            pub again: ::core::option::Option<::prost::alloc::boxed::Box<HttpThing>>,
            #[prost(oneof = "http_thing::Choice", tags = "7, 8")]
            pub choice: ::core::option::Option<http_thing::Choice>,
        }
        pub mod http_thing {
            #[derive(Clone, Copy, PartialEq, ::prost::Message)]
            pub struct Part {}
            #[derive(Clone, Copy, Debug, ::prost::Enumeration)]
            #[repr(i32)]
            pub enum Kind { Unspecified = 0, Rather = -5 }
            impl Kind {
                pub fn as_str_name(&self) -> &'static str {
                    match self {
                        Self::Unspecified => "KIND_UNSPECIFIED",
                        Self::Rather => { "RATHER_LONG" }
                    }
                }
            }
            #[derive(Clone, PartialEq, ::prost::Oneof)]
            pub enum Choice {
                #[prost(message, tag = "7")]
                OfPart(Part),
                #[prost(bytes, tag = "8")]
                Raw(::prost::bytes::Bytes),
            }
        }
        pub mod things_client {
            impl<T> ThingsClient<T> {
                pub fn new(inner: T) -> Self {}
                pub async fn watch(
                    &mut self, request: impl tonic::IntoRequest<super::HttpThing>,
                ) -> std::result::Result<
                    tonic::Response<tonic::codec::Streaming<super::http_thing::Part>>, tonic::Status,
                > {
                    let path = http::uri::PathAndQuery::from_static("/a.v1.Things/Watch");
                }
                pub async fn send(
                    &mut self,
                    request: impl tonic::IntoStreamingRequest<
                        Message = super::HttpThing,
                    >,
                ) -> std::result::Result<tonic::Response<()>, tonic::Status> {
                    let path = http::uri::PathAndQuery::from_static("/a.v1.Things/Send");
                }
            }
        }
    "##;

    #[test]
    fn what_prost_wrote_is_read_back() {
        let package = Package {
            name: "a.v1".to_owned(),
            krate: "a".to_owned(),
            file: syn::parse_str(SOURCE).unwrap(),
        };
        let whole = recover(&[package]).unwrap();
        let message = &whole.packages["a.v1"].messages[0];
        assert_eq!(message.name(), "HttpThing");
        let field = |name: &str| message.field.iter().find(|f| f.name() == name).unwrap();
        assert_eq!(field("type").r#type(), Type::String);
        assert_eq!(field("by_name").type_name(), ".a.v1.HttpThing.ByNameEntry");
        assert_eq!(field("by_name").label(), Label::Repeated);
        assert_eq!(field("kinds").type_name(), ".a.v1.HttpThing.Kind");
        assert_eq!(field("wrapped").type_name(), ".google.protobuf.StringValue");
        assert_eq!(field("again").type_name(), ".a.v1.HttpThing");
        assert_eq!(field("of_part").type_name(), ".a.v1.HttpThing.Part");
        assert_eq!(field("of_part").oneof_index, Some(0));
        assert_eq!(field("raw").r#type(), Type::Bytes);
        assert!(field("count").proto3_optional());
        assert_eq!(field("count").oneof_index, Some(1));
        let oneofs: Vec<&str> = message.oneof_decl.iter().map(|o| o.name()).collect();
        assert_eq!(oneofs, ["choice", "_count"]);
        let kind = &message.enum_type[0];
        assert_eq!(kind.value[1].name(), "RATHER_LONG");
        assert_eq!(kind.value[1].number(), -5);
        let entry = message
            .nested_type
            .iter()
            .find(|m| m.name() == "ByNameEntry");
        assert_eq!(entry.unwrap().field[1].type_name(), ".a.v1.HttpThing.Part");
        let watch = &whole.rpcs["/a.v1.Things/Watch"];
        assert!(watch.server_streaming && !watch.client_streaming);
        assert_eq!(watch.output, "a.v1.HttpThing.Part");
        let send = &whole.rpcs["/a.v1.Things/Send"];
        assert!(send.client_streaming && !send.server_streaming);
        assert_eq!(send.output, "google.protobuf.Empty");
    }
}
