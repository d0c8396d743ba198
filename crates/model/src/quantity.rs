//! Kubernetes quantities for CPU and memory (`1`, `500m`, `512Mi`, `2G`), parsed to millicores and
//! bytes, and written back in canonical form.

/// Parses a CPU quantity to millicores. `None` when it is not a quantity, not a whole number of
/// millicores, or out of range.
#[must_use]
pub fn parse_cpu(text: &str) -> Option<u32> {
    let (number, scale) = match text.strip_suffix('m') {
        Some(number) => (number, 1),
        None => (text, 1000),
    };
    let value = parse_scaled(number, scale)?;
    u32::try_from(value).ok()
}

/// Writes millicores as gcloud and Cloud Run do: `1`, `2`, `500m`, `1500m`.
#[must_use]
pub fn format_cpu(millis: u32) -> String {
    if millis.is_multiple_of(1000) {
        (millis / 1000).to_string()
    } else {
        format!("{millis}m")
    }
}

/// Parses a memory quantity to bytes. `None` when it is not a quantity or out of range.
#[must_use]
pub fn parse_memory(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 10] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("K", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("", 1),
    ];
    UNITS
        .iter()
        .find_map(|(suffix, scale)| parse_scaled(text.strip_suffix(suffix)?, *scale))
}

/// Writes bytes in the largest binary unit that divides them: `512Mi`, `1Gi`.
#[must_use]
pub fn format_memory(bytes: u64) -> String {
    for (suffix, scale) in [("Gi", 1_u64 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(scale) {
            return format!("{}{suffix}", bytes / scale);
        }
    }
    bytes.to_string()
}

/// `number * scale` where number is a decimal such as `1`, `0.5` or `.25`; exact or nothing.
fn parse_scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty())
        || !digits(whole)
        || !digits(fraction)
        || fraction.len() > 9
    {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut value = whole.checked_mul(scale)?;
    if !fraction.is_empty() {
        let parts = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
        let scaled = fraction.parse::<u64>().ok()?.checked_mul(scale)?;
        if !scaled.is_multiple_of(parts) {
            return None;
        }
        value = value.checked_add(scaled / parts)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu() {
        for (text, millis) in [
            ("1", Some(1000)),
            ("1000m", Some(1000)),
            ("0.5", Some(500)),
            (".08", Some(80)),
            ("2.0", Some(2000)),
            ("1.5", Some(1500)),
            ("0.0001", None),
            ("", None),
            (".", None),
            ("-1", None),
            ("one", None),
            ("1 ", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_cpu(text), millis, "{text}");
        }
        assert_eq!(format_cpu(1000), "1");
        assert_eq!(format_cpu(80), "80m");
    }

    #[test]
    fn memory() {
        for (text, bytes) in [
            ("512Mi", Some(512 << 20)),
            ("1Gi", Some(1 << 30)),
            ("1G", Some(1_000_000_000)),
            ("0.5Gi", Some(512 << 20)),
            ("1024", Some(1024)),
            ("1Kb", None),
            ("Mi", None),
            ("", None),
            ("1e3", None),
        ] {
            assert_eq!(parse_memory(text), bytes, "{text}");
        }
        assert_eq!(format_memory(512 << 20), "512Mi");
        assert_eq!(format_memory(1_000_000_000), "1000000000");
    }
}
