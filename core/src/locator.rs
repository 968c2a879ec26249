//! Locators: where something is, as a value that backends share.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names a place in terms of the backend that made it.
///
/// The local backends put the bytes of an absolute path in it; a remote one may put something else. Core never looks
/// inside. Serialized as a string if it is UTF-8, else as `{"base64": "…"}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locator(Vec<u8>);

impl Locator {
    /// Wraps the bytes of a locator.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Bytes that are a string where they can be.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum TextOrBase64 {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Base64 {
        /// Standard alphabet, padded.
        base64: String,
    },
}

impl TextOrBase64 {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        use base64::Engine as _;
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => {
                Self::Base64 { base64: base64::engine::general_purpose::STANDARD.encode(bytes) }
            }
        }
    }

    pub(crate) fn into_bytes(self) -> Result<Vec<u8>, base64::DecodeError> {
        use base64::Engine as _;
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Base64 { base64 } => base64::engine::general_purpose::STANDARD.decode(base64),
        }
    }
}

impl Serialize for Locator {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TextOrBase64::from_bytes(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Locator {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = TextOrBase64::deserialize(deserializer)?.into_bytes();
        bytes.map(Self).map_err(D::Error::custom)
    }
}

/// A string of bytes that need not be UTF-8: an argument, a variable's value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OsBytes(pub Vec<u8>);

impl fmt::Debug for OsBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl From<&str> for OsBytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for OsBytes {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl Serialize for OsBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TextOrBase64::from_bytes(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OsBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = TextOrBase64::deserialize(deserializer)?.into_bytes();
        bytes.map(Self).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_text_survive_json() {
        for bytes in [b"/srv/x".to_vec(), vec![0x2f, 0xff, 0xfe]] {
            let locator = Locator::new(bytes);
            let json = serde_json::to_string(&locator).unwrap();
            assert_eq!(serde_json::from_str::<Locator>(&json).unwrap(), locator, "{json}");
        }
    }
}
