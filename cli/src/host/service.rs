//! Registers the host with the service manager of the user: systemd, or launchd on macOS.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use etcetera::BaseStrategy as _;

use crate::config::{DataDir, show};
use crate::error::{Class, CliError};
use crate::output::Output;

/// The unit's name.
const UNIT: &str = "windlass.service";

/// Installs the service, or prints its definition.
///
/// # Errors
///
/// There is no service manager for it, or it refuses.
pub fn install(data: &DataDir, output: Output, print: bool) -> Result<(), CliError> {
    let program = std::env::current_exe()
        .map_err(|error| CliError::io("find this program's executable", &error))?;
    let text = unit(&program, &data.path)?;
    if print {
        return output.bytes(text.as_bytes());
    }
    if !cfg!(target_os = "linux") {
        return Err(CliError::new(
            Class::Refused,
            "no_service_manager",
            "only systemd is supported as a service manager",
            "have `windlass host run` started by yours; --print shows what the systemd unit says",
        ));
    }
    let strategy = etcetera::choose_base_strategy()
        .map_err(|_| CliError::usage("there is no home directory to install into", "set HOME"))?;
    let directory = strategy.config_dir().join("systemd").join("user");
    let path: PathBuf = directory.join(UNIT);
    std::fs::create_dir_all(&directory)
        .map_err(|error| CliError::io(format!("make {}", show(&directory)), &error))?;
    crate::config::replace(&directory, UNIT, &text)
        .map_err(|error| CliError::io(format!("write {}", show(&path)), &error))?;
    systemctl(&["daemon-reload"], &path)?;
    systemctl(&["enable", "--now", UNIT], &path)?;
    output.note(&format!(
        "installed {}; `loginctl enable-linger` keeps it when you log out",
        show(&path)
    ));
    Ok(())
}

/// Returns the unit. Only the main process is ended with the service: executions outlive their host.
fn unit(program: &Path, data: &Path) -> Result<String, CliError> {
    let program = quoted(program)?;
    let data = quoted(data)?;
    Ok(format!(
        "[Unit]\n\
         Description=Windlass host\n\
         \n\
         [Service]\n\
         Type=exec\n\
         ExecStart={program} --data-dir {data} host run --stay\n\
         Restart=on-failure\n\
         KillMode=process\n\
         Delegate=yes\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n"
    ))
}

/// Quotes a path for a unit file.
fn quoted(path: &Path) -> Result<String, CliError> {
    let unfit = || {
        CliError::new(
            Class::Refused,
            "unfit_path",
            format!("{} cannot be written into a unit file", show(path)),
            "use a path of UTF-8 without control characters",
        )
    };
    let text = path.to_str().ok_or_else(unfit)?;
    if text.chars().any(char::is_control) {
        return Err(unfit());
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            '$' => quoted.push_str("$$"),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

fn systemctl(arguments: &[&str], unit: &Path) -> Result<(), CliError> {
    let ran = Command::new("systemctl").arg("--user").args(arguments).stdin(Stdio::null()).output();
    let said = match ran {
        Ok(ended) if ended.status.success() => return Ok(()),
        Ok(ended) => String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(CliError::new(
        Class::Refused,
        "no_service_manager",
        format!("systemctl --user {} failed: {said}", arguments.join(" ")),
        format!("{} was written; enable it when systemd runs for this user", show(unit)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_ends_only_the_host_and_quotes_paths() {
        let unit = unit(Path::new("/opt/wind lass"), Path::new("/d/50% \"é\"")).unwrap();
        assert!(unit.contains("\nKillMode=process\n"), "{unit}");
        let line =
            "ExecStart=\"/opt/wind lass\" --data-dir \"/d/50%% \\\"é\\\"\" host run --stay\n";
        assert!(unit.contains(line), "{unit}");
    }
}
