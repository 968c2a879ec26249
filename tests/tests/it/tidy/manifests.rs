//! Rules about manifests: who may import whom, and what.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::tree::File;

const EVERYTHING: &[&str] = &["*"];
const CORE: &[&str] = &["windlass-core"];

/// Who may import whom of this repository, dev-dependencies aside.
const IMPORTS: &[(&str, &[&str])] = &[
    ("windlass-core", &[]),
    ("windlass-agents", CORE),
    ("windlass-agents-fuzz", &["windlass-core", "windlass-agents"]),
    ("windlass-shim", CORE),
    ("windlass-fakes", CORE),
    ("windlass-conformance", CORE),
    ("windlass-sqlite", CORE),
    ("windlass-redb", CORE),
    ("windlass-local", &["windlass-core", "windlass-shim"]),
    ("windlass", &["windlass-core", "windlass-agents"]),
    ("windlass-cli", EVERYTHING),
    ("windlass-tests", EVERYTHING),
    ("xtask", EVERYTHING),
];

/// Who may need tokio; the engine only as a feature.
const TOKIO: &[&str] = &[
    "windlass-local",
    "windlass-sqlite",
    "windlass-redb",
    "windlass-conformance",
    "windlass-cli",
    "windlass-tests",
    "xtask",
];

/// What the shim must never carry, however indirectly.
const NOT_IN_THE_SHIM: [&str; 3] = ["serde_json", "tokio", "async-trait"];

/// A dependency as a manifest states it.
struct Dependency<'a> {
    package: &'a str,
    optional: bool,
    table: Option<&'a Table>,
}

/// A member of the workspace.
struct Member<'a> {
    path: &'a str,
    name: String,
    manifest: Table,
}

fn members(files: &[File]) -> Vec<Member<'_>> {
    let manifests = files.iter().filter(|file| file.path.ends_with("/Cargo.toml"));
    manifests
        .map(|file| {
            let manifest: Table = file.text.parse().expect("a manifest");
            let name = manifest["package"]["name"].as_str().expect("a package name").to_owned();
            Member { path: &file.path, name, manifest }
        })
        .collect()
}

/// Lists what is compiled into a member: dependencies and those of its build script, on every target.
fn dependencies(manifest: &Table) -> Vec<Dependency<'_>> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let tables =
        targets.into_iter().flat_map(Table::values).filter_map(Value::as_table).chain([manifest]);
    let mut found = Vec::new();
    for table in tables {
        for kind in ["dependencies", "build-dependencies"] {
            for (key, value) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
                let table = value.as_table();
                let field = |name: &str| table.and_then(|table| table.get(name));
                found.push(Dependency {
                    package: field("package").and_then(Value::as_str).unwrap_or(key),
                    optional: field("optional").and_then(Value::as_bool).unwrap_or(false),
                    table,
                });
            }
        }
    }
    found
}

/// Imports are those of the table above.
pub(super) fn imports(files: &[File]) -> Vec<String> {
    let members = members(files);
    let ours: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let mut complaints = Vec::new();
    for member in &members {
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == member.name) else {
            complaints
                .push(format!("{}: {} is not in the table of imports", member.path, member.name));
            continue;
        };
        for dependency in dependencies(&member.manifest) {
            let package = dependency.package;
            if ours.contains(package) && *allowed != EVERYTHING && !allowed.contains(&package) {
                complaints
                    .push(format!("{}: {} must not import {package}", member.path, member.name));
            }
        }
    }
    complaints
}

/// No runtime but where it belongs, no errors without a type.
pub(super) fn outsiders(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for member in members(files) {
        for dependency in dependencies(&member.manifest) {
            let feature_of_the_engine = member.name == "windlass" && dependency.optional;
            if dependency.package == "tokio"
                && !TOKIO.contains(&member.name.as_str())
                && !feature_of_the_engine
            {
                complaints.push(format!("{}: {} must not need tokio", member.path, member.name));
            }
        }
        let all = dependencies(&member.manifest);
        let dev = member.manifest.get("dev-dependencies").and_then(Value::as_table);
        let names = all
            .iter()
            .map(|one| one.package)
            .chain(dev.into_iter().flat_map(Table::keys).map(String::as_str));
        if names.into_iter().any(|name| name == "anyhow") {
            complaints.push(format!("{}: errors have types here, so no anyhow", member.path));
        }
    }
    complaints
}

/// Every member has the lints of the workspace.
pub(super) fn lints(files: &[File]) -> Vec<String> {
    let inherits = |member: &Member<'_>| {
        let lints = member.manifest.get("lints").and_then(|lints| lints.get("workspace"));
        lints.and_then(Value::as_bool) == Some(true)
    };
    members(files)
        .iter()
        .filter(|member| !inherits(member))
        .map(|member| format!("{}: lacks `[lints] workspace = true`", member.path))
        .collect()
}

/// The shim takes core without its ports, and nothing that it reaches is made for bigger programs.
pub(super) fn small_shim(files: &[File]) -> Vec<String> {
    let members = members(files);
    let find = |name: &str| members.iter().find(|member| member.name == name);
    let (Some(shim), Some(core)) = (find("windlass-shim"), find("windlass-core")) else {
        return vec!["windlass-shim and windlass-core are not both there".to_owned()];
    };
    let workspace = files.iter().find(|file| file.path == "Cargo.toml");
    let workspace: Table =
        workspace.map_or("", |file| &file.text).parse().expect("the workspace's manifest");
    let mut complaints = Vec::new();
    let mut reached: Vec<&str> = Vec::new();
    for dependency in dependencies(&shim.manifest) {
        if dependency.package == "windlass-core" {
            complaints.extend(
                full_core(dependency.table, &workspace).map(|why| format!("{}: {why}", shim.path)),
            );
        } else {
            reached.push(dependency.package);
        }
    }
    reached.extend(
        dependencies(&core.manifest).into_iter().filter(|one| !one.optional).map(|one| one.package),
    );
    let locked = locked(files);
    let all = closure(&reached, &locked);
    complaints.extend(
        NOT_IN_THE_SHIM
            .iter()
            .filter(|name| all.contains(**name))
            .map(|name| format!("{}: reaches {name}", shim.path)),
    );
    complaints
}

/// Says why a dependency on core brings more than the shim's part.
fn full_core(dependency: Option<&Table>, workspace: &Table) -> Option<String> {
    let table = dependency?;
    if table.get("features").and_then(Value::as_array).is_some_and(|features| !features.is_empty())
    {
        return Some("turns on features of windlass-core".to_owned());
    }
    let inherited = table.get("workspace").and_then(Value::as_bool) == Some(true);
    let stated = if inherited {
        workspace
            .get("workspace")
            .and_then(|it| it.get("dependencies"))
            .and_then(|it| it.get("windlass-core"))
    } else {
        None
    };
    let default = stated
        .and_then(Value::as_table)
        .unwrap_or(table)
        .get("default-features")
        .and_then(Value::as_bool);
    (default != Some(false)).then(|| "takes windlass-core with its default features".to_owned())
}

/// Reads who needs whom from the lock file, versions taken together.
fn locked(files: &[File]) -> BTreeMap<String, BTreeSet<String>> {
    let lock = files.iter().find(|file| file.path == "Cargo.lock");
    let lock: Table = lock.map_or("", |file| &file.text).parse().expect("a lock file");
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock.get("package").and_then(Value::as_array).into_iter().flatten() {
        let name = package["name"].as_str().expect("the name of a locked package").to_owned();
        let list = package.get("dependencies").and_then(Value::as_array).into_iter().flatten();
        let names = list
            .filter_map(Value::as_str)
            .filter_map(|one| one.split(' ').next())
            .map(str::to_owned);
        needs.entry(name).or_default().extend(names);
    }
    needs
}

fn closure(from: &[&str], needs: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut todo: Vec<String> = from.iter().map(|&name| name.to_owned()).collect();
    let mut reached = BTreeSet::new();
    while let Some(name) = todo.pop() {
        todo.extend(
            needs.get(&name).into_iter().flatten().filter(|next| !reached.contains(*next)).cloned(),
        );
        reached.insert(name);
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(path: &str, name: &str, rest: &str) -> File {
        File::new(path, &format!("[package]\nname = \"{name}\"\n{rest}"))
    }

    /// A workspace whose core is as it should be and whose shim is given.
    fn with_shim(shim: &str, lock: &str) -> Vec<File> {
        vec![
            File::new(
                "Cargo.toml",
                "[workspace.dependencies]\nwindlass-core = { path = \"core\", default-features = false }",
            ),
            File::new("Cargo.lock", lock),
            member(
                "core/Cargo.toml",
                "windlass-core",
                "[dependencies]\nserde_json = { version = \"1\", optional = true }",
            ),
            member("shim/Cargo.toml", "windlass-shim", shim),
        ]
    }

    #[test]
    fn an_import_against_the_table_is_found_on_every_target_and_under_another_name() {
        for dependency in [
            "[dependencies]\nwindlass-local.workspace = true",
            "[dependencies]\nlocal = { package = \"windlass-local\", path = \"x\" }",
            "[build-dependencies]\nwindlass-local.workspace = true",
            "[target.'cfg(unix)'.dependencies]\nwindlass-local.workspace = true",
        ] {
            let files = [
                member("l/Cargo.toml", "windlass-local", ""),
                member("s/Cargo.toml", "windlass-sqlite", dependency),
            ];
            assert_eq!(imports(&files).len(), 1, "{dependency}");
        }
        let free = member(
            "s/Cargo.toml",
            "windlass-sqlite",
            "[dev-dependencies]\nwindlass-local.workspace = true",
        );
        assert_eq!(
            imports(&[member("l/Cargo.toml", "windlass-local", ""), free]),
            Vec::<String>::new()
        );
        assert_eq!(imports(&[member("n/Cargo.toml", "windlass-new", "")]).len(), 1);
    }

    #[test]
    fn tokio_and_anyhow_out_of_place_are_found() {
        let needs = |name: &str, dependency: &str| {
            outsiders(&[member("c/Cargo.toml", name, dependency)]).len()
        };
        assert_eq!(needs("windlass-fakes", "[dependencies]\ntokio.workspace = true"), 1);
        assert_eq!(needs("windlass", "[dependencies]\ntokio.workspace = true"), 1);
        assert_eq!(
            needs("windlass", "[dependencies]\ntokio = { workspace = true, optional = true }"),
            0
        );
        assert_eq!(needs("windlass-cli", "[dependencies]\nanyhow = \"1\""), 1);
        assert_eq!(needs("windlass-cli", "[dev-dependencies]\nanyhow = \"1\""), 1);
    }

    #[test]
    fn a_member_without_the_lints_is_found() {
        assert_eq!(lints(&[member("c/Cargo.toml", "c", "")]).len(), 1);
        assert_eq!(lints(&[member("c/Cargo.toml", "c", "[lints]\nworkspace = true")]).len(), 0);
    }

    #[test]
    fn a_shim_that_grew_is_found() {
        let bare = "[dependencies]\nwindlass-core.workspace = true\nlibc.workspace = true";
        assert_eq!(small_shim(&with_shim(bare, "")), Vec::<String>::new());
        let ports = "[dependencies]\nwindlass-core = { workspace = true, features = [\"ports\"] }";
        assert_eq!(small_shim(&with_shim(ports, "")).len(), 1);
        let full = "[dependencies]\nwindlass-core = { path = \"core\" }";
        assert_eq!(small_shim(&with_shim(full, "")).len(), 1);
        let lock = "[[package]]\nname = \"libc\"\ndependencies = [\"middle 1.0.0\"]\n\
                    [[package]]\nname = \"middle\"\ndependencies = [\"serde_json\"]";
        assert_eq!(small_shim(&with_shim(bare, lock)).len(), 1);
    }
}
