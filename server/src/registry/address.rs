//! Which URLs and folders may be registered from, and which machines may be talked to for it.
//!
//! `allowed_urls` is about the URL as the parser sees it, so that there is one spelling of everything; what a
//! name resolves to is judged afterwards, address by address. Opens no connection.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use url::{Host, Url};

use super::fetch::is_partial;
use super::register::Trust;
use crate::config::UrlPatterns;

/// The longest name of a file.
const MAX_NAME: usize = 255;

/// What the operator allows.
#[derive(Debug)]
pub(super) struct Rules {
    /// What was said explicitly.
    allowed: Option<UrlPatterns>,
    store: Option<PathBuf>,
}

/// A URL that may be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// As the client wrote it.
    pub(super) given: String,
    /// As the parser understands it.
    pub(super) url: Url,
    /// The name under which it is saved.
    pub(super) file: String,
}

/// Why something isn't allowed; for the log, not for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused(pub(super) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn refused<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(why.into()))
}

impl Rules {
    pub(super) fn new(allowed: Option<UrlPatterns>, store: Option<PathBuf>) -> Self {
        Self { allowed, store }
    }

    /// Reads a URL that somebody wants to register from.
    pub(super) fn admit(&self, given: &str, trust: Trust) -> Result<Address, Refused> {
        if given.contains(|c: char| c.is_ascii_control()) {
            return refused("it has control characters");
        }
        let url = Url::parse(given).map_err(|error| Refused(format!("it is no URL: {error}")))?;
        let file = base_name(&url)?;
        self.check(&url, trust)?;
        Ok(Address { given: given.to_owned(), url, file })
    }

    /// Where a redirect leads.
    pub(super) fn redirect(&self, from: &Url, location: &str, trust: Trust) -> Result<Url, Refused> {
        let to = from.join(location).map_err(|error| Refused(format!("it redirects to no URL: {error}")))?;
        let refuse =
            |why: &dyn fmt::Display| Refused(format!("it redirects to {}: {why}", without_secrets(&to)));
        if !matches!(to.scheme(), "http" | "https") {
            return Err(refuse(&"that is neither http nor https"));
        }
        if (from.scheme(), to.scheme()) == ("https", "http") {
            return Err(refuse(&"that is less safe than https"));
        }
        self.check(&to, trust).map_err(|why| refuse(&why))?;
        Ok(to)
    }

    fn check(&self, url: &Url, trust: Trust) -> Result<(), Refused> {
        if !url.username().is_empty() || url.password().is_some() {
            return refused("user names and passwords are not accepted in URLs");
        }
        if let Some(allowed) = &self.allowed
            && !allowed.matches(url.as_str())
        {
            return refused("--allowed-urls doesn't match it");
        }
        match url.scheme() {
            "http" | "https" => match url.host() {
                Some(Host::Ipv4(address)) => self.check_address(address.into(), trust),
                Some(Host::Ipv6(address)) => self.check_address(address.into(), trust),
                // Judged by what it resolves to.
                Some(Host::Domain(_)) => Ok(()),
                None => refused("it has no host"),
            },
            "file" => self.check_file(url, trust),
            scheme => refused(format!("`{scheme}` can't be fetched; http, https and file can")),
        }
    }

    fn check_file(&self, url: &Url, trust: Trust) -> Result<(), Refused> {
        let Some(path) = file_path(url) else { return refused("it names no file of this machine") };
        if self.allowed.is_some() || trust == Trust::Operator || self.is_inside(&path) {
            return Ok(());
        }
        refused("it is outside of the model store; --allowed-urls can allow it")
    }

    /// Whether an address may be connected to.
    pub(super) fn check_address(&self, address: IpAddr, trust: Trust) -> Result<(), Refused> {
        let inner = innermost(address);
        let named = |allowed: &UrlPatterns| allowed.name(address) || allowed.name(inner);
        if let Some(what) = special(inner)
            && !self.allowed.as_ref().is_some_and(named)
        {
            return refused(format!("{address} is {what}; it would have to be spelt out in --allowed-urls"));
        }
        if self.allowed.is_some() || trust == Trust::Operator || is_near(inner) {
            return Ok(());
        }
        refused(format!("{address} is in no private network; --allowed-urls can allow it"))
    }

    /// Whether a folder may be served where it is.
    pub(super) fn check_folder(&self, path: &Path, trust: Trust) -> Result<(), Refused> {
        if trust == Trust::Operator || self.is_inside(path) {
            return Ok(());
        }
        let url = Url::from_file_path(path).ok();
        let matches = |allowed: &UrlPatterns| url.is_some_and(|url| allowed.matches(url.as_str()));
        if self.allowed.as_ref().is_some_and(matches) {
            return Ok(());
        }
        refused("it is outside of the model store; --allowed-urls can allow it as file://…")
    }

    fn is_inside(&self, path: &Path) -> bool {
        let Some(root) = &self.store else { return false };
        // By name too: a link in the store was put there by its owner.
        let by_name = path.starts_with(root) && path != root;
        let real = || Some((fs::canonicalize(root).ok()?, fs::canonicalize(path).ok()?));
        by_name || real().is_some_and(|(root, path)| path.starts_with(&root) && path != root)
    }
}

/// The file of a `file://` URL.
pub(super) fn file_path(url: &Url) -> Option<PathBuf> {
    // A host would be another machine's.
    if url.host_str().is_some() { None } else { url.to_file_path().ok() }
}

/// Under which name an archive is saved: the last part of the path as it stands there, encoded characters included.
fn base_name(url: &Url) -> Result<String, Refused> {
    let name = url.path().rsplit('/').next().unwrap_or_default();
    if name.is_empty() || name == "." {
        return refused("it names no file");
    }
    if name.len() > MAX_NAME || is_partial(name) {
        return refused("its last part can't be the name of a file in the model store");
    }
    Ok(name.to_owned())
}

/// Whether this is a URL rather than a path: `scheme://…`.
pub(super) fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

/// Whether there is a `..` in it, however often it was encoded.
pub(super) fn leads_up(text: &str) -> bool {
    let mut text = text.to_owned();
    loop {
        if text.contains("..") {
            return true;
        }
        // Each round is shorter than the one before.
        let decoded = text.replace("%2e", ".").replace("%2E", ".").replace("%25", "%");
        if decoded == text {
            return false;
        }
        text = decoded;
    }
}

/// A registration's URL for the log: without passwords, and without queries, in which signatures are.
pub(super) fn loggable(url: &str) -> Cow<'_, str> {
    if !is_url(url) {
        return Cow::Borrowed(url);
    }
    match Url::parse(url) {
        Ok(url) => Cow::Owned(without_secrets(&url)),
        Err(_) => Cow::Borrowed("(not a URL)"),
    }
}

pub(super) fn without_secrets(url: &Url) -> String {
    let mut plain = url.clone();
    // These can fail only for URLs that can't have either.
    let _ = plain.set_username("");
    let _ = plain.set_password(None);
    plain.set_fragment(None);
    if plain.query().is_some() {
        plain.set_query(Some("..."));
    }
    plain.into()
}

/// The IPv4 address that an IPv6 address stands for, if it does.
fn innermost(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let tail = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        // Mapped; translated (NAT64); compatible, but for `::` and `::1`.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => tail(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => tail(high, low),
        // 6to4.
        [0x2002, high, low, ..] => tail(high, low),
        _ => address,
    }
}

/// What an address is that no archive comes from.
fn special(address: IpAddr) -> Option<&'static str> {
    /// Where clouds tell a machine its secrets, as far as that isn't link-local.
    const METADATA: [IpAddr; 5] = [
        IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
        IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
        IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
        IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    ];
    if METADATA.contains(&address) {
        return Some("a cloud's metadata service");
    }
    let (unspecified, link_local, broadcast) = match address {
        // All of 0/8 means this machine.
        IpAddr::V4(v4) => (v4.octets()[0] == 0, v4.is_link_local(), v4.octets()[0] >= 240),
        IpAddr::V6(v6) => (v6.is_unspecified(), v6.is_unicast_link_local(), false),
    };
    match () {
        () if unspecified => Some("no machine's address"),
        () if link_local => Some("a link-local address"),
        () if address.is_multicast() => Some("a multicast address"),
        () if broadcast => Some("a reserved address"),
        () => None,
    }
}

/// Whether an address belongs to this machine or a private network.
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests;
