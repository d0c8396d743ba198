//! Templates of HTTP paths (`google/api/http.proto`, "Path template syntax"):
//! `/v1/{name=shelves/*/books/*}:verb`.

use std::fmt;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub(crate) segments: Vec<Segment>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) verb: Option<String>,
}

/// What one segment of a path must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// This text.
    Literal(String),
    /// Any one segment that is not empty.
    One,
    /// All that is left, which may be nothing. Only the last segment can be this.
    Rest,
}

/// A run of segments that becomes the value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    /// The path of the field in the request, `service.name`.
    pub(crate) field: String,
    /// Its first segment.
    pub(crate) first: usize,
    /// How many of the template's segments it has.
    pub(crate) count: usize,
}

impl Variable {
    /// Whether its value may hold slashes of its own, so that an escaped one must stay escaped.
    pub(crate) fn is_long(&self, template: &Template) -> bool {
        let segments = &template.segments[self.first..self.first + self.count];
        segments != [Segment::One]
    }
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError(&'static str);

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for TemplateError {}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When the text is none.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let rest = text
            .strip_prefix('/')
            .ok_or(TemplateError("it does not begin with /"))?;
        let (rest, verb) = match rest.rsplit_once(':') {
            Some((rest, verb)) if !verb.contains(['/', '}']) => (rest, Some(literal(verb)?)),
            _ => (rest, None),
        };
        let mut template = Self {
            segments: Vec::new(),
            variables: Vec::new(),
            verb,
        };
        let mut left = rest;
        loop {
            left = match left.strip_prefix('{') {
                Some(inside) => {
                    let (inside, after) = inside
                        .split_once('}')
                        .ok_or(TemplateError("a { is not closed"))?;
                    template.variable(inside)?;
                    after
                }
                None => {
                    let end = left.find('/').unwrap_or(left.len());
                    template.segment(&left[..end])?;
                    &left[end..]
                }
            };
            if left.is_empty() {
                break;
            }
            left = left
                .strip_prefix('/')
                .ok_or(TemplateError("a variable is only a part of a segment"))?;
        }
        let before_last = template.segments.iter().rev().skip(1);
        if before_last.into_iter().any(|s| *s == Segment::Rest) {
            return Err(TemplateError("** is not the last segment"));
        }
        Ok(template)
    }

    fn segment(&mut self, text: &str) -> Result<(), TemplateError> {
        self.segments.push(match text {
            "*" => Segment::One,
            "**" => Segment::Rest,
            text => Segment::Literal(literal(text)?),
        });
        Ok(())
    }

    fn variable(&mut self, text: &str) -> Result<(), TemplateError> {
        let (field, segments) = text.split_once('=').unwrap_or((text, "*"));
        let is_name = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if !field.split('.').all(is_name) {
            return Err(TemplateError("a variable is not the path of a field"));
        }
        let first = self.segments.len();
        for segment in segments.split('/') {
            self.segment(segment)?;
        }
        self.variables.push(Variable {
            field: field.to_owned(),
            first,
            count: self.segments.len() - first,
        });
        Ok(())
    }
}

fn literal(text: &str) -> Result<String, TemplateError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    if text.is_empty() || !text.bytes().all(plain) {
        return Err(TemplateError(
            "a segment is empty or has characters that must be escaped",
        ));
    }
    Ok(text.to_owned())
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at = 0;
        while at < self.segments.len() {
            f.write_str("/")?;
            match self.variables.iter().find(|v| v.first == at) {
                Some(variable) => {
                    write!(f, "{{{}=", variable.field)?;
                    for (i, segment) in self.segments[at..at + variable.count].iter().enumerate() {
                        write!(f, "{}{segment}", if i > 0 { "/" } else { "" })?;
                    }
                    f.write_str("}")?;
                    at += variable.count;
                }
                None => {
                    write!(f, "{}", self.segments[at])?;
                    at += 1;
                }
            }
        }
        match &self.verb {
            Some(verb) => write!(f, ":{verb}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Literal(text) => text,
            Self::One => "*",
            Self::Rest => "**",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn templates_are_read_and_wrong_ones_refused() {
        let template = Template::parse("/v1/{a.b=x/*/y/**}:go").unwrap();
        assert_eq!(template.verb.as_deref(), Some("go"));
        assert_eq!(template.segments.len(), 5);
        assert_eq!(template.variables[0].field, "a.b");
        assert_eq!(
            (template.variables[0].first, template.variables[0].count),
            (1, 4)
        );
        assert_eq!(Template::parse("/{x}").unwrap().to_string(), "/{x=*}");
        for wrong in [
            "",
            "v1",
            "/",
            "/a//b",
            "/{a",
            "/{}",
            "/{a=}",
            "/{a=b}c",
            "/**/x",
            "/{a=**}/x",
            "/a b",
            "/{a..b}",
            "/a:",
            "/a:b:",
            "/{a=b/{c}}",
        ] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[/{}=*:a-c.%]{0,40}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(Template::parse(&template.to_string()), Ok(template));
            }
        }
    }
}
