//! The text form of a plan: one line for each part, a word and a value in JSON. Lines that begin with `#` are for people.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Intervention, Plan, Request, Settings, Swarm};

/// Why a text is no plan.
#[derive(Debug)]
pub struct PlanError {
    line: usize,
    why: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for PlanError {}

/// Writes one line.
fn line<T: Serialize>(text: &mut String, word: &str, value: &T) -> fmt::Result {
    let value = serde_json::to_string(value).map_err(|_| fmt::Error)?;
    writeln!(text, "{word} {value}")
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        line(&mut text, "seed", &self.seed)?;
        line(&mut text, "scenario", &self.scenario)?;
        line(&mut text, "settings", &self.settings)?;
        line(&mut text, "swarm", &self.swarm)?;
        for request in &self.requests {
            line(&mut text, "request", request)?;
        }
        for intervention in &self.interventions {
            line(&mut text, "intervention", intervention)?;
        }
        for fixed in &self.fixed {
            line(&mut text, "fixed", fixed)?;
        }
        f.write_str(&text)
    }
}

fn read<T: DeserializeOwned>(value: &str) -> Result<T, String> {
    serde_json::from_str(value).map_err(|error| error.to_string())
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut plan = Self {
            seed: 0,
            scenario: String::new(),
            settings: Settings::default(),
            requests: Vec::new(),
            interventions: Vec::new(),
            swarm: Swarm::default(),
            fixed: Vec::new(),
        };
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: String| PlanError { line: n + 1, why };
            let (word, value) =
                line.split_once(' ').ok_or_else(|| wrong("a word and a value".to_owned()))?;
            let done = match word {
                "seed" => read(value).map(|seed| plan.seed = seed),
                "scenario" => read(value).map(|name| plan.scenario = name),
                "settings" => read(value).map(|settings| plan.settings = settings),
                "swarm" => read(value).map(|swarm| plan.swarm = swarm),
                "request" => read::<Request>(value).map(|request| plan.requests.push(request)),
                "intervention" => {
                    read::<Intervention>(value).map(|one| plan.interventions.push(one))
                }
                "fixed" => read(value).map(|one| plan.fixed.push(one)),
                other => Err(format!("no plan has {other:?}")),
            };
            done.map_err(wrong)?;
        }
        Ok(plan)
    }
}

/// A plan is a text wherever it is serialized.
impl Serialize for Plan {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
