//! The plugin contract keeps its word: what a released version promised, today's still has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use claviger_e2e::contract::Contract;

#[test]
fn todays_contract_breaks_no_plugin_of_an_earlier_release() {
    let today = Contract::read(&workspace("wit"));
    let mut releases = 0;
    for release in std::fs::read_dir(workspace("tests/abi")).expect("the corpus") {
        let folder = release.expect("an entry").path().join("wit");
        if !folder.is_dir() {
            continue;
        }
        releases += 1;
        let breaks = today.breaks(&Contract::read(&folder));
        assert!(breaks.is_empty(), "{}: {breaks:#?}", folder.display());
    }
    assert!(releases > 0, "no release to compare with");
}

/// What was written before and after, in which file, and what must be said of it.
type Change = (&'static str, &'static str, &'static str, &'static str);

#[test]
fn a_change_that_breaks_is_found() {
    let cases: [Change; 9] = [
        ("types/types.wit", "kind: error-kind,", "kind: error-kind,\n extra: u8,", "`type error`"),
        ("types/types.wit", "    rate-limited,", "", "`type error-kind` was"),
        ("types/types.wit", "    timeout,", "    timeout,\n    tired,", "`type error-kind` was"),
        ("sql/sql.wit", "ident: func(name: string)", "ident: func(name: u32)", "[method]statement"),
        ("sql/sql.wit", "literal: func", "literally: func", "no `[method]statement.literal`"),
        ("provider/provider.wit", "  import claviger:sql/sql@0.1.0;", "", "/sql` is gone"),
        (
            "provider/provider.wit",
            "export provider;",
            "export provider;\n export calls;",
            "demanded",
        ),
        (
            "provider/provider.wit",
            "interface provider {",
            "interface provider {\n  tired: func() -> bool;",
            "demands a new `tired`",
        ),
        ("log/log.wit", "interface log {", "interface log {\n  more: func();", "same version"),
    ];
    let released = Contract::read(&workspace("tests/abi/0.1.0/wit"));
    for (file, before, after, expect) in cases {
        let copy = tempfile::tempdir().expect("a folder");
        copy_folder(&workspace("tests/abi/0.1.0/wit"), copy.path());
        let path = copy.path().join(file);
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(text.contains(before), "{file} has no `{before}`");
        std::fs::write(&path, text.replacen(before, after, 1)).expect("written");
        let breaks = Contract::read(copy.path()).breaks(&released);
        assert!(breaks.iter().any(|found| found.contains(expect)), "{file}, {expect}: {breaks:#?}");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
