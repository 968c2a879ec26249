//! `config`: the data directory and its settings.

use serde_json::{Map, Value, json};

use crate::args::{ConfigAction, ConfigArgs};
use crate::config::show;
use crate::context::Context;
use crate::error::CliError;
use crate::host::settings::{SETTINGS, Setting, Settings};
use crate::output::Style;
use crate::table::{Cell, fitted_table};

/// Prints or changes settings.
///
/// # Errors
///
/// There is no such setting, or the value is none for it.
pub(super) fn config(context: &Context, args: ConfigArgs) -> Result<u8, CliError> {
    let (data, output) = (context.data_dir()?, context.output);
    let Some(made) = &data.fixed else { return Ok(0) };
    let mut settings = Settings::read(&data)?;
    match args.action {
        None => {
            if output.json {
                let values: Map<String, Value> = SETTINGS
                    .into_iter()
                    .map(|setting| {
                        let (value, is_default) = settings.get(setting);
                        (setting.name.to_owned(), json!({ "value": value, "default": is_default }))
                    })
                    .collect();
                output.object(&json!({
                    "data_dir": data.path.to_string_lossy(),
                    "format": made.format,
                    "store": made.store.as_str(),
                    "logs": made.logs.as_str(),
                    "node": made.node,
                    "settings": values,
                }))?;
            } else {
                let fixed = |name: &str, value: String| {
                    let from = Cell::styled("fixed", Style::Dim);
                    vec![Cell::from(name), Cell::from(value), from, Cell::from("")]
                };
                let mut rows = vec![
                    fixed("data_dir", show(&data.path)),
                    fixed("format", made.format.to_string()),
                    fixed("store", made.store.as_str().to_owned()),
                    fixed("logs", made.logs.as_str().to_owned()),
                    fixed("node", made.node.to_string()),
                ];
                rows.extend(SETTINGS.into_iter().map(|setting| {
                    let (value, is_default) = settings.get(setting);
                    let origin = if is_default { "default" } else { "set" };
                    let from = Cell::styled(origin, Style::Dim);
                    vec![setting.name.into(), value.into(), from, setting.about.into()]
                }));
                let head = ["NAME", "VALUE", "FROM", "WHAT"];
                output.bytes(fitted_table(output, &head, &["WHAT"], &rows).as_bytes())?;
            }
        }
        Some(ConfigAction::Get { name }) => {
            let (value, is_default) = settings.get(Setting::named(&name)?);
            if output.json {
                output.object(&json!({ "name": name, "value": value, "default": is_default }))?;
            } else {
                output.line(value)?;
            }
        }
        Some(ConfigAction::Set { name, value }) => {
            settings.set(&name, &value)?;
            settings.write(&data)?;
            output.note("it counts from the next start of the host on: windlass host stop");
        }
        Some(ConfigAction::Unset { name }) => {
            settings.unset(Setting::named(&name)?);
            settings.write(&data)?;
            output.note("it counts from the next start of the host on: windlass host stop");
        }
    }
    Ok(0)
}
