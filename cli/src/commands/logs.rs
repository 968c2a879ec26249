//! `logs` and `search`: what is read from a number on.

use windlass::api::LogQuery;
use windlass::core::action::RunReason;
use windlass::core::log_store::Stream;
use windlass::view::SearchHitView;

use super::chain::reason_word;
use crate::args::{LogsArgs, OnInterrupt, SearchArgs, StreamArg};
use crate::context::Context;
use crate::duration::now_ms;
use crate::error::CliError;
use crate::follow::{Exact, Followed, Follower, JsonLines, Timed};
use crate::ids;
use crate::output::{Output, Style};
use crate::signals::Interrupts;

/// Prints an execution's output.
///
/// # Errors
///
/// There is no such execution, or the host's.
pub(super) async fn logs(context: &Context, args: LogsArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let id = ids::execution(&client, &args.id).await?;
    let query = LogQuery {
        after: args.after.unwrap_or(0),
        tail: args.tail,
        limit: args.limit,
        since_ms: args.since.map(|since| since.at_ms(now_ms())),
        stream: args.stream.map(|stream| match stream {
            StreamArg::Stdout => Stream::Stdout,
            StreamArg::Stderr => Stream::Stderr,
            StreamArg::Stdin => Stream::Stdin,
        }),
        // Shown as it was written, a log is its output; what was typed in between is shown on request.
        output: args.stream.is_none() && !output.json && !args.timestamps && args.grep.is_none(),
        grep: args.grep.clone(),
        follow: args.follow,
    };
    if output.is_talkative() {
        let view = client.execution(id).await?;
        let followed = view.followed_by.map(|next| format!(", followed by {}", next.short()));
        if followed.is_some() || matches!(view.run_reason, RunReason::Setup | RunReason::Cleanup) {
            let (reason, followed) = (reason_word(view.run_reason), followed.unwrap_or_default());
            output.say(&format!("windlass: {} ({reason}{followed})", id.short()));
        }
    }
    let lines = client.log(id, query);
    // Whoever looks at a log stops nothing by going away.
    let interrupts = Interrupts::new(OnInterrupt::Detach, None);
    let mut follower = Follower::new(client, Vec::new(), interrupts)?;
    let followed = if output.json {
        follower.output(lines, &mut JsonLines).await?
    } else if args.timestamps {
        follower.output(lines, &mut Timed::standard(output)).await?
    } else {
        let sink = Exact::standard(!args.raw && !output.quiet);
        let mut sink = sink.with_input(args.stream == Some(StreamArg::Stdin));
        follower.output(lines, &mut sink).await?
    };
    Ok(match followed {
        Followed::Done(()) => 0,
        Followed::Detached(code) => code,
    })
}

/// Searches logs.
///
/// # Errors
///
/// The pattern is none, or the host's.
pub(super) async fn search(context: &Context, args: SearchArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let attempt = match &args.attempt {
        Some(text) => Some(ids::attempt(&client, text).await?),
        None => None,
    };
    let mut hits = client.search(&args.re, attempt).await?;
    while let Some(hit) = hits.next().await? {
        if output.json {
            output.object(&hit)?;
        } else {
            output.bytes(&hit_line(output, &hit)?)?;
        }
    }
    Ok(0)
}

fn hit_line(output: Output, hit: &SearchHitView) -> Result<Vec<u8>, CliError> {
    let place = format!("{}:{}:", hit.execution_id.short(), hit.line.seq());
    let mut line = output.paint(Style::Dim, &place).into_bytes();
    line.push(b' ');
    let payload = hit
        .line
        .payload()
        .map_err(|error| CliError::io("read a hit", &std::io::Error::other(error)))?;
    line.extend_from_slice(payload.map(|(_, bytes)| bytes).unwrap_or_default().trim_ascii_end());
    line.push(b'\n');
    Ok(line)
}
