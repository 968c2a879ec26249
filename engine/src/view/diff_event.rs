//! What is told of a diff that is followed.

use serde::{Deserialize, Serialize};
use windlass_core::diff_watch::{DiffEvent, ToldDiff};
use windlass_core::locator::{Locator, OsBytes};
use windlass_core::workspace::Oid;

use super::DiffFileView;

/// One event of a diff that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffEventView {
    /// Where to go on after it.
    pub cursor: String,
    /// What happened.
    #[serde(flatten)]
    pub event: DiffEventKind,
}

/// What happened to a diff that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DiffEventKind {
    /// Everything that was told before is void.
    Began {
        /// Which generation; later ones have larger numbers.
        generation: u64,
        /// The merge base.
        base: Oid,
        /// The branch that HEAD names; null if it is detached.
        branch: Option<String>,
    },
    /// A file differs like this now.
    File {
        /// The file.
        file: DiffFileView,
        /// The part of the patch that is about it; null for what is too large.
        patch: Option<OsBytes>,
    },
    /// The file at this path does not differ any more.
    Removed {
        /// The path.
        path: Locator,
    },
    /// Everything that was seen is told.
    Current {
        /// The commit that HEAD names.
        head: Oid,
        /// How many directories cannot be watched.
        unwatched: u64,
    },
}

impl From<ToldDiff> for DiffEventView {
    fn from(told: ToldDiff) -> Self {
        let event = match told.event {
            DiffEvent::Began { generation, base, branch } => {
                DiffEventKind::Began { generation, base, branch }
            }
            DiffEvent::File { file, patch } => DiffEventKind::File {
                file: file.into(),
                patch: patch.map(|patch| OsBytes(patch.to_vec())),
            },
            DiffEvent::Removed { path } => DiffEventKind::Removed { path },
            DiffEvent::Current { head, unwatched } => DiffEventKind::Current { head, unwatched },
        };
        Self { cursor: told.cursor.to_string(), event }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use windlass_core::vcs_worktree::ChangeKind;

    use super::*;

    /// Checks that an event has exactly the fields that the schema lists for its kind, and can be read back.
    #[track_caller]
    fn check(event: DiffEventKind, expected: &Value) {
        let view = DiffEventView { cursor: "1.2.3".to_owned(), event };
        let told = serde_json::to_value(&view).unwrap();
        assert_eq!(&told, expected);
        assert_eq!(serde_json::from_value::<DiffEventView>(told).unwrap(), view);
        let schema: Value =
            serde_json::from_str(include_str!("../../../docs/schema/diff-event.json")).unwrap();
        let kinds = schema["oneOf"].as_array().unwrap();
        let kind = |kind: &&Value| kind["properties"]["event"]["const"] == expected["event"];
        let listed = &kinds.iter().find(kind).unwrap()["properties"];
        let names = |value: &Value| -> Vec<String> {
            let mut names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        assert_eq!(names(listed), names(expected));
    }

    #[test]
    fn events_are_as_their_schema_says() {
        let oid = || Oid("a".repeat(40));
        let began = DiffEventKind::Began { generation: 7, base: oid(), branch: None };
        let a = "a".repeat(40);
        check(
            began,
            &json!({"cursor": "1.2.3", "event": "began", "generation": 7, "base": a, "branch": null}),
        );
        let file = DiffFileView {
            path: Locator::new(*b"p"),
            old_path: None,
            change: ChangeKind::Added,
            added: Some(1),
            removed: Some(0),
            mode: None,
            untracked: true,
            too_large: false,
        };
        let shown = serde_json::to_value(&file).unwrap();
        let patch = Some(OsBytes(b"diff \xff".to_vec()));
        check(
            DiffEventKind::File { file, patch },
            &json!({"cursor": "1.2.3", "event": "file", "file": shown, "patch": {"base64": "ZGlmZiD/"}}),
        );
        let path = Locator::new(*b"p");
        check(
            DiffEventKind::Removed { path },
            &json!({"cursor": "1.2.3", "event": "removed", "path": "p"}),
        );
        check(
            DiffEventKind::Current { head: oid(), unwatched: 2 },
            &json!({"cursor": "1.2.3", "event": "current", "head": a, "unwatched": 2}),
        );
    }
}
