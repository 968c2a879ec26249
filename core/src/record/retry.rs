//! What is recorded of another try that is about to begin.

use serde::{Deserialize, Serialize};

use crate::id::ExecutionId;

/// Another try: it begins once what was done since is saved and undone. Nothing else starts in the workspace meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The execution that waits for it.
    pub execution: ExecutionId,
    /// What it is run instead of.
    pub superseded: Vec<ExecutionId>,
}
