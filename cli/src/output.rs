//! Where results go: standard output, as text or JSON. Notes for people go to standard error.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::args::{ColorWhen, Global};
use crate::config::Environment;
use crate::error::CliError;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// JSON instead of text.
    pub json: bool,
    /// Results and errors only.
    pub quiet: bool,
    /// Colour on standard output.
    pub color: bool,
    /// Standard error is a terminal.
    pub is_terminal: bool,
    /// How many columns standard output has, if it is a terminal.
    pub width: Option<usize>,
}

/// How a word is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As everything else.
    Plain,
    /// Good.
    Good,
    /// Bad.
    Bad,
    /// Going on.
    Active,
    /// Less important.
    Dim,
}

/// Asks the terminal that standard output is, if it is one, how wide it is.
fn width() -> Option<usize> {
    let stdout = io::stdout();
    let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten();
    size.map(|size| usize::from(size.ws_col)).filter(|&columns| columns > 0)
}

impl Output {
    /// Finds out how to print.
    #[must_use]
    pub fn new(global: &Global, environment: &Environment) -> Self {
        let color = match global.color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => {
                io::stdout().is_terminal()
                    && environment.get("NO_COLOR").is_none()
                    && environment.get("TERM").is_none_or(|term| term != "dumb")
            }
        };
        let is_terminal = io::stderr().is_terminal();
        Self {
            json: global.json,
            quiet: global.quiet,
            color: color && !global.json,
            is_terminal,
            width: width(),
        }
    }

    /// Writes bytes to standard output.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub fn bytes(self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .map_err(|error| CliError::output(&error))
    }

    /// Writes a line to standard output.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn line(self, text: &str) -> Result<(), CliError> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Writes an object on a line to standard output.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn object(self, value: &impl Serialize) -> Result<(), CliError> {
        let mut line =
            serde_json::to_vec(value).map_err(|error| CliError::output(&io::Error::from(error)))?;
        line.push(b'\n');
        self.bytes(&line)
    }

    /// Tells people something on standard error, unless they asked for quiet.
    pub fn note(self, text: &str) {
        if !self.quiet {
            self.say(text);
        }
    }

    /// Writes a line to standard error.
    pub fn say(self, text: &str) {
        // There is nowhere left to say that standard error is gone.
        let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
    }

    /// Says whether people at a terminal want to hear about progress.
    #[must_use]
    pub fn is_talkative(self) -> bool {
        self.is_terminal && !self.quiet && !self.json
    }

    /// Returns `text` so that it looks like `style`.
    #[must_use]
    pub fn paint(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Plain => return text.to_owned(),
            Style::Good => 32,
            Style::Bad => 31,
            Style::Active => 36,
            Style::Dim => 2,
        };
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
