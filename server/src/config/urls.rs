//! `allowed_urls`: patterns as TorchServe reads them.

use std::net::IpAddr;

use regex::Regex;

/// Patterns of URLs. A URL is allowed if one of them matches the whole of it, in whatever letter case.
#[derive(Debug, Clone)]
pub struct UrlPatterns {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    whole: Regex,
    /// As it was written, less the backslashes.
    plain: String,
}

impl UrlPatterns {
    /// Reads patterns that are separated by commas. None at all allow nothing.
    ///
    /// # Errors
    /// If one is no regular expression.
    pub fn parse(text: &str) -> Result<Self, String> {
        let patterns = text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
        Ok(Self { patterns: patterns.map(Pattern::parse).collect::<Result<_, _>>()? })
    }

    /// Whether a URL is allowed.
    pub fn matches(&self, url: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.whole.is_match(url))
    }

    /// Whether a pattern spells this address out, so that whoever wrote it meant this very machine.
    pub fn name(&self, address: IpAddr) -> bool {
        let address = address.to_string();
        self.patterns.iter().any(|pattern| spells(&pattern.plain, &address))
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let refuse = |error: &regex::Error| {
            // The parser draws a picture and ends with what is wrong.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("`{text}` must be a regular expression: {reason}")
        };
        // By itself too: `a)|(b` would break out of the parentheses.
        Regex::new(text).map_err(|error| refuse(&error))?;
        let whole = Regex::new(&format!(r"\A(?i:{text})\z")).map_err(|error| refuse(&error))?;
        Ok(Self { whole, plain: text.replace('\\', "") })
    }
}

/// Whether `address` stands in `text`, and not as a part of a longer one.
fn spells(text: &str, address: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    text.match_indices(address).any(|(at, _)| {
        let after = &text[at + address.len()..];
        !text[..at].ends_with(part) && !after.starts_with(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_url_in_any_letter_case() {
        let patterns =
            UrlPatterns::parse(r"https://models\.example/.*, HTTP://10.0.0.1:90/m.mar,a)|(b").err();
        assert_eq!(patterns.unwrap(), "`a)|(b` must be a regular expression: unopened group");
        let patterns = UrlPatterns::parse(r"https://models\.example/.*, HTTP://10.0.0.1:90/m.mar").unwrap();
        let cases = [
            ("https://models.example/m.mar", true),
            ("https://MODELS.example/a/b?c", true),
            ("http://10.0.0.1:90/m.mar", true),
            ("http://10.0.0.1:90/m.mar2", false),
            ("https://models.example.evil/m.mar", false),
            ("http://evil/?https://models.example/m.mar", false),
        ];
        for (url, expected) in cases {
            assert_eq!(patterns.matches(url), expected, "{url}");
        }
        assert!(!UrlPatterns::parse("").unwrap().matches(""));
    }

    #[test]
    fn only_an_address_that_is_spelt_out_is_named() {
        let patterns =
            UrlPatterns::parse(r"http://169\.254\.169\.254/.*,http://\[fe80::1\]:80/.*,http://1.2.3.40/")
                .unwrap();
        let cases = [
            ("169.254.169.254", true),
            ("fe80::1", true),
            ("169.254.169.25", false),
            ("69.254.169.254", false),
            ("1.2.3.4", false),
            ("1.2.3.40", true),
            ("fe80::", false),
        ];
        for (address, expected) in cases {
            assert_eq!(patterns.name(address.parse().unwrap()), expected, "{address}");
        }
        assert!(!UrlPatterns::parse("http://.*").unwrap().name("169.254.169.254".parse().unwrap()));
    }
}
