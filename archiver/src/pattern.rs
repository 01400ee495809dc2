//! File name patterns with the rules of Python's `glob.glob`: `*`, `?` and `[…]` within one path component,
//! `**` is `*`, and a leading dot is matched by a dot only. Results are sorted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};

/// Whether a `--extra-files` item is a pattern.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?']) || (text.contains('[') && text.contains(']'))
}

/// The paths that exist and match.
pub(crate) fn expand(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![if pattern.starts_with('/') { PathBuf::from("/") } else { PathBuf::new() }];
    for component in pattern.split('/').filter(|component| !component.is_empty()) {
        found = found.iter().flat_map(|base| step(base, component)).collect();
    }
    // A pattern of nothing but slashes, or of nothing at all, has named no file.
    found.retain(|path| !path.as_os_str().is_empty());
    found
}

fn step(base: &Path, component: &str) -> Vec<PathBuf> {
    match compile(component) {
        Some(pattern) => matches(base, &pattern),
        None => Some(base.join(component)).filter(|path| path.exists()).into_iter().collect(),
    }
}

/// `None` if the component is to be taken literally.
fn compile(component: &str) -> Option<Pattern> {
    if !component.contains(['*', '?', '[']) {
        return None;
    }
    let mut single = component.to_owned();
    while single.contains("**") {
        single = single.replace("**", "*");
    }
    // To Python an unclosed bracket is itself.
    Pattern::new(&single).or_else(|_| Pattern::new(&single.replace('[', "[[]"))).ok()
}

fn matches(base: &Path, pattern: &Pattern) -> Vec<PathBuf> {
    let rules = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::default() };
    let folder = if base.as_os_str().is_empty() { Path::new(".") } else { base };
    // What can't be listed has no matches, as in Python.
    let listed = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = listed
        .map(|entry| entry.file_name())
        .filter(|name| name.to_str().is_some_and(|name| pattern.matches_with(name, rules)))
        .collect();
    names.sort();
    names.into_iter().map(|name| base.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_like_python() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        for name in ["a.txt", "b.txt", ".hidden.txt", "sub/c.txt", "x[1", "d1/e.py", "d2/e.py"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        let cases: [(&str, &[&str]); 9] = [
            ("*.txt", &["a.txt", "b.txt"]),
            ("**.txt", &["a.txt", "b.txt"]),
            ("[!a].txt", &["b.txt"]),
            ("?.txt", &["a.txt", "b.txt"]),
            (".*.txt", &[".hidden.txt"]),
            ("d*/e.py", &["d1/e.py", "d2/e.py"]),
            ("**/c.txt", &["sub/c.txt"]),
            ("x[1", &["x[1"]),
            ("*.none", &[]),
        ];
        for (pattern, expected) in cases {
            let found = expand(&format!("{root}/{pattern}"));
            let expected: Vec<_> = expected.iter().map(|name| dir.path().join(name)).collect();
            assert_eq!(found, expected, "{pattern}");
        }
    }
}
