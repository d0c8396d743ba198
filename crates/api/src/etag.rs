//! Etags: opaque to clients, compared by their bytes, because gcloud sends an IAM policy's etag
//! back in another alphabet of base64 than it came in.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use lauf_store::Version;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// The etag of a version; zero is that of something that was never written.
pub(crate) fn of_version(version: Version) -> String {
    base64::engine::general_purpose::STANDARD.encode(version.get().to_be_bytes())
}

/// The version that [`of_version`] wrote, in either alphabet, padded or not.
pub(crate) fn version(text: &str) -> Option<Version> {
    let bytes = bytes(text)?;
    Some(Version::new(u64::from_be_bytes(bytes.try_into().ok()?)))
}

/// The bytes of base64 in either alphabet, padded or not.
pub(crate) fn bytes(text: &str) -> Option<Vec<u8>> {
    [&STANDARD, &URL_SAFE]
        .into_iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, LENIENT).decode(text).ok())
}
