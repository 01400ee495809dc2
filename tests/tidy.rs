//! The sources as such: the one-way street of the server's modules, documentation where it is due, links that lead somewhere.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each module of the server may import. Those of the request path stand in its order: each sees only modules before it.
const ALLOWED: [(&str, &[&str]); 15] = [
    ("name", &[]),
    ("failure", &["name"]),
    ("request", &["failure", "name"]),
    ("batch", &["failure", "name", "request"]),
    // Beside the path: settings and facts that know no request.
    ("yaml", &[]),
    ("metrics", &["yaml"]),
    ("model", &["name"]),
    ("config", &["metrics", "model", "name"]),
    ("sdk", &[]),
    ("listen", &[]),
    ("shutdown", &[]),
    ("worker", &["batch", "failure", "metrics", "model", "name", "request"]),
    ("registry", &["config", "failure", "model", "name", "request", "worker", "yaml"]),
    ("api", &["config", "failure", "metrics", "model", "name", "registry", "request", "worker"]),
    ("server", &["api", "config", "listen", "metrics", "registry", "sdk", "worker"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The files that belong to the project: what git has, or would add.
fn files(suffix: &str) -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files of the project");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let found: Vec<_> = listed
        .lines()
        .filter(|name| name.ends_with(suffix))
        .map(|name| root().join(name))
        .filter(|path| path.is_file())
        .collect();
    assert!(!found.is_empty(), "no file ends with {suffix}");
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// The modules that a source file of the server names by `crate::…`. Comments and documentation may name anything.
fn imports(source: &str) -> BTreeSet<String> {
    let code: Vec<_> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    code.join("\n").split("crate::").skip(1).flat_map(first_names).filter(|name| !name.is_empty()).collect()
}

/// The first names in what follows a `crate::`: of a path, or of each path in a group.
fn first_names(rest: &str) -> Vec<String> {
    let name = |path: &str| path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut names, mut begin, mut depth) = (Vec::new(), 0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.push(name(group[begin..at].trim_start()));
                begin = at + 1;
                if letter == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names
}

#[test]
fn imports_are_read_from_each_form() {
    let source = "//! See [`crate::api`].\nuse crate::batch::queue::Queue;\nuse crate::{name, request::{Part, Request}, failure::Failure};\n\
                  fn f() -> crate::model::X {}\n// crate::server";
    let expected = ["batch", "failure", "model", "name", "request"].map(str::to_owned);
    assert_eq!(imports(source), BTreeSet::from(expected));
}

#[test]
fn the_servers_modules_import_one_way_only() {
    let source = root().join("server/src");
    let mut problems = Vec::new();
    for path in files(".rs") {
        let Ok(inside) = path.strip_prefix(&source) else { continue };
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.strip_suffix(".rs").unwrap_or(first);
        if module == "lib" || module == "main" {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
            problems.push(format!(
                "{}: the import table in tests/tidy.rs has no row for `{module}`",
                shown(&path)
            ));
            continue;
        };
        for import in imports(&read(&path)) {
            if import != module && !allowed.contains(&import.as_str()) {
                problems.push(format!("{}: `{module}` may not import `{import}`", shown(&path)));
            }
        }
    }
    assert_none(&problems);
    for (index, (module, allowed)) in ALLOWED.iter().enumerate() {
        for import in *allowed {
            let before = ALLOWED[..index].iter().any(|(name, _)| name == import);
            assert!(before, "the table itself goes two ways: `{module}` before `{import}`");
        }
    }
}

#[test]
fn each_rust_file_says_what_it_is_for() {
    let silent = |path: &PathBuf| !read(path).trim_start().starts_with("//!");
    // Handlers and models in test data and examples are users' files.
    let ours = |path: &PathBuf| !shown(path).contains("/fixtures/") && !shown(path).contains("/corpus/");
    let problems: Vec<_> = files(".rs")
        .iter()
        .filter(|path| ours(path) && silent(path))
        .map(|path| format!("{}: doesn't begin with a `//!` that says what it is for", shown(path)))
        .collect();
    assert_none(&problems);
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    // In pieces, so that this file passes too.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("unimpl", "emented!("),
        concat!("to", "do!("),
        concat!("XX", "X "),
    ];
    let ignored = concat!("#[ign", "ore");
    let mut problems = Vec::new();
    for suffix in [".rs", ".py", ".toml", ".md", "run", "python-env"] {
        for path in files(suffix) {
            for (number, line) in read(&path).lines().enumerate() {
                for word in words.iter().filter(|word| line.contains(**word)) {
                    problems.push(format!("{}:{}: {word}", shown(&path), number + 1));
                }
                // A program that another test starts is in the same file as that test.
                let started = line.contains("runs as a child of another test");
                if suffix == ".rs" && line.contains(ignored) && !started {
                    problems.push(format!("{}:{}: a test that never runs", shown(&path), number + 1));
                }
            }
        }
    }
    assert_none(&problems);
}

/// A checkout works anywhere, so nothing in it names the machine on which it was written.
#[test]
fn no_file_names_a_machine() {
    let places = [concat!("/wo", "rk/"), concat!("/tm", "p/wt"), concat!("/ro", "ot/.")];
    let mut problems = Vec::new();
    for path in files("") {
        for (number, line) in read(&path).lines().enumerate() {
            for place in places.iter().filter(|place| line.contains(**place)) {
                problems.push(format!("{}:{}: {place}", shown(&path), number + 1));
            }
        }
    }
    assert_none(&problems);
}

/// It brings a library of two gigabytes: only the worker that runs TorchScript may ask for it.
#[test]
fn only_the_torchscript_worker_depends_on_tch() {
    let mut problems = Vec::new();
    for path in files("Cargo.toml") {
        let names = read(&path).lines().any(|line| {
            let key = line.split(['=', '.']).next().unwrap_or_default().trim();
            key == "tch" || key == "torch-sys"
        });
        if names && !shown(&path).starts_with("handler-sdk/torch/") {
            problems.push(format!("{}: depends on tch", shown(&path)));
        }
    }
    assert_none(&problems);
}

#[test]
fn relative_links_lead_somewhere() {
    let mut problems = Vec::new();
    for path in files(".md") {
        let text = read(&path);
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap_or_default();
            let file = target.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://")
                || target.starts_with("mailto:")
                || target.contains(char::is_whitespace);
            if !file.is_empty() && !elsewhere && !path.parent().unwrap().join(file).exists() {
                problems.push(format!("{}: the link to {target} leads nowhere", shown(&path)));
            }
        }
    }
    assert_none(&problems);
}
