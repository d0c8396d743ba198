//! What nobody can guess and nothing else has.

use lauf_model::{Code, Status};

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Status> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        Status::new(
            Code::Unavailable,
            format!("The system gives no randomness: {error}."),
        )
    })?;
    Ok(bytes)
}

/// A name that belongs to nothing else.
pub(crate) fn uid() -> Result<String, Status> {
    Ok(format!("{:032x}", u128::from_be_bytes(random()?)))
}
