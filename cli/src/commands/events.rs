//! `events`: everything that changed.

use windlass::api::EventsQuery;
use windlass::view::ChangeView;

use crate::args::{EventsArgs, OnInterrupt};
use crate::context::Context;
use crate::error::CliError;
use crate::follow::{Followed, Follower};
use crate::signals::Interrupts;

/// Prints changes.
///
/// # Errors
///
/// The host's.
pub(super) async fn events(context: &Context, args: EventsArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let EventsArgs { after, state, follow } = args;
    let mut changes = client.events(EventsQuery { after, state, follow });
    let interrupts = Interrupts::new(OnInterrupt::Detach, None);
    let mut follower = Follower::new(client, Vec::new(), interrupts)?;
    loop {
        let change = match follower.watch(changes.next()).await? {
            Followed::Done(change) => change?,
            Followed::Detached(code) => return Ok(code),
        };
        let Some(change) = change else { return Ok(0) };
        if output.json {
            output.object(&change)?;
        } else {
            output.line(&line(&change))?;
        }
    }
}

fn line(change: &ChangeView) -> String {
    let hex = change.id.simple().to_string();
    let letter = match change.kind.as_str() {
        "project" => "p-",
        "task" => "t-",
        "attempt" => "a-",
        "execution" => "x-",
        "follow_up" => "f-",
        _ => "",
    };
    let id = format!("{letter}{}", &hex[24..]);
    let state = change.state.as_deref().unwrap_or("deleted");
    format!("{:>8}  {:<10} {id:<12} {state}", change.number, change.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let change = ChangeView {
            number: 12,
            kind: "task".to_owned(),
            id: uuid::Uuid::from_u128(0x1234_abcd),
            parent_id: None,
            owner: None,
            state: Some("in_review".to_owned()),
            revision: 1,
        };
        assert_eq!(line(&change), "      12  task       t-1234abcd   in_review");
        let gone = ChangeView { kind: "snapshot".to_owned(), state: None, ..change };
        assert_eq!(line(&gone), "      12  snapshot   1234abcd     deleted");
    }
}
