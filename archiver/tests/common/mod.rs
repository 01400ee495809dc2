//! A project folder to pack, and trees to compare.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "helpers of tests; each test program uses a part"
)]

pub mod raw;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use zoo_archiver::{
    PackSpec, Runtime,
    spec::{Destination, Extra, Name, Noun},
};

/// A folder with files to pack, and `out` beside them.
pub struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub fn touch(&self, name: &str) {
        let file = fs::File::options().append(true).open(self.path(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }

    /// The smallest spec: a built-in handler.
    pub fn spec(&self) -> PackSpec {
        PackSpec {
            name: Name::new("model", Noun::Model).unwrap(),
            version: "1.0".into(),
            runtime: Runtime::Python,
            handler: Some("base_handler".into()),
            serialized_file: None,
            model_file: None,
            extra_files: Vec::new(),
            requirements_file: None,
            config_file: None,
            target: None,
            created_on: "01/02/2003 04:05:06".into(),
            manifest: None,
        }
    }

    /// `--extra-files` items, their paths taken below the project.
    pub fn extras(&self, items: &[&str]) -> Vec<Extra> {
        let below = |item: &str| match item.split_once("/=") {
            Some((dest, source)) => format!("{dest}/={}", self.path(source).display()),
            None => self.path(item).display().to_string(),
        };
        items.iter().flat_map(|item| Extra::parse_list(&below(item))).collect()
    }

    pub fn to(&self) -> Destination {
        Destination { export_path: self.path("out"), force: true }
    }
}

/// Bytes that don't compress, the same each time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(length / 8 + 1).flatten().collect();
    bytes.truncate(length);
    bytes
}

/// All files below a folder.
pub fn read_tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}
