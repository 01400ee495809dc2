//! Spellings of URLs and addresses, and what the rules make of them; seeded mutations of all of it.

use super::*;
use crate::registry::fixture::Random;

fn rules(allowed: Option<&str>) -> Rules {
    Rules::new(allowed.map(|text| UrlPatterns::parse(text).unwrap()), Some("/store".into()))
}

/// The URL as it is understood, or why it is refused.
fn admitted(allowed: Option<&str>, url: &str) -> Result<String, String> {
    rules(allowed).admit(url, Trust::Client).map(|address| address.url.into()).map_err(|why| why.0)
}

#[test]
fn without_allowed_urls_only_near_machines_may_be_asked() {
    let cases = [
        ("http://127.0.0.1/m.mar", ""),
        ("https://10.1.2.3:8443/a/m.mar?x=1#y", ""),
        ("http://192.168.0.1/m.mar", ""),
        ("http://172.31.255.255/m.mar", ""),
        ("http://[::1]/m.mar", ""),
        ("http://[fd12:3456::1]/m.mar", ""),
        ("http://[::ffff:127.0.0.1]/m.mar", ""),
        // What a name resolves to is judged later.
        ("http://example.com/m.mar", ""),
        ("http://172.32.0.1/m.mar", "in no private network"),
        ("http://8.8.8.8/m.mar", "in no private network"),
        ("http://[2001:4860::8888]/m.mar", "in no private network"),
        ("http://[::ffff:8.8.8.8]/m.mar", "in no private network"),
        ("http://169.254.169.254/m.mar", "a link-local address"),
        ("http://[fe80::1]/m.mar", "a link-local address"),
        ("http://[fd00:ec2::254]/m.mar", "a cloud's metadata service"),
        ("http://100.100.100.200/m.mar", "a cloud's metadata service"),
        ("http://0.0.0.0/m.mar", "no machine's address"),
        ("http://0.1.2.3/m.mar", "no machine's address"),
        ("http://[::]/m.mar", "no machine's address"),
        ("http://224.0.0.1/m.mar", "a multicast address"),
        ("http://[ff02::1]/m.mar", "a multicast address"),
        ("http://255.255.255.255/m.mar", "a reserved address"),
        ("file:///store/sub/m.mar", ""),
        ("file:///etc/m.mar", "outside of the model store"),
        ("file:///store", "outside of the model store"),
        ("file://host/store/m.mar", "names no file of this machine"),
        ("ftp://127.0.0.1/m.mar", "`ftp` can't be fetched"),
        ("s3://bucket/m.mar", "`s3` can't be fetched"),
        ("http://user@127.0.0.1/m.mar", "user names and passwords"),
        ("http://:pass@127.0.0.1/m.mar", "user names and passwords"),
        ("http://127.0.0.1/", "it names no file"),
        ("http://127.0.0.1", "it names no file"),
        ("http://127.0.0.1/.zoo-fetch-x.part", "can't be the name of a file"),
        ("http://127.0.0.1/m\t.mar", "control characters"),
        ("http://[fe80::1%25eth0]/m.mar", "it is no URL"),
        ("http:///m.mar?", "it names no file"),
    ];
    for (url, expected) in cases {
        match admitted(None, url) {
            Ok(_) => assert_eq!(expected, "", "{url}"),
            Err(why) => assert!(!expected.is_empty() && why.contains(expected), "{url}: {why}"),
        }
    }
}

#[test]
fn an_address_has_many_spellings_and_one_meaning() {
    let link_local = [
        "http://2852039166/m.mar",
        "http://0xA9FEA9FE/m.mar",
        "http://0251.0376.0251.0376/m.mar",
        "http://169.254.43518/m.mar",
        "http://0xa9.254.0251.254/m.mar",
        "http://169.254.169.254./m.mar",
        "http://169。254。169。254/m.mar",
        "http://%31%36%39.254.169.254/m.mar",
        "http://[::ffff:169.254.169.254]/m.mar",
        "http://[::ffff:a9fe:a9fe]/m.mar",
        "http://[0:0:0:0:0:ffff:a9fe:a9fe]/m.mar",
        "http://[::169.254.169.254]/m.mar",
        "http://[64:ff9b::169.254.169.254]/m.mar",
        "http://[2002:a9fe:a9fe::1]/m.mar",
        "http:\\\\169.254.169.254\\m.mar",
        "HTTP://169.254.169.254/m.mar",
    ];
    for url in link_local {
        for allowed in [None, Some("file://.*|http(s)?://.*")] {
            let why = admitted(allowed, url).unwrap_err();
            assert!(why.contains("a link-local address"), "{url}: {why}");
        }
    }
    assert_eq!(admitted(None, "http://2130706433/m.mar").unwrap(), "http://127.0.0.1/m.mar");
    assert_eq!(admitted(None, "http://127.1/m.mar").unwrap(), "http://127.0.0.1/m.mar");
}

#[test]
fn allowed_urls_are_about_the_url_as_it_is_understood() {
    let allowed = Some(r"https://models\.example/.*,file:///models/.*");
    let cases = [
        ("https://models.example/m.mar", true),
        ("https://models.example:443/m.mar", true),
        ("HTTPS://Models.Example/a/./m.mar", true),
        ("https:\\\\models.example\\m.mar", true),
        ("file:///models/m.mar", true),
        ("file://localhost/models/m.mar", true),
        ("http://models.example/m.mar", false),
        ("https://models.example:8443/m.mar", false),
        ("https://evil/?https://models.example/m.mar", false),
        ("https://evil/m.mar#https://models.example/m.mar", false),
        ("https://models.example@evil/m.mar", false),
        ("https://evil\\@models.example/m.mar", false),
        ("https://models.example.evil/m.mar", false),
        ("https://127.0.0.1/m.mar", false),
        ("file:///models2/m.mar", false),
        ("file://models/m.mar", false),
    ];
    for (url, expected) in cases {
        let outcome = admitted(allowed, url);
        assert_eq!(outcome.is_ok(), expected, "{url}: {outcome:?}");
    }
    assert_eq!(admitted(Some(""), "http://127.0.0.1/m.mar").unwrap_err(), "--allowed-urls doesn't match it");
}

#[test]
fn explicit_patterns_win_over_what_is_near_but_special_addresses_must_be_spelt_out() {
    let all = Some("http://.*");
    assert!(admitted(all, "http://8.8.8.8/m.mar").is_ok());
    assert!(admitted(all, "http://169.254.169.254/m.mar").is_err());
    assert!(
        admitted(Some(r"http://.*,http://169\.254\.169\.254/.*"), "http://169.254.169.254/m.mar").is_ok()
    );
    assert!(admitted(Some(r"http://\[fe80::1\]/.*"), "http://[fe80::1]/m.mar").is_ok());
    // A name is not an address: whoever owns the name decides what it resolves to.
    let named = rules(Some(r"http://metadata\.example/.*"));
    assert!(named.admit("http://metadata.example/m.mar", Trust::Client).is_ok());
    assert!(named.check_address("169.254.169.254".parse().unwrap(), Trust::Client).is_err());
}

#[test]
fn the_operator_may_go_far_unless_patterns_say_otherwise() {
    let by_operator = |allowed, url| rules(allowed).admit(url, Trust::Operator).is_ok();
    assert!(by_operator(None, "http://8.8.8.8/m.mar"));
    assert!(by_operator(None, "file:///etc/m.mar"));
    assert!(!by_operator(None, "http://169.254.169.254/m.mar"));
    assert!(!by_operator(Some("https://.*"), "http://8.8.8.8/m.mar"));
}

#[test]
fn redirects_obey_the_same_rules_and_dont_get_less_safe() {
    let cases = [
        (None, "http://127.0.0.1/a/m.mar", "../b/n.mar?x", Ok("http://127.0.0.1/b/n.mar?x")),
        (None, "http://127.0.0.1/m.mar", "//10.0.0.1/n.mar", Ok("http://10.0.0.1/n.mar")),
        (None, "http://127.0.0.1/m.mar", "https://10.0.0.1/", Ok("https://10.0.0.1/")),
        (
            None,
            "http://127.0.0.1/m.mar",
            "http://8.8.8.8/?secret",
            Err("redirects to http://8.8.8.8/?...: 8.8.8.8 is"),
        ),
        (None, "http://127.0.0.1/m.mar", "http://169.254.169.254/x", Err("a link-local address")),
        (
            None,
            "http://127.0.0.1/m.mar",
            "http://u:secret@127.0.0.1/x",
            Err("to http://127.0.0.1/x: user names"),
        ),
        (None, "http://127.0.0.1/m.mar", "file:///store/x.mar", Err("neither http nor https")),
        (None, "https://127.0.0.1/m.mar", "http://127.0.0.1/m.mar", Err("less safe than https")),
        (None, "http://127.0.0.1/m.mar", "http://[", Err("redirects to no URL")),
        (Some("http://a/.*"), "http://a/m.mar", "http://b/m.mar", Err("--allowed-urls doesn't match it")),
    ];
    for (allowed, from, location, expected) in cases {
        let outcome = rules(allowed).redirect(&Url::parse(from).unwrap(), location, Trust::Client);
        match (outcome, expected) {
            (Ok(to), Ok(expected)) => assert_eq!(to.as_str(), expected),
            (Err(Refused(why)), Err(expected)) => assert!(why.contains(expected), "{location}: {why}"),
            (outcome, _) => panic!("{from} to {location}: {outcome:?}"),
        }
    }
}

#[test]
fn dots_are_found_however_they_are_encoded() {
    for url in ["../m", "http://h/../m", "%2e%2E/m", ".%2e/m", "%252e%252e/m", "%25252e./m", "a..b"] {
        assert!(leads_up(url), "{url}");
    }
    for url in ["m.mar", "./m.mar", "%2em.mar", "http://h/a%2Fb.mar", "%25"] {
        assert!(!leads_up(url), "{url}");
    }
}

#[test]
fn the_log_sees_neither_passwords_nor_signatures() {
    let cases = [
        ("http://u:p@h/m.mar?sig=1#f", "http://h/m.mar?..."),
        ("http://h/m.mar", "http://h/m.mar"),
        ("m.mar", "m.mar"),
        ("http://u:p@/", "(not a URL)"),
    ];
    for (url, expected) in cases {
        assert_eq!(loggable(url), expected);
    }
}

/// What is spliced into URLs to lead the rules astray.
const TRICKS: [&str; 28] = [
    "@",
    "\\",
    "/",
    "//",
    "?",
    "#",
    ":",
    "..",
    "%2e%2e",
    "%2f",
    "%5c",
    "%00",
    "\t",
    "\n",
    " ",
    "。",
    "[",
    "]",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "[::ffff:169.254.169.254]",
    "evil.example",
    "user:pass@",
    "good.example",
    "http://",
    "file:///",
    ".zoo-fetch-1.part",
];

/// Splices tricks into a URL, and drops and repeats parts of it.
fn mutated(random: &mut Random, seed: &str) -> String {
    let mut url: Vec<char> = seed.chars().collect();
    for _ in 0..=random.below(4) {
        let at = random.below(url.len() + 1);
        match random.below(4) {
            0 if at < url.len() => drop(url.remove(at)),
            1 if at < url.len() => url.insert(at, url[random.below(url.len())]),
            _ => drop(url.splice(at..at, TRICKS[random.below(TRICKS.len())].chars())),
        }
    }
    url.into_iter().collect()
}

#[test]
fn no_mutation_of_a_url_gets_past_the_rules() {
    let seeds = [
        "http://good.example/a/m.mar",
        "https://good.example:443/m.mar?x=/y#z",
        "http://127.0.0.1:80/m.mar",
        "http://[::1]/m.mar",
        "file:///store/sub/m.mar",
        "http://10.0.0.1/%6d.mar",
    ];
    let explicit = rules(Some(r"https?://good\.example/.*,file:///store/.*"));
    let default = rules(None);
    let mut admitted = 0;
    for seed in 1..=40_000_u64 {
        let mut random = Random(seed);
        let seed = seeds[random.below(seeds.len())];
        let url = mutated(&mut random, seed);
        if leads_up(&url) {
            continue;
        }
        if let Ok(address) = explicit.admit(&url, Trust::Client) {
            let ok = match address.url.scheme() {
                "file" => file_path(&address.url).is_some_and(|path| path.starts_with("/store")),
                _ => address.url.host_str() == Some("good.example") && address.url.port().is_none(),
            };
            assert!(ok, "{url:?} was admitted as {}", address.url);
            check(&url, &address);
            admitted += 1;
        }
        if let Ok(address) = default.admit(&url, Trust::Client) {
            let near = match address.url.host() {
                Some(Host::Ipv4(host)) => is_near(host.into()),
                Some(Host::Ipv6(host)) => is_near(innermost(host.into())),
                _ => true,
            };
            assert!(near, "{url:?} was admitted as {}", address.url);
            check(&url, &address);
            admitted += 1;
        }
    }
    assert!(admitted > 10_000, "only {admitted} got through at all");
}

/// What holds of whatever is admitted.
fn check(given: &str, address: &Address) {
    let store = Path::new("/store");
    assert_eq!(
        store.join(&address.file).parent(),
        Some(store),
        "{given:?} would be saved as {:?}",
        address.file
    );
    assert!(!matches!(address.file.as_str(), "" | "." | "..") && !is_partial(&address.file), "{given:?}");
    assert!(address.url.username().is_empty() && address.url.password().is_none(), "{given:?}");
    // Another look at what was understood finds the same.
    assert_eq!(Url::parse(address.url.as_str()).as_ref(), Ok(&address.url), "{given:?}");
    assert!(!address.url.path().split('/').any(|part| part == ".."), "{given:?}");
}
