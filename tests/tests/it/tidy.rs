//! The rules of the house that no lint enforces. Each reads the repository and lists what is against it.

use std::env;
use std::path::Path;

mod documents;
mod manifests;
mod rust;
mod sources;
mod tree;

use tree::File;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the root of the workspace")
}

/// Fails with everything that `rule` has to say about the repository.
#[track_caller]
fn check(rule: impl Fn(&[File]) -> Vec<String>) {
    let files = tree::read(root());
    assert!(files.iter().any(|file| file.path == "core/src/lib.rs"), "the sources were not found");
    let complaints = rule(&files);
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn crates_import_only_whom_they_may() {
    check(manifests::imports);
}

#[test]
fn tokio_and_anyhow_stay_where_they_belong() {
    check(manifests::outsiders);
}

#[test]
fn every_crate_has_the_lints_of_the_workspace() {
    check(manifests::lints);
}

#[test]
fn the_shim_stays_small() {
    check(manifests::small_shim);
}

#[test]
fn pure_crates_do_not_reach_outside() {
    check(sources::purity);
}

#[test]
fn files_are_short() {
    check(sources::length);
}

#[test]
fn files_are_named_for_what_is_inside() {
    check(sources::file_names);
}

#[test]
fn machines_match_exhaustively() {
    check(sources::exhaustive_machines);
}

#[test]
fn nothing_is_left_open_or_switched_off() {
    check(sources::left_open);
}

#[test]
fn no_test_sleeps() {
    check(sources::sleeps);
}

#[test]
fn every_conformance_case_is_in_its_suite() {
    check(sources::listed_cases);
}

#[test]
fn a_port_has_the_same_file_name_everywhere() {
    check(sources::port_files);
}

#[test]
fn every_document_is_in_the_index() {
    check(documents::indexed);
}

#[test]
fn links_between_documents_lead_somewhere() {
    check(documents::links_lead_somewhere);
}

#[test]
fn the_readme_shows_the_example_that_runs() {
    check(documents::shown_example);
}

#[test]
fn nothing_names_a_folder_of_this_machine() {
    // Temporary folders are named in documentation; a checkout below one says nothing about the machine.
    let telling =
        |folder: &Path| folder.components().count() > 1 && !folder.starts_with(env::temp_dir());
    let home = env::var_os("HOME").map(Into::into);
    let around = root().parent().map(Path::to_path_buf);
    let folders: Vec<String> = [home, around]
        .into_iter()
        .flatten()
        .filter(|folder: &std::path::PathBuf| telling(folder))
        .map(|folder| format!("{}/", folder.display()))
        .collect();
    check(|files| documents::machine_paths(files, &folders));
}
