//! The layers of the house: an arrow between modules only ever runs down.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the function, top floor first. A module may use those of its own floor and below.
const FUNCTION: &[&[&str]] = &[
    &["lambda"],
    &["audit"],
    &["archive", "staging"],
    &["aws"],
    &["request", "settings"],
];

/// The modules of the archive's library, top floor first.
const ARCHIVE: &[&[&str]] = &[
    &["answer", "verify"],
    &["page", "renewal_plan"],
    &["named_object"],
    &["source"],
    &["aws"],
    &["layout", "line_reader"],
    &["documents"],
    &["domain"],
];

/// What the pure modules must not name: an SDK, a runtime, the environment, a clock, a file.
const IMPURE: [&str; 8] = [
    "aws_",
    "tokio",
    "tracing",
    "std::env",
    "std::fs",
    "std::net",
    "Instant",
    "SystemTime::now",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder, with the text before its tests.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut sources = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
                sources.push((path, code));
            }
        }
    }
    assert!(!sources.is_empty(), "{}", folder.display());
    sources
}

/// The top-level modules that a file names by their path from the crate's root.
fn used(code: &str) -> impl Iterator<Item = &str> {
    code.split("crate::").skip(1).map(|path| {
        let end = path.find(|character: char| !character.is_ascii_lowercase() && character != '_');
        &path[..end.unwrap_or(path.len())]
    })
}

fn check_floors(folder: &Path, floors: &[&[&str]]) {
    let floor_of = |module: &str| floors.iter().position(|floor| floor.contains(&module));
    for (path, code) in sources(folder) {
        let module = path.strip_prefix(folder).unwrap();
        let module = module.iter().next().unwrap().to_str().unwrap();
        let module = module.trim_end_matches(".rs");
        // The crate's root is above all floors.
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let floor = floor_of(module).unwrap_or_else(|| panic!("`{module}` is on no floor"));
        for used in used(&code) {
            let below = floor_of(used);
            assert!(
                below.is_some_and(|below| below >= floor),
                "{} uses `crate::{used}`, which is not below it",
                path.display()
            );
        }
    }
}

#[test]
fn arrows_between_the_functions_modules_only_run_down() {
    check_floors(&root().join("src"), FUNCTION);
}

#[test]
fn arrows_between_the_archives_modules_only_run_down() {
    check_floors(&root().join("crates/archive/src"), ARCHIVE);
}

#[test]
fn the_rules_the_documents_and_the_page_are_pure() {
    for folder in ["domain", "documents", "page"] {
        for (path, code) in sources(&root().join("crates/archive/src").join(folder)) {
            for impure in IMPURE {
                assert!(!code.contains(impure), "{} names {impure}", path.display());
            }
        }
    }
}

#[test]
fn only_the_functions_aws_folder_names_the_ec2_client() {
    for crate_folder in ["src", "crates/archive/src", "crates/cli/src"] {
        let folder = root().join(crate_folder);
        for (path, code) in sources(&folder) {
            let may = path.starts_with(root().join("src/aws"));
            assert!(may || !code.contains("aws_sdk_ec2"), "{}", path.display());
        }
    }
}
