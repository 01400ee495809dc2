//! Paths and query strings, read as TorchServe reads them: decoded before they are split, trailing slashes ignored.

use std::borrow::Cow;

use http::Uri;
use percent_encoding::percent_decode_str;

/// The decoded path without its first and its trailing slashes.
pub(super) fn decoded(uri: &Uri) -> Cow<'_, str> {
    let path = uri.path().strip_prefix('/').unwrap_or(uri.path());
    match percent_decode_str(path).decode_utf8_lossy() {
        Cow::Borrowed(path) => Cow::Borrowed(path.trim_end_matches('/')),
        Cow::Owned(path) => Cow::Owned(path.trim_end_matches('/').to_owned()),
    }
}

/// The query's pairs, in order.
pub(super) fn query(uri: &Uri) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_and_lose_their_outer_slashes() {
        for (given, expected) in [
            ("/", ""),
            ("/ping", "ping"),
            ("/models/m//", "models/m"),
            ("/models/my%20model/1%2E0?x=y", "models/my model/1.0"),
            ("/models/a+b", "models/a+b"),
            ("/models/a%2Fb/", "models/a/b"),
            ("/models/%zz", "models/%zz"),
            ("/models/%ff", "models/\u{fffd}"),
        ] {
            assert_eq!(decoded(&given.parse().unwrap()), expected, "{given}");
        }
    }
}
