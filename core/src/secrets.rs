//! The port [`Secrets`]: where secret values come from at launch. They are handed on, never recorded.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

use crate::action::SecretSource;
use crate::id::ExecutionId;
use crate::locator::OsBytes;

/// A secret has no value (any more).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no value for the secret {name}: {why}")]
pub struct SecretGone {
    /// The variable.
    pub name: String,
    /// Why its source gives none, for people; never anything of a value.
    pub why: String,
}

/// Resolves secrets.
///
/// # Contract
///
/// Values are not logged, printed or stored.
///
/// # Cancel safety
///
/// May be dropped and called again.
#[async_trait]
pub trait Secrets: fmt::Debug + Send + Sync + 'static {
    /// Returns the values of all of `wanted`.
    ///
    /// # Errors
    ///
    /// [`SecretGone`] names the first that has none.
    async fn resolve(
        &self,
        execution: ExecutionId,
        wanted: &BTreeMap<String, SecretSource>,
    ) -> Result<BTreeMap<String, OsBytes>, SecretGone>;
}
