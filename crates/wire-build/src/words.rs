//! How protobuf's names become Rust's, and back.

/// `HttpGetAction` to `http_get_action`, as prost names modules and fields.
pub(crate) fn snake(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len() + 4);
    for (i, &c) in chars.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| chars[i]);
        let starts = c.is_uppercase()
            && before.is_some_and(|b| {
                b.is_lowercase()
                    || b.is_ascii_digit()
                    || b.is_uppercase() && chars.get(i + 1).is_some_and(|n| n.is_lowercase())
            });
        if starts {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// `limits_by_name` to `LimitsByName`.
pub(crate) fn camel(name: &str) -> String {
    name.split('_')
        .map(|word| {
            let mut chars = word.chars();
            let first = chars.next().map(|c| c.to_ascii_uppercase());
            first.into_iter().chain(chars).collect::<String>()
        })
        .collect()
}

/// A Rust identifier without what keeps it apart from keywords.
pub(crate) fn plain(ident: &syn::Ident) -> String {
    let text = ident.to_string();
    let text = text.strip_prefix("r#").unwrap_or(&text);
    match text {
        "self_" | "super_" | "crate_" | "extern_" | "Self_" => {
            text.trim_end_matches('_').to_owned()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_change_case() {
        for (from, to) in [
            ("HttpGet", "http_get"),
            ("VpcAccess", "vpc_access"),
            ("URLMap", "url_map"),
            ("Crc32c", "crc32c"),
            ("V2Only", "v2_only"),
        ] {
            assert_eq!(snake(from), to);
        }
        assert_eq!(camel("limits_by_name"), "LimitsByName");
    }
}
