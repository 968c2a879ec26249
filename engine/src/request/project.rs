//! What is asked for about projects.

use serde::{Deserialize, Deserializer, Serialize};
use windlass_core::locator::Locator;
use windlass_core::record::CommitPolicy;

/// A new project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectRequest {
    /// Any directory in the repository.
    pub repo: Locator,
    /// Its name and defaults; without a name it is called as the directory of its checkout is.
    #[serde(flatten)]
    pub with: ProjectChange,
}

/// What is to be said of a project. What is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectChange {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The base of new attempts; null is what HEAD names.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub base: Option<Option<String>>,
    /// The script that prepares a new workspace; null is none.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub setup: Option<Option<String>>,
    /// The script that tidies up after the work; null is none.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<Option<String>>,
    /// The script that serves while people look; null is none.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub dev: Option<Option<String>>,
    /// Ignored files to copy into new worktrees: globs as in `.gitignore`, in place of those that there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<Vec<String>>,
    /// What happens to changes when a chain ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitPolicy>,
}

/// Tells null from nothing at all.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_stays_and_what_is_null_goes() {
        let change: ProjectChange =
            serde_json::from_str(r#"{"base":null,"setup":"make"}"#).unwrap();
        assert_eq!(change.base, Some(None));
        assert_eq!(change.setup, Some(Some("make".to_owned())));
        assert_eq!(change.cleanup, None);
        let text = serde_json::to_string(&change).unwrap();
        assert_eq!(serde_json::from_str::<ProjectChange>(&text).unwrap(), change, "{text}");
        let request: ProjectRequest =
            serde_json::from_str(r#"{"repo":"/r","name":"n","dev":null,"copy":[".env"]}"#).unwrap();
        assert_eq!((request.with.dev, request.with.base), (Some(None), None));
    }
}
