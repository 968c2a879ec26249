//! What went wrong, for people and programs: kind, message, hint and exit code.

use std::fmt;

use windlass::api::client::ClientError;
use windlass::view::{ErrorBody, ErrorView};

/// What sort of failure it is; the exit code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It was tried and failed.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// There is no such thing.
    NotFound,
    /// It was refused, or conflicts with something.
    Refused,
    /// There is no host to ask.
    NoHost,
    /// The time to wait was up.
    TimedOut,
    /// Whoever read the output went away. Nothing is said about it.
    BrokenPipe,
}

impl Class {
    /// Returns the exit code. Verbs that end with an execution's code have codes of their own for their own failures.
    #[must_use]
    pub fn exit_code(self, ends_with_the_execution: bool) -> u8 {
        match (self, ends_with_the_execution) {
            (Self::Failed | Self::TimedOut, false) => 1,
            (Self::Usage, false) => 2,
            (Self::NotFound, false) => 3,
            (Self::Refused, false) => 4,
            (Self::NoHost, false) => 5,
            (Self::TimedOut, true) => 119,
            (Self::Usage, true) => 120,
            (Self::NoHost, true) => 121,
            (Self::Refused | Self::Failed, true) => 122,
            (Self::NotFound, true) => 123,
            (Self::BrokenPipe, false) => 0,
            // As if SIGPIPE had ended it: what becomes of the execution is not known here.
            (Self::BrokenPipe, true) => 141,
        }
    }
}

/// Why a verb was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    /// What sort of failure it is.
    pub class: Class,
    /// What to say.
    pub view: ErrorView,
}

impl CliError {
    /// Makes an error. Every error says what to do.
    pub fn new(
        class: Class,
        kind: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let view =
            ErrorView { kind: kind.to_owned(), message: message.into(), hint: Some(hint.into()) };
        Self { class, view }
    }

    /// Makes the error for a command line that makes no sense.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Class::Usage, "usage", message, hint)
    }

    /// Makes the error for something that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        let hint = "`windlass ps -a` and `windlass ls -a` list what there is";
        Self::new(Class::NotFound, "not_found", message, hint)
    }

    /// Makes the error for a failed operation of the system.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "check its owner and mode; `windlass doctor` checks the data directory"
            }
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "free some disk space; `windlass doctor` shows how much there is"
            }
            _ => "`windlass doctor` checks what Windlass needs",
        };
        Self::new(Class::Failed, "io", format!("failed to {what}: {error}"), hint)
    }

    /// Makes the error for a data directory that the system does not let be used. With [`CliError::from_start`] it is
    /// one rule: a data directory that cannot be used as it is, is refused, whoever found out.
    pub fn unusable(what: impl fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let (kind, hint) = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                ("full", "free some disk space; `windlass doctor` shows how much there is")
            }
            ErrorKind::PermissionDenied => (
                "data_directory",
                "check the owner and mode of the data directory, what is in it and what is above it, or name another one with --data-dir",
            ),
            ErrorKind::ReadOnlyFilesystem => (
                "data_directory",
                "its file system is mounted read-only: mount it for writing, or name another directory with --data-dir",
            ),
            ErrorKind::InvalidFilename => {
                ("data_directory", "name a directory with a shorter path with --data-dir")
            }
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => (
                "data_directory",
                "a part of its path is a file: name another directory with --data-dir",
            ),
            ErrorKind::NotFound => (
                "data_directory",
                "a link in its path leads nowhere, or nothing can be made there: name another directory with --data-dir",
            ),
            _ => (
                "data_directory",
                "`windlass doctor` checks the data directory; --data-dir names another one",
            ),
        };
        Self::new(Class::Refused, kind, format!("failed to {what}: {error}"), hint)
    }

    /// Makes the error for a host that could not be started, from what it said: there is none, unless it is the data
    /// directory that cannot be used.
    #[must_use]
    pub fn from_start(view: ErrorView) -> Self {
        let class =
            if UNUSABLE.contains(&view.kind.as_str()) { Class::Refused } else { Class::NoHost };
        Self { class, view }
    }

    /// Makes the error for a failed write to standard output or error.
    pub fn output(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::new(Class::BrokenPipe, "broken_pipe", "nobody reads the output", "");
        }
        Self::io("write the output", error)
    }

    /// Prints it on standard error.
    pub fn print(&self, as_json: bool) {
        if self.class == Class::BrokenPipe {
            return;
        }
        let mut text = String::new();
        self.write(as_json, &mut text);
        // There is nowhere left to say that standard error is gone.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    }

    fn write(&self, as_json: bool, out: &mut String) {
        if as_json {
            let body = ErrorBody { error: self.view.clone() };
            // The view has string keys only and cannot fail to be encoded.
            out.push_str(&serde_json::to_string(&body).unwrap_or_default());
            out.push('\n');
            return;
        }
        out.push_str("windlass: ");
        out.push_str(&self.view.message);
        out.push('\n');
        if let Some(hint) = &self.view.hint {
            out.push_str("  hint: ");
            out.push_str(hint);
            out.push('\n');
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.view.message)
    }
}

impl std::error::Error for CliError {}

/// The kinds that say that a data directory cannot be used as it is.
const UNUSABLE: [&str; 11] = [
    "copied",
    "damaged",
    "data_directory",
    "full",
    "host_exists",
    "moved",
    "newer_format",
    "not_a_data_directory",
    "other_kind",
    "other_user",
    "store",
];

/// Returns what sort of failure a kind of the API is.
fn class_of(kind: &str) -> Class {
    match kind {
        "not_found" | "no_snapshot" => Class::NotFound,
        "invalid" | "usage" => Class::Usage,
        "no_host" | "closing" | "superseded" | "api_version" => Class::NoHost,
        "backend" | "io" => Class::Failed,
        _ => Class::Refused,
    }
}

impl From<ErrorView> for CliError {
    fn from(view: ErrorView) -> Self {
        Self { class: class_of(&view.kind), view }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Api { view, .. } => view.into(),
            ClientError::NoHost { view } => Self::from_start(view),
            ClientError::Lost { .. } => Self::new(
                Class::NoHost,
                "no_host",
                error.to_string(),
                "it may have been carried out; ask again with the same --key, which changes nothing then",
            ),
            ClientError::Protocol { .. } => Self::new(
                Class::Failed,
                "protocol",
                error.to_string(),
                "use the host's version of windlass, or end the host: windlass host stop",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_contract() {
        let all = [
            Class::Failed,
            Class::Usage,
            Class::NotFound,
            Class::Refused,
            Class::NoHost,
            Class::TimedOut,
        ];
        assert_eq!(all.map(|class| class.exit_code(false)), [1, 2, 3, 4, 5, 1]);
        assert_eq!(all.map(|class| class.exit_code(true)), [122, 120, 123, 122, 121, 119]);
    }

    #[test]
    fn errors_are_printed_with_what_to_do() {
        let error = CliError::not_found("attempt \"x\" not found");
        let (mut text, mut json) = (String::new(), String::new());
        error.write(false, &mut text);
        error.write(true, &mut json);
        assert!(text.starts_with("windlass: attempt \"x\" not found\n  hint: "), "{text}");
        let body: ErrorBody = serde_json::from_str(&json).unwrap();
        assert_eq!(body.error, error.view);
    }

    #[test]
    fn an_unusable_data_directory_is_refused_whoever_found_out() {
        for kind in UNUSABLE {
            let view = ErrorView { kind: kind.to_owned(), message: String::new(), hint: None };
            let said_by_the_host: CliError = ClientError::NoHost { view: view.clone() }.into();
            assert_eq!(said_by_the_host.class, Class::Refused, "{kind}");
            assert_eq!(CliError::from(view).class, Class::Refused, "{kind}");
        }
        let view = ErrorView { kind: "backend".to_owned(), message: String::new(), hint: None };
        assert_eq!(CliError::from(ClientError::NoHost { view }).class, Class::NoHost);
    }

    #[test]
    fn kinds_of_the_api_have_a_class() {
        let classes = ["not_found", "branch_exists", "invalid", "closing", "backend"].map(class_of);
        let expected =
            [Class::NotFound, Class::Refused, Class::Usage, Class::NoHost, Class::Failed];
        assert_eq!(classes, expected);
    }
}
