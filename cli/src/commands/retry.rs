//! `retry`: what was done since an execution is saved and undone, and that is run again.

use windlass::api::client::ClientError;
use windlass::request::RetryRequest;

use super::run::{Following, announce, go_on};
use super::send::read;
use super::wait::stop_attempt;
use crate::args::RetryArgs;
use crate::context::Context;
use crate::error::{Class, CliError};
use crate::ids::{self, Named};

/// Stops what runs in an attempt, has it put back, and follows the execution that is run again.
///
/// # Errors
///
/// It was not accepted, or cannot be followed.
pub(super) async fn retry(context: &Context, args: RetryArgs) -> Result<u8, CliError> {
    let client = context.client()?;
    let from = match &args.from {
        Some(text) => Some(ids::execution(&client, text).await?),
        None => None,
    };
    let (attempt, from) = match (ids::any(&client, &args.id).await?, from) {
        (Named::Attempt(attempt), from) => (attempt, from),
        (Named::Execution(id), None) => (client.execution(id).await?.attempt_id, Some(id)),
        (Named::Execution(_), Some(_)) => {
            let message = "an execution is named twice";
            let hint = "name the attempt, or leave out --from";
            return Err(CliError::new(Class::Usage, "usage", message, hint));
        }
    };
    let text = args.prompt.map(read).transpose()?;
    let request = RetryRequest { attempt, from, text };
    let accepted = match client.retry(request.clone()).await {
        // Only what is wanted and possible stops what runs; a repetition finds the try that it led to.
        Err(ClientError::Api { view, .. }) if view.kind == "busy" => {
            stop_attempt(context, &client, attempt).await?;
            client.retry(request).await?
        }
        answer => answer?,
    };
    announce(context, &client, &accepted, args.detach).await?;
    let (detach, on_interrupt) = (args.detach, args.on_interrupt);
    go_on(context, client, accepted.execution, Following { detach, stdin: false, on_interrupt })
        .await
}
