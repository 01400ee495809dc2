//! Which names an entry may have. Used on both sides, so that nothing is packed that we would refuse to read.

use crate::error::BadName;

/// The path of an entry below the root, `.` and doubled slashes removed.
///
/// # Errors
/// If the name leaves the root, or means another place on another system.
pub(crate) fn enclosed(raw: &[u8]) -> Result<String, BadName> {
    let name = std::str::from_utf8(raw).map_err(|_| BadName::NotUtf8)?;
    if name.contains(['\0', '\n', '\r']) {
        return Err(BadName::Control);
    }
    if name.contains('\\') {
        return Err(BadName::Backslash);
    }
    if name.starts_with('/') {
        return Err(BadName::Absolute);
    }
    if matches!(name.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic()) {
        return Err(BadName::Drive);
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(BadName::Parent);
    }
    if name.len() > 4000 || parts.iter().any(|part| part.len() > 255) {
        return Err(BadName::TooLong);
    }
    if parts.is_empty() { Err(BadName::Empty) } else { Ok(parts.join("/")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_below_the_root_pass() {
        for (raw, clean) in
            [("a", "a"), ("./a//b/", "a/b"), ("a/./b", "a/b"), ("..a/b..", "..a/b.."), ("é", "é")]
        {
            assert_eq!(enclosed(raw.as_bytes()).as_deref(), Ok(clean));
        }
        let cases: [(&[u8], BadName); 12] = [
            (b"", BadName::Empty),
            (b"./", BadName::Empty),
            (b"\xff", BadName::NotUtf8),
            (b"a\0b", BadName::Control),
            (b"a\nb", BadName::Control),
            (b"a\\b", BadName::Backslash),
            (b"/etc/passwd", BadName::Absolute),
            (b"C:x", BadName::Drive),
            (b"..", BadName::Parent),
            (b"a/../../b", BadName::Parent),
            (&[b'a'; 256], BadName::TooLong),
            (&b"a/".repeat(2001), BadName::TooLong),
        ];
        for (raw, why) in cases {
            assert_eq!(enclosed(raw), Err(why), "{}", raw.escape_ascii());
        }
    }
}
