//! Ids as people type them, and as they are printed.

use uuid::Uuid;
use windlass::api::client::Client;
use windlass::core::action::RunReason;
use windlass::core::id::{AttemptId, ExecutionId, TaskId};
use windlass::view::{ExecutionView, ProjectView};

use crate::error::{Class, CliError};
use crate::launch;

/// The most candidates that an error lists.
const LISTED: usize = 10;

/// What was typed for an id.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Typed {
    /// `@last`.
    Last,
    /// Hex digits, lower case, with what the letter said.
    Hex { sort: Sort, hex: String },
    /// Anything else; may be a branch.
    Word,
}

/// What a letter before the digits says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Attempt,
    Execution,
    Either,
}

fn parse(text: &str) -> Typed {
    if text == "@last" {
        return Typed::Last;
    }
    let (sort, rest) = if let Some(rest) = text.strip_prefix("a-") {
        (Sort::Attempt, rest)
    } else if let Some(rest) = text.strip_prefix("x-") {
        (Sort::Execution, rest)
    } else {
        (Sort::Either, text)
    };
    let hex = match rest.parse::<Uuid>() {
        Ok(full) => full.simple().to_string(),
        Err(_) => rest.to_lowercase(),
    };
    if (4..=32).contains(&hex.len()) && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Typed::Hex { sort, hex }
    } else {
        Typed::Word
    }
}

/// What an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// An attempt.
    Attempt(AttemptId),
    /// An execution.
    Execution(ExecutionId),
}

/// Finds an attempt: by id, by branch, or by one of its executions.
///
/// # Errors
///
/// There is none, or several.
pub async fn attempt(client: &Client, text: &str) -> Result<AttemptId, CliError> {
    let (attempts, executions) = match parse(text) {
        Typed::Last => return Ok(last(client).await?.attempt_id),
        Typed::Hex { sort, hex } => candidates(client, sort, &hex).await?,
        Typed::Word => (Vec::new(), Vec::new()),
    };
    match (attempts.as_slice(), executions.as_slice()) {
        ([one], _) => return Ok(*one),
        ([], []) => {}
        ([], [one]) => return Ok(client.execution(*one).await?.attempt_id),
        _ => return Err(ambiguous(text, &attempts, &executions)),
    }
    // An id wins over a branch of the same name.
    match by_branch(client, text).await?.as_slice() {
        [] => Err(nothing(client, "attempt ", text).await),
        [one] => Ok(*one),
        several => Err(ambiguous(text, several, &[])),
    }
}

/// Finds an execution; an attempt stands for its newest one that is no git step.
///
/// # Errors
///
/// There is none, or several.
pub async fn execution(client: &Client, text: &str) -> Result<ExecutionId, CliError> {
    let (attempts, executions) = match parse(text) {
        Typed::Last => return Ok(last(client).await?.id),
        Typed::Hex { sort, hex } => candidates(client, sort, &hex).await?,
        Typed::Word => (Vec::new(), Vec::new()),
    };
    let attempt = match (executions.as_slice(), attempts.as_slice()) {
        ([one], _) => return Ok(*one),
        ([], [one]) => *one,
        ([], []) => match by_branch(client, text).await?.as_slice() {
            [] => return Err(nothing(client, "execution ", text).await),
            [one] => *one,
            several => return Err(ambiguous(text, several, &[])),
        },
        _ => return Err(ambiguous(text, &attempts, &executions)),
    };
    newest_of(client, attempt).await
}

/// Finds whatever it is.
///
/// # Errors
///
/// There is none, or several.
pub async fn any(client: &Client, text: &str) -> Result<Named, CliError> {
    let (attempts, executions) = match parse(text) {
        Typed::Last => return Ok(Named::Execution(last(client).await?.id)),
        Typed::Hex { sort, hex } => candidates(client, sort, &hex).await?,
        Typed::Word => (Vec::new(), Vec::new()),
    };
    match (attempts.as_slice(), executions.as_slice()) {
        ([one], []) => Ok(Named::Attempt(*one)),
        ([], [one]) => Ok(Named::Execution(*one)),
        ([], []) => match by_branch(client, text).await?.as_slice() {
            [] => Err(nothing(client, "", text).await),
            [one] => Ok(Named::Attempt(*one)),
            several => Err(ambiguous(text, several, &[])),
        },
        _ => Err(ambiguous(text, &attempts, &executions)),
    }
}

/// Finds a task by its id.
///
/// # Errors
///
/// There is none, or several.
pub async fn task(client: &Client, text: &str) -> Result<TaskId, CliError> {
    let found = match planned_digits('t', text) {
        Some(hex) => client.ids(&hex).await?.tasks,
        None => Vec::new(),
    };
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(nothing_planned("task", text)),
        several => Err(several_planned('t', text, several.iter().map(|id| id.0).collect())),
    }
}

/// Finds a project: by name, or by its id.
///
/// # Errors
///
/// There is none, or several.
pub async fn project(client: &Client, text: &str) -> Result<ProjectView, CliError> {
    let all = client.projects().await?.items;
    let mut found: Vec<_> = all.iter().filter(|project| project.name == text).collect();
    if found.is_empty()
        && let Some(hex) = planned_digits('p', text)
    {
        let ends = |project: &&ProjectView| project.id.0.simple().to_string().ends_with(&hex);
        found = all.iter().filter(ends).collect();
    }
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(nothing_planned("project", text)),
        several => Err(several_planned('p', text, several.iter().map(|one| one.id.0).collect())),
    }
}

/// Finds the project of the repository that we stand in.
///
/// # Errors
///
/// There is none, or several, or no repository.
pub async fn project_here(client: &Client) -> Result<ProjectView, CliError> {
    let here = launch::locator(std::path::Path::new("."))?;
    let found = client.projects_at(here).await?.items;
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(CliError::new(
            Class::NotFound,
            "not_found",
            "the repository that we stand in is no project",
            "make it one (`windlass project add`), or name a project with -p",
        )),
        several => {
            let names: Vec<_> = several.iter().map(|project| project.name.as_str()).collect();
            Err(CliError::new(
                Class::Usage,
                "ambiguous",
                format!("several projects are of this repository: {}", names.join(", ")),
                "name one of them with -p",
            ))
        }
    }
}

/// Returns the digits of an id of something planned, with or without its letter.
fn planned_digits(letter: char, text: &str) -> Option<String> {
    let rest = text.strip_prefix(letter).and_then(|rest| rest.strip_prefix('-')).unwrap_or(text);
    match parse(rest) {
        Typed::Hex { sort: Sort::Either, hex } => Some(hex),
        Typed::Hex { .. } | Typed::Last | Typed::Word => None,
    }
}

fn nothing_planned(what: &str, text: &str) -> CliError {
    CliError::new(
        Class::NotFound,
        "not_found",
        format!("{what} {text:?} not found"),
        format!("`windlass {what} ls` lists what there is"),
    )
}

fn several_planned(letter: char, text: &str, found: Vec<Uuid>) -> CliError {
    let named: Vec<_> = found.iter().map(|id| shortest(letter, *id, &found)).collect();
    CliError::new(
        Class::Usage,
        "ambiguous",
        format!("{text:?} may be any of {}", named.join(", ")),
        "give more digits of the one that is meant",
    )
}

/// Returns the short form of the id of a project (`p`) or a task (`t`), longer where another one ends alike.
///
/// # Errors
///
/// The host's.
pub async fn short_planned(client: &Client, letter: char, id: Uuid) -> Result<String, CliError> {
    let hex = id.simple().to_string();
    let found = client.ids(&hex[24..]).await?;
    let alike: Vec<Uuid> = match letter {
        'p' => found.projects.iter().map(|id| id.0).collect(),
        _ => found.tasks.iter().map(|id| id.0).collect(),
    };
    Ok(shortest(letter, id, &alike))
}

/// Finds what ends with these digits. A full id names itself even if its owner is another: the host says so then.
async fn candidates(
    client: &Client,
    sort: Sort,
    hex: &str,
) -> Result<(Vec<AttemptId>, Vec<ExecutionId>), CliError> {
    let mut found = client.ids(hex).await?;
    match sort {
        Sort::Attempt => found.executions.clear(),
        Sort::Execution => found.attempts.clear(),
        Sort::Either => {}
    }
    Ok((found.attempts, found.executions))
}

/// Finds the attempts that have this branch; of several, those that are not removed.
async fn by_branch(client: &Client, branch: &str) -> Result<Vec<AttemptId>, CliError> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = client.attempts(true, Some(branch), before.as_deref(), false).await?;
        found.extend(page.items);
        match page.next {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    let mut there: Vec<_> = found
        .iter()
        .filter(|attempt| attempt.removed_at.is_none())
        .map(|attempt| attempt.id)
        .collect();
    if there.is_empty() {
        // The newest one that had it.
        there.extend(found.first().map(|attempt| attempt.id));
    }
    Ok(there)
}

/// Returns the newest execution that is no git step: those are nobody's last request.
async fn last(client: &Client) -> Result<ExecutionView, CliError> {
    let mut before = None;
    loop {
        let page = client.executions(true, None, before.as_deref(), 20).await?;
        let found = page.items.into_iter().find(|view| view.run_reason != RunReason::Git);
        match (found, page.next) {
            (Some(found), _) => return Ok(found),
            (None, Some(next)) => before = Some(next),
            (None, None) => return Err(CliError::not_found("there is no execution yet")),
        }
    }
}

/// Returns an attempt's newest execution that is no git step; else its newest.
async fn newest_of(client: &Client, attempt: AttemptId) -> Result<ExecutionId, CliError> {
    let ids = client.attempt(attempt).await?.executions.unwrap_or_default();
    for id in &ids {
        if client.execution(*id).await?.run_reason != RunReason::Git {
            return Ok(*id);
        }
    }
    let first = ids.first().copied();
    first
        .ok_or_else(|| CliError::not_found(format!("attempt {} has no execution", attempt.short())))
}

/// Says that nothing has this id, or that its record is damaged: such a one is in no list.
async fn nothing(client: &Client, what: &str, text: &str) -> CliError {
    if let Typed::Hex { hex, .. } = parse(text)
        && let Ok(report) = client.check().await
        && let Some(name) = report.set_aside.iter().find_map(|line| named_by(line, &hex))
    {
        let hint = "`windlass doctor` tells more; nothing of it is cleaned up, and its worktree, if it has one, is where it was";
        let message = format!("the record of {name} is damaged");
        return CliError::new(Class::Failed, "damaged_record", message, hint);
    }
    not_found(what, text)
}

/// Names the attempt or execution that a line about a damaged record is about, if its id ends with these digits.
fn named_by(line: &str, hex: &str) -> Option<String> {
    let (kind, rest) = line.split_once(' ')?;
    let id: Uuid = rest.split([':', ' ']).next()?.parse().ok()?;
    let is_meant =
        matches!(kind, "attempt" | "execution") && id.simple().to_string().ends_with(hex);
    is_meant.then(|| format!("{kind} {id}"))
}

/// Says that nothing has this id; one that is too short for any gets told so.
fn not_found(what: &str, text: &str) -> CliError {
    let digits = text.strip_prefix("a-").or_else(|| text.strip_prefix("x-")).unwrap_or(text);
    let is_short = (1..4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let why = if is_short { ": an id is given by its last 4 digits or more" } else { "" };
    CliError::not_found(format!("{what}{text:?} not found{why}"))
}

fn ambiguous(text: &str, attempts: &[AttemptId], executions: &[ExecutionId]) -> CliError {
    let attempts: Vec<_> = attempts.iter().map(|id| id.0).collect();
    let executions: Vec<_> = executions.iter().map(|id| id.0).collect();
    let named = |letter, ids: &[Uuid]| -> Vec<String> {
        ids.iter().map(|id| shortest(letter, *id, ids)).collect()
    };
    let mut all = [named('a', &attempts), named('x', &executions)].concat();
    let more = all.len().saturating_sub(LISTED);
    all.truncate(LISTED);
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    CliError::new(
        Class::Usage,
        "ambiguous",
        format!("{text:?} may be any of {}", all.join(", ")),
        "give more digits, or the letter a- or x-",
    )
}

/// Returns an id's short form, longer where another one ends alike.
///
/// # Errors
///
/// The host's.
pub async fn short(client: &Client, id: Named) -> Result<String, CliError> {
    let (letter, uuid) = match id {
        Named::Attempt(id) => ('a', id.0),
        Named::Execution(id) => ('x', id.0),
    };
    let hex = uuid.simple().to_string();
    let found = client.ids(&hex[24..]).await?;
    let alike: Vec<Uuid> = match id {
        Named::Attempt(_) => found.attempts.iter().map(|id| id.0).collect(),
        Named::Execution(_) => found.executions.iter().map(|id| id.0).collect(),
    };
    Ok(shortest(letter, uuid, &alike))
}

/// Returns the letter and as many of the last digits, at least 8, as tell an id from all of `others`.
#[must_use]
pub fn shortest(letter: char, id: Uuid, others: &[Uuid]) -> String {
    let hex = id.simple().to_string();
    let alike = |other: &Uuid| {
        let other = other.simple().to_string();
        hex.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count()
    };
    let needed = others.iter().filter(|other| **other != id).map(|other| alike(other) + 1).max();
    let digits = needed.unwrap_or(8).clamp(8, 32);
    format!("{letter}-{}", &hex[32 - digits..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(sort: Sort, hex: &str) -> Typed {
        Typed::Hex { sort, hex: hex.to_owned() }
    }

    #[test]
    fn ids_are_taken_with_and_without_letter_short_and_full() {
        assert_eq!(parse("@last"), Typed::Last);
        assert_eq!(parse("x-0123ABCD"), hex(Sort::Execution, "0123abcd"));
        assert_eq!(parse("a-beef"), hex(Sort::Attempt, "beef"));
        assert_eq!(parse("beef"), hex(Sort::Either, "beef"));
        let full = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(parse(full), hex(Sort::Either, "01890a5dac96774bbcceb302099a8057"));
        assert_eq!(
            parse(&format!("x-{full}")),
            hex(Sort::Execution, "01890a5dac96774bbcceb302099a8057")
        );
        for word in ["abc", "x-abc", "main", "a-fix", "windlass/1234abcd-x", ""] {
            assert_eq!(parse(word), Typed::Word, "{word}");
        }
    }

    #[test]
    fn ids_of_what_is_planned_have_letters_of_their_own() {
        assert_eq!(planned_digits('t', "t-BEEF"), Some("beef".to_owned()));
        assert_eq!(planned_digits('p', "01ab"), Some("01ab".to_owned()));
        for other in ["a-beef", "x-beef", "app", "@last", "t-abc", ""] {
            assert_eq!(planned_digits('t', other), None, "{other}");
        }
    }

    #[test]
    fn printed_ids_are_longer_where_needed() {
        let id = Uuid::from_u128(0x1111_2222_3333_4444);
        let near = Uuid::from_u128(0x1111_2229_3333_4444);
        let far = Uuid::from_u128(0x9999_4444);
        assert_eq!(shortest('x', id, &[]), "x-33334444");
        assert_eq!(shortest('x', id, &[id, far]), "x-33334444");
        assert_eq!(shortest('a', id, &[far, near]), "a-233334444");
    }

    #[test]
    fn ambiguity_lists_the_candidates() {
        let ids: Vec<_> = (0..12).map(|n| AttemptId(Uuid::from_u128(n))).collect();
        let error = ambiguous("0000", &ids, &[]);
        assert!(error.view.message.ends_with("and 2 more"), "{}", error.view.message);
        assert_eq!(error.class, Class::Usage);
        assert!(error.view.message.contains("any of a-00000000, a-00000001, "), "{error}");
    }

    #[test]
    fn a_damaged_record_is_known_by_the_end_of_its_id() {
        let line = "attempt 01890a5d-ac96-774b-bcce-b302099a8057: its checksum is wrong";
        let named = "attempt 01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(named_by(line, "099a8057").as_deref(), Some(named));
        assert_eq!(named_by(line, "099a8058"), None);
        for line in ["attempt in row 3: its id is no blob", "and 5 more", "project 1", ""] {
            assert_eq!(named_by(line, "8057"), None, "{line}");
        }
    }

    #[test]
    fn an_id_that_is_too_short_is_told_so() {
        for (text, is_short) in [("abc", true), ("x-12", true), ("x-1234", false), ("fix", false)] {
            let message = not_found("", text).view.message;
            assert_eq!(message.contains("4 digits"), is_short, "{message}");
        }
    }
}
