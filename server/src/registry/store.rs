//! Where a registration's `url` leads: TorchServe's order of looking, and what may be read at all.
//!
//! Of what is outside of the model store, clients reach what the rules allow. The operator, who names models at
//! the start, may name folders anywhere.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::address::{Address, Refused, Rules, is_url, leads_up, loggable};
use super::fetch::is_partial;
use super::register::Trust;
use crate::failure::Failure;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// An archive, to be unpacked.
    Archive(PathBuf),
    /// A folder, which is used where it is.
    Folder(PathBuf),
    /// Something to fetch into the model store first, which is there.
    Elsewhere {
        /// What.
        address: Address,
        /// The model store.
        store: PathBuf,
    },
}

/// The model store.
#[derive(Debug)]
pub(super) struct Store {
    root: Option<PathBuf>,
    rules: Arc<Rules>,
}

impl Store {
    pub(super) fn new(root: Option<PathBuf>, rules: Arc<Rules>) -> Self {
        Self { root, rules }
    }

    /// Finds what `url` names.
    pub(super) fn locate(&self, url: &str, trust: Trust) -> Result<Found, Failure> {
        if leads_up(url) {
            return Err(Failure::RelativeUrl { url: url.to_owned() });
        }
        if url.is_empty() {
            return Err(Failure::EmptyUrl);
        }
        if is_url(url) {
            return self.elsewhere(url, trust);
        }
        let path = Path::new(url);
        if trust == Trust::Operator && path.is_absolute() && path.is_dir() {
            return Ok(Found::Folder(path.to_owned()));
        }
        let Some(root) = &self.root else {
            return Err(Failure::NoModelStore);
        };
        if let Some(found) = below(root, url) {
            return Ok(found);
        }
        if !path.is_absolute() {
            return Err(Failure::NothingAtUrl { url: url.to_owned() });
        }
        // Before looking: whether it exists isn't told.
        self.rules.check_folder(path, trust).map_err(|why| refuse(url, &why))?;
        if path.is_dir() {
            return Ok(Found::Folder(path.to_owned()));
        }
        Err(Failure::NothingAtUrl { url: url.to_owned() })
    }

    fn elsewhere(&self, url: &str, trust: Trust) -> Result<Found, Failure> {
        let address = self.rules.admit(url, trust).map_err(|why| refuse(url, &why))?;
        let Some(root) = &self.root else {
            return Err(Failure::NoModelStore);
        };
        let path = root.join(&address.file);
        match path.symlink_metadata() {
            // What the last start fetched would be in the way of the next one.
            Ok(data) if trust == Trust::Operator && data.is_file() => {
                info!(url = %loggable(url), "not fetched again: {} is there", path.display());
                Ok(Found::Archive(path))
            }
            Ok(_) => Err(Failure::FileExists { file: address.file }),
            Err(_) => Ok(Found::Elsewhere { address, store: root.clone() }),
        }
    }

    /// What `--models all` means: archives and folders that aren't hidden, by name.
    pub(super) fn all(&self) -> io::Result<Vec<String>> {
        let Some(root) = &self.root else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in fs::read_dir(root)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                warn!("{} is left out: its name isn't UTF-8", path.display());
                continue;
            };
            let archive = [".mar", ".model", ".tar.gz"].iter().any(|end| name.ends_with(end));
            if !name.starts_with('.') && (path.is_dir() || (archive && path.is_file())) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// The last part of `url` in the store: a file, or else a folder.
fn below(root: &Path, url: &str) -> Option<Found> {
    let name = url.rsplit('/').next().filter(|name| !matches!(*name, "" | ".") && !is_partial(name))?;
    let path = root.join(name);
    if path.is_file() {
        return Some(Found::Archive(path));
    }
    // `/elsewhere/m` isn't the folder `m` of the store.
    let named = !url.contains('/') || Path::new(url) == path;
    (named && path.is_dir()).then_some(Found::Folder(path))
}

fn refuse(url: &str, why: &Refused) -> Failure {
    warn!(url = %loggable(url), "refused: {why}");
    Failure::UrlNotAllowed { url: url.to_owned() }
}

/// The name that a model gets at the start if nothing else names it: the file's, made plain.
pub(super) fn default_name(location: &str) -> String {
    let path = if is_url(location) { location.split(['?', '#']).next() } else { None };
    let location = path.unwrap_or(location);
    let file = location.trim_end_matches('/').rsplit('/').next().unwrap_or(location);
    let stem = [".mar", ".model", ".tar.gz"].iter().find_map(|end| file.strip_suffix(end)).unwrap_or(file);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    stem.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UrlPatterns;

    fn open(root: Option<PathBuf>, allowed: Option<&str>) -> Store {
        let allowed = allowed.map(|text| UrlPatterns::parse(text).unwrap());
        Store::new(root.clone(), Arc::new(Rules::new(allowed, root)))
    }

    #[test]
    fn urls_lead_where_torchserve_looks_but_not_out_of_the_store() {
        let temp = tempfile::tempdir().unwrap();
        let store = temp.path().join("store");
        let outside = temp.path().join("outside");
        fs::create_dir_all(store.join("folder/inner")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(store.join("m.mar"), "").unwrap();
        fs::write(outside.join("o.mar"), "").unwrap();
        fs::write(store.join(".zoo-fetch-x.part"), "").unwrap();
        std::os::unix::fs::symlink(&outside, store.join("linked")).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let not_allowed = |url: &str| Err(Failure::UrlNotAllowed { url: url.to_owned() });
        let nothing = |url: &str| Err(Failure::NothingAtUrl { url: url.to_owned() });
        let relative = |url: &str| Err(Failure::RelativeUrl { url: url.to_owned() });
        let archive = || Ok(Found::Archive(store.join("m.mar")));
        let folder = |name: &str| Ok(Found::Folder(store.join(name)));
        let out = text(&outside);

        let cases: Vec<(String, Result<Found, Failure>)> = vec![
            ("m.mar".into(), archive()),
            ("sub/m.mar".into(), archive()),
            ("/any/where/m.mar".into(), archive()),
            ("folder".into(), folder("folder")),
            (text(&store.join("folder")), folder("folder")),
            (text(&store.join("folder/inner")), folder("folder/inner")),
            ("linked".into(), folder("linked")),
            (text(&store.join("linked")), folder("linked")),
            ("../m.mar".into(), relative("../m.mar")),
            ("http://h/../m.mar".into(), relative("http://h/../m.mar")),
            ("a..b.mar".into(), relative("a..b.mar")),
            (String::new(), Err(Failure::EmptyUrl)),
            ("missing.mar".into(), nothing("missing.mar")),
            ("sub/folder".into(), nothing("sub/folder")),
            (".".into(), nothing(".")),
            ("/".into(), not_allowed("/")),
            (text(&store), not_allowed(&text(&store))),
            (text(&store.join("nope")), nothing(&text(&store.join("nope")))),
            (out.clone(), not_allowed(&out)),
            ("/no/such/folder".into(), not_allowed("/no/such/folder")),
            ("%2E./m.mar".into(), relative("%2E./m.mar")),
            (".zoo-fetch-x.part".into(), nothing(".zoo-fetch-x.part")),
            ("http://localhost/m.mar".into(), Err(Failure::FileExists { file: "m.mar".into() })),
            ("http://localhost/folder".into(), Err(Failure::FileExists { file: "folder".into() })),
            ("file:///tmp/m.mar".into(), not_allowed("file:///tmp/m.mar")),
            ("S3://bucket/m.mar".into(), not_allowed("S3://bucket/m.mar")),
        ];
        let found = open(Some(store.clone()), None);
        for (url, expected) in cases {
            assert_eq!(found.locate(&url, Trust::Client), expected, "{url:?}");
        }
        assert_eq!(found.locate(&out, Trust::Operator), Ok(Found::Folder(outside.clone())));
        let fetched_before = found.locate("http://example.com/m.mar", Trust::Operator);
        assert_eq!(fetched_before, archive());
        let elsewhere = found.locate("http://localhost/sub/n.mar?x=/y", Trust::Client).unwrap();
        let Found::Elsewhere { address, .. } = elsewhere else { panic!("{elsewhere:?}") };
        assert_eq!(address.file, "n.mar");

        let pattern = format!("file://{out}.*");
        let allowing = open(Some(store.clone()), Some(&pattern));
        assert_eq!(allowing.locate(&out, Trust::Client), Ok(Found::Folder(outside.clone())));
        assert_eq!(allowing.locate("/etc", Trust::Client), not_allowed("/etc"));
        assert_eq!(
            allowing.locate("http://localhost/n.mar", Trust::Client),
            not_allowed("http://localhost/n.mar")
        );

        let none = open(None, None);
        assert_eq!(none.locate("m.mar", Trust::Client), Err(Failure::NoModelStore));
        assert_eq!(none.locate(&out, Trust::Client), Err(Failure::NoModelStore));
        assert_eq!(none.locate(&out, Trust::Operator), Ok(Found::Folder(outside)));
        assert_eq!(none.locate("", Trust::Client), Err(Failure::EmptyUrl));
        assert_eq!(none.locate("http://localhost/n.mar", Trust::Client), Err(Failure::NoModelStore));
    }

    #[test]
    fn all_means_archives_and_folders_that_arent_hidden() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["b.mar", "a.tar.gz", "c.model", "readme.txt", ".hidden.mar"] {
            fs::write(temp.path().join(name), "").unwrap();
        }
        fs::create_dir(temp.path().join("folder")).unwrap();
        fs::create_dir(temp.path().join(".git")).unwrap();
        let store = open(Some(temp.path().to_owned()), None);
        assert_eq!(store.all().unwrap(), ["a.tar.gz", "b.mar", "c.model", "folder"]);
        assert!(open(Some(temp.path().join("gone")), None).all().is_err());
    }

    #[test]
    fn default_names_are_plain() {
        let cases = [
            ("http://h/a/m.mar?sig=/x", "m"),
            ("m.mar", "m"),
            ("/s/res-net 18.mar", "res_net_18"),
            ("x.tar.gz", "x"),
            ("dir/", "dir"),
        ];
        for (location, name) in cases {
            assert_eq!(default_name(location), name);
        }
    }
}
