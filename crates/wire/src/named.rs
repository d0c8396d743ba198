//! Messages that know what they are called, and so their descriptor and their form inside an `Any`.

use prost::Message;
use prost_reflect::DynamicMessage;
use prost_types::Any;

const PREFIX: &str = "type.googleapis.com/";

/// A top-level message of [`crate::google`].
pub trait Named: Message + Default {
    /// Its full name, such as `google.cloud.run.v2.Service`.
    const NAME: &'static str;
}

/// The message with its descriptor, for what is done by name at run time.
pub fn dynamic<M: Named>(message: &M) -> DynamicMessage {
    let descriptor = crate::pool().get_message_by_name(M::NAME);
    let descriptor = descriptor.expect("whatever is named is in the pool");
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic
        .transcode_from(message)
        .expect("both forms are of one definition");
    dynamic
}

/// The way back from [`dynamic`].
pub fn typed<M: Named>(message: &DynamicMessage) -> M {
    message
        .transcode_to()
        .expect("both forms are of one definition")
}

/// A message inside an `Any`.
pub fn pack<M: Named>(message: &M) -> Any {
    Any {
        type_url: format!("{PREFIX}{}", M::NAME),
        value: message.encode_to_vec(),
    }
}

/// The message inside an `Any`, if it is one of that type.
pub fn unpack<M: Named>(any: &Any) -> Option<M> {
    let (_, name) = any.type_url.rsplit_once('/')?;
    (name == M::NAME).then(|| M::decode(any.value.as_slice()).ok())?
}
