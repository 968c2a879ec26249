//! The settings of a data directory: `settings.toml`, read when the host starts.

use std::path::Path;
use std::time::Duration;

use windlass::config::Config;

use crate::config::{DataDir, replace, show};
use crate::duration::{self, millis};
use crate::error::{Class, CliError};

/// The settings that there are.
pub const SETTINGS: [Setting; 21] = [
    Setting {
        name: "limits.per_owner",
        default: "8",
        kind: Kind::Count,
        about: "executions that run at once for one named owner; runs without an owner only count for the host",
    },
    Setting {
        name: "limits.per_host",
        default: "32",
        kind: Kind::Count,
        about: "executions that run at once",
    },
    Setting {
        name: "limits.dev_servers",
        default: "16",
        kind: Kind::Count,
        about: "dev servers that run at once; they take no slot of other executions",
    },
    Setting {
        name: "limits.queue",
        default: "10000",
        kind: Kind::Count,
        about: "executions that may wait for a slot",
    },
    Setting {
        name: "ports.first",
        default: "20000",
        kind: Kind::Port,
        about: "the first of the ports that attempts get, ten each (WINDLASS_PORT_BASE)",
    },
    Setting {
        name: "ports.blocks",
        default: "1000",
        kind: Kind::Count,
        about: "how many attempts get ports of their own, as far as there are ports; more of them share",
    },
    Setting {
        name: "attachments.file_bytes",
        default: "67108864",
        kind: Kind::Bytes { least: 0 },
        about: "most that a file may have that is attached to a run or a message",
    },
    Setting {
        name: "attachments.attempt_bytes",
        default: "268435456",
        kind: Kind::Bytes { least: 0 },
        about: "most that all files may have that are attached to an attempt",
    },
    Setting {
        name: "stop_grace",
        default: "5s",
        kind: Kind::Duration,
        about: "from TERM to KILL, where a stop does not say",
    },
    Setting {
        name: "background_timeout",
        default: "30m",
        kind: Kind::DurationOrNone,
        about: "how long what `exec` starts may run, in the foreground too, where it does not say",
    },
    Setting {
        name: "log_cap_bytes",
        default: "1073741824",
        kind: Kind::Bytes { least: 64 << 10 },
        about: "most that one execution's log keeps: its beginning and its end",
    },
    Setting {
        name: "disk_floor_bytes",
        default: "1073741824",
        kind: Kind::Bytes { least: 0 },
        about: "free disk space below which nothing new is started",
    },
    Setting {
        name: "git_timeout",
        default: "10m",
        kind: Kind::PositiveDuration,
        about: "how long a commit may take, hooks included",
    },
    Setting {
        name: "worktrees.branch_prefix",
        default: "windlass/",
        kind: Kind::BranchPrefix,
        about: "what the names of new branches begin with",
    },
    Setting {
        name: "cleanup.idle",
        default: "72h",
        kind: Kind::DurationOrNone,
        about: "how long nothing happens in a worktree before it is saved and removed; counted while a host runs",
    },
    Setting {
        name: "cleanup.orphans",
        default: "24h",
        kind: Kind::DurationOrNone,
        about: "the same for a worktree of ours that no record speaks of",
    },
    Setting {
        name: "snapshots.keep",
        default: "none",
        kind: Kind::DurationOrNone,
        about: "how long a snapshot is kept after its worktree was removed; counted while a host runs",
    },
    Setting {
        name: "snapshots.quota_bytes",
        default: "10737418240",
        kind: Kind::Bytes { least: 0 },
        about: "most that all snapshots take; beyond, worktrees with unsaved work are not removed",
    },
    Setting {
        name: "idle_exit",
        default: "10m",
        kind: Kind::DurationOrNone,
        about: "how long a host without anything to do stays",
    },
    Setting {
        name: "commit.name",
        default: "Windlass",
        kind: Kind::Text,
        about: "who commits where git has no user.name",
    },
    Setting {
        name: "commit.email",
        default: "windlass@localhost",
        kind: Kind::Text,
        about: "who commits where git has no user.email",
    },
];

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Its default.
    pub default: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// What it is for, for people.
    pub about: &'static str,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number of things, at least 1.
    Count,
    /// A number of a port that needs no privilege.
    Port,
    /// A number of bytes.
    Bytes {
        /// The smallest.
        least: u64,
    },
    /// A duration.
    Duration,
    /// A duration above 0.
    PositiveDuration,
    /// A duration or `none`.
    DurationOrNone,
    /// The beginning of a branch's name.
    BranchPrefix,
    /// Printable text.
    Text,
}

impl Setting {
    /// Finds a setting by its name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn named(name: &str) -> Result<Self, CliError> {
        SETTINGS.into_iter().find(|setting| setting.name == name).ok_or_else(|| {
            let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
            CliError::new(
                Class::NotFound,
                "not_found",
                format!("there is no setting {name:?}"),
                format!("the settings are {}", names.join(", ")),
            )
        })
    }

    /// Checks a value.
    ///
    /// # Errors
    ///
    /// It is none for this setting.
    pub fn check(self, value: &str) -> Result<(), CliError> {
        let is_fit = match self.kind {
            Kind::Count => value.parse::<u32>().is_ok_and(|count| count > 0),
            Kind::Port => value.parse::<u16>().is_ok_and(|port| port >= 1_024),
            Kind::Bytes { least } => value.parse::<u64>().is_ok_and(|bytes| bytes >= least),
            Kind::Duration => duration::parse(value).is_ok(),
            Kind::PositiveDuration => duration::parse_positive(value).is_ok(),
            Kind::DurationOrNone => value == "none" || duration::parse_positive(value).is_ok(),
            Kind::BranchPrefix => {
                let fit = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '/');
                let begins_well = value.chars().next().is_some_and(char::is_alphanumeric);
                begins_well && value.len() <= 64 && value.chars().all(fit) && !value.contains("//")
            }
            Kind::Text => {
                let bad = |c: char| c.is_control() || matches!(c, '"' | '\\' | '<' | '>');
                !value.trim().is_empty() && value.len() <= 256 && !value.chars().any(bad)
            }
        };
        if is_fit {
            return Ok(());
        }
        let expected = match self.kind {
            Kind::Count => "a number from 1 on".to_owned(),
            Kind::Port => "a port from 1024 to 65535".to_owned(),
            Kind::Bytes { least } => format!("a number of bytes from {least} on"),
            Kind::Duration => "a duration: 0s, 500ms, 30s, 5m, 2h".to_owned(),
            Kind::PositiveDuration => "a duration above 0: 500ms, 30s, 5m, 2h".to_owned(),
            Kind::DurationOrNone => "a duration above 0 (500ms, 30s, 5m, 2h) or none".to_owned(),
            Kind::BranchPrefix => {
                "letters, digits, -, _ and /, for example windlass/ or me-".to_owned()
            }
            Kind::Text => {
                "1 to 256 bytes of text without quotes, backslashes and angle brackets".to_owned()
            }
        };
        Err(CliError::usage(
            format!("{value:?} is no value for {}", self.name),
            format!("it is {expected}"),
        ))
    }
}

/// What is set, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: Vec<(Setting, String)>,
}

impl Settings {
    /// Reads the settings of a data directory.
    ///
    /// # Errors
    ///
    /// They cannot be read, or one of them makes no sense.
    pub fn read(data: &DataDir) -> Result<Self, CliError> {
        let path = data.settings();
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(CliError::unusable(format!("read {}", show(&path)), &error)),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, CliError> {
        let damaged = |what: &dyn std::fmt::Display| {
            CliError::new(
                Class::Refused,
                "damaged",
                format!("{} is damaged: {what}", show(path)),
                "repair it or remove it; without it the defaults count",
            )
        };
        let table: std::collections::BTreeMap<String, String> =
            toml::from_str(text).map_err(|error| damaged(&error.message()))?;
        let mut settings = Self::default();
        for (name, value) in table {
            settings.set(&name, &value).map_err(|error| damaged(&error))?;
        }
        Ok(settings)
    }

    /// Returns a setting's value and whether it is the default.
    #[must_use]
    pub fn get(&self, setting: Setting) -> (&str, bool) {
        let set = self.values.iter().find(|(have, _)| *have == setting);
        set.map_or((setting.default, true), |(_, value)| (value, false))
    }

    /// Changes a setting.
    ///
    /// # Errors
    ///
    /// There is no such setting, or the value is none for it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), CliError> {
        let setting = Setting::named(name)?;
        setting.check(value)?;
        self.unset(setting);
        self.values.push((setting, value.to_owned()));
        Ok(())
    }

    /// Goes back to the default.
    pub fn unset(&mut self, setting: Setting) {
        self.values.retain(|(have, _)| *have != setting);
    }

    /// Writes the settings.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn write(&self, data: &DataDir) -> Result<(), CliError> {
        replace(&data.path, "settings.toml", &self.text()).map_err(|error| {
            CliError::unusable(format!("write {}", show(&data.settings())), &error)
        })
    }

    /// Returns the text of the file. Values need no escapes: [`Setting::check`] sees to it.
    fn text(&self) -> String {
        let mut text =
            "# Written by `windlass config`; counts from the next start of the host on.\n"
                .to_owned();
        for (setting, value) in &self.values {
            text.push_str(&format!("\"{}\" = \"{value}\"\n", setting.name));
        }
        text
    }

    fn number(&self, name: &str) -> u64 {
        let found = SETTINGS.into_iter().find(|setting| setting.name == name);
        found.and_then(|setting| self.get(setting).0.parse().ok()).unwrap_or(1)
    }

    fn text_of(&self, name: &str) -> String {
        let found = SETTINGS.into_iter().find(|setting| setting.name == name);
        found.map(|setting| self.get(setting).0.to_owned()).unwrap_or_default()
    }

    fn duration(&self, name: &str) -> Option<Duration> {
        duration::parse(&self.text_of(name)).ok()
    }

    /// Returns how long a host without anything to do stays; `None` is for ever.
    #[must_use]
    pub fn idle_exit(&self) -> Option<Duration> {
        self.duration("idle_exit")
    }

    /// Returns below how many free bytes nothing new is started.
    #[must_use]
    pub fn disk_floor_bytes(&self) -> u64 {
        self.number("disk_floor_bytes")
    }

    /// Returns what the names of new branches begin with.
    #[must_use]
    pub fn branch_prefix(&self) -> String {
        self.text_of("worktrees.branch_prefix")
    }

    /// Returns how many bytes all snapshots may take.
    #[must_use]
    pub fn snapshot_quota_bytes(&self) -> u64 {
        self.number("snapshots.quota_bytes")
    }

    /// Returns what the engine is to be told.
    #[must_use]
    pub fn engine(&self) -> Config {
        let mut config = Config::standard();
        let count = |name| u32::try_from(self.number(name)).unwrap_or(u32::MAX);
        config.limits.per_owner = count("limits.per_owner");
        config.limits.per_host = count("limits.per_host");
        config.limits.dev_servers = count("limits.dev_servers");
        config.limits.queue = count("limits.queue");
        config.ports.first = u16::try_from(self.number("ports.first")).unwrap_or(u16::MAX);
        // No more than there are ports above the first one.
        let most = (u16::MAX - config.ports.first) / config.ports.size;
        config.ports.blocks = u16::try_from(self.number("ports.blocks")).unwrap_or(most).min(most);
        config.log_cap_bytes = self.number("log_cap_bytes");
        config.attachments.file_bytes = self.number("attachments.file_bytes");
        config.attachments.attempt_bytes = self.number("attachments.attempt_bytes");
        config.background_timeout_ms = self.duration("background_timeout").map(millis);
        for (name, slot) in
            [("stop_grace", &mut config.stop_grace_ms), ("git_timeout", &mut config.git_timeout_ms)]
        {
            if let Some(duration) = self.duration(name) {
                *slot = millis(duration);
            }
        }
        config.cleanup.idle_ms = self.duration("cleanup.idle").map(millis);
        config.cleanup.orphan_ms = self.duration("cleanup.orphans").map(millis);
        config.cleanup.snapshot_ms = self.duration("snapshots.keep").map(millis);
        config.identity.name = self.text_of("commit.name");
        config.identity.email = self.text_of("commit.email");
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_engine() {
        assert_eq!(Settings::default().engine(), Config::standard());
    }

    #[test]
    fn every_default_is_a_value() {
        for setting in SETTINGS {
            setting.check(setting.default).unwrap();
            assert!(!setting.about.is_empty(), "{}", setting.name);
        }
        assert_eq!(Settings::default().disk_floor_bytes(), 1 << 30);
    }

    #[test]
    fn what_is_set_is_read_back() {
        let mut settings = Settings::default();
        settings.set("limits.per_host", "64").unwrap();
        settings.set("background_timeout", "none").unwrap();
        settings.set("ports.first", "65500").unwrap();
        settings.set("disk_floor_bytes", "0").unwrap();
        settings.set("stop_grace", "250ms").unwrap();
        settings.set("cleanup.orphans", "none").unwrap();
        settings.set("worktrees.branch_prefix", "me/").unwrap();
        settings.set("commit.name", "Zoë").unwrap();
        settings.set("limits.per_host", "65").unwrap();
        let again = Settings::parse(&settings.text(), Path::new("settings.toml")).unwrap();
        let config = again.engine();
        assert_eq!(config.limits.per_host, 65);
        assert_eq!((config.ports.first, config.ports.blocks), (65_500, 3), "as many as there are");
        assert_eq!(config.background_timeout_ms, None);
        assert_eq!((again.disk_floor_bytes(), config.stop_grace_ms), (0, 250));
        assert_eq!((config.cleanup.orphan_ms, again.branch_prefix()), (None, "me/".to_owned()));
        assert_eq!(config.identity.name, "Zoë");
    }

    #[test]
    fn nonsense_is_refused() {
        let mut settings = Settings::default();
        for (name, value) in [
            ("limits.per_host", "0"),
            ("limits.per_host", "-1"),
            ("ports.first", "80"),
            ("ports.first", "65536"),
            ("stop_grace", "5"),
            ("commit.name", "a\"b"),
            ("log_cap_bytes", "1"),
            ("disk_floor_bytes", "-1"),
            ("disk_floor_bytes", "1 GiB"),
            ("git_timeout", "0s"),
            ("background_timeout", "0s"),
            ("idle_exit", "never"),
            ("worktrees.branch_prefix", "/x"),
            ("worktrees.branch_prefix", "a b"),
            ("worktrees.branch_prefix", "a..b"),
            ("cleanup.idle", "0s"),
            ("colour", "red"),
        ] {
            assert!(settings.set(name, value).is_err(), "{name} = {value}");
        }
        assert!(Settings::parse("a = [", Path::new("s")).is_err());
    }
}
