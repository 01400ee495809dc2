//! Who may manage models from inside a browser. A page on any site can send requests to this machine; these two checks keep it from managing models.
//!
//! A foreign page's requests carry its `Origin`. One that has its own name resolve to this machine (DNS rebinding) is of the same origin, but
//! carries that name as `Host`. Programs that aren't browsers send no `Origin`, and reach the server under a name of its own.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};

use crate::failure::Failure;

/// The names under which the server may be managed, beside IP addresses and `localhost`.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    /// The machine's own name, and those that the operator allows.
    pub(super) fn new(machine: &str, allowed: &[String]) -> Self {
        Self(
            allowed.iter().map(String::as_str).chain([machine.trim()]).map(str::to_ascii_lowercase).collect(),
        )
    }

    /// Refuses what a foreign page may have sent.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let host = headers.get(HOST);
        if let Some(host) = host
            && !self.know(host)
        {
            return Err(Failure::ForeignHost { host: shown(host) });
        }
        match headers.get(ORIGIN) {
            Some(origin) if !same(origin, host) => Err(Failure::ForeignOrigin { origin: shown(origin) }),
            _ => Ok(()),
        }
    }

    fn know(&self, host: &HeaderValue) -> bool {
        let Some(authority) = authority(host) else { return false };
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
        address.parse::<IpAddr>().is_ok() || name == "localhost" || self.0.contains(&name)
    }
}

fn authority(value: &HeaderValue) -> Option<Authority> {
    value.to_str().ok()?.parse().ok()
}

/// Whether a page of this origin came from the server that was asked.
fn same(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let asked = host.and_then(|host| host.to_str().ok());
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    matches!((page, asked), (Some((_, page)), Some(asked)) if page.eq_ignore_ascii_case(asked))
}

fn shown(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let names = Names::new("Box\n", &["models.example".to_owned()]);
        // (Host, Origin, admitted)
        let cases = [
            (None, None, true),
            (Some("127.0.0.1:8081"), None, true),
            (Some("[::1]:8081"), None, true),
            (Some("10.1.2.3"), None, true),
            (Some("localhost:8081"), None, true),
            (Some("LOCALHOST."), None, true),
            (Some("box"), None, true),
            (Some("models.example:80"), None, true),
            (Some("rebound.evil:8081"), None, false),
            (Some("localhost.evil"), None, false),
            (Some("127.0.0.1.evil"), None, false),
            (Some("a b"), None, false),
            (Some("localhost:8081"), Some("http://localhost:8081"), true),
            (Some("localhost:8081"), Some("https://LocalHost:8081"), true),
            (Some("localhost:8081"), Some("http://localhost:3000"), false),
            (Some("localhost:8081"), Some("https://evil"), false),
            (Some("localhost:8081"), Some("null"), false),
            (None, Some("http://localhost:8081"), false),
            (Some("rebound.evil"), Some("http://rebound.evil"), false),
        ];
        for (host, origin, admitted) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in [(HOST, host), (ORIGIN, origin)] {
                value.map(|value| headers.insert(name, HeaderValue::from_static(value)));
            }
            assert_eq!(names.admit(&headers).is_ok(), admitted, "{host:?} {origin:?}");
        }
    }
}
