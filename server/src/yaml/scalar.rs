//! What a plain scalar means: the rules of YAML 1.1 as PyYAML applies them.

use serde_json::{Number, Value};

/// The value of an unquoted text without a tag.
pub(super) fn plain(text: &str) -> Value {
    null(text)
        .or_else(|| truth(text))
        .or_else(|| int(text))
        .or_else(|| float(text))
        .unwrap_or_else(|| text.into())
}

/// The value of a text with one of YAML's own tags.
pub(super) fn tagged(text: &str, tag: &str) -> Result<Value, String> {
    let value = match tag {
        "str" => Some(text.into()),
        "null" => null(text),
        "bool" => truth(text),
        "int" => int(text),
        "float" => float(text).or_else(|| int(text)?.as_f64().and_then(number)),
        _ => return Err(format!("the tag !!{tag} isn't supported")),
    };
    value.ok_or_else(|| format!("`{text}` isn't an {tag}"))
}

fn null(text: &str) -> Option<Value> {
    matches!(text, "" | "~" | "null" | "Null" | "NULL").then_some(Value::Null)
}

fn truth(text: &str) -> Option<Value> {
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true.into()),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false.into()),
        _ => None,
    }
}

fn number(float: f64) -> Option<Value> {
    Number::from_f64(float).map(Value::Number)
}

/// A sign, and the rest.
fn signed(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// The text without underscores, if it is made of these digits, at least one of them.
fn digits(text: &str, is_digit: impl Fn(char) -> bool) -> Option<String> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    (!digits.is_empty() && digits.chars().all(is_digit)).then_some(digits)
}

fn int(text: &str) -> Option<Value> {
    let (negative, text) = signed(text);
    let magnitude = if let Some(binary) = text.strip_prefix("0b") {
        u128::from_str_radix(&digits(binary, |c| matches!(c, '0' | '1'))?, 2).ok()?
    } else if let Some(hex) = text.strip_prefix("0x") {
        u128::from_str_radix(&digits(hex, |c| c.is_ascii_hexdigit())?, 16).ok()?
    } else if let Some(octal) = text.strip_prefix('0').filter(|octal| !octal.is_empty()) {
        u128::from_str_radix(&digits(octal, |c| matches!(c, '0'..='7'))?, 8).ok()?
    } else {
        decimal(text)?
    };
    let value = i128::try_from(magnitude).ok().map(|value| if negative { -value } else { value })?;
    match (i64::try_from(value), u64::try_from(value)) {
        (Ok(value), _) => Some(value.into()),
        (_, Ok(value)) => Some(value.into()),
        // Larger than JSON's readers keep exact.
        (Err(_), Err(_)) => value.to_string().parse().ok().and_then(number),
    }
}

/// Decimal digits, or several groups of them to the base of 60.
fn decimal(text: &str) -> Option<u128> {
    let mut groups = text.split(':');
    let first = groups.next().filter(|first| first.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut value: u128 = digits(first, |c| c.is_ascii_digit())?.parse().ok()?;
    if text.contains(':') && first.starts_with('0') {
        return None;
    }
    for group in groups {
        let digit = sixtieth(group)?;
        value = value.checked_mul(60)?.checked_add(digit.into())?;
    }
    Some(value)
}

/// `0` to `59`, as one or two digits.
fn sixtieth(text: &str) -> Option<u8> {
    let fits = matches!(text.len(), 1 | 2) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|value| fits && *value < 60)
}

/// Only with a point; an exponent only with a sign.
fn float(text: &str) -> Option<Value> {
    let (negative, bare) = signed(text);
    let (whole, rest) = bare.split_once('.')?;
    let (fraction, exponent) = match rest.split_once(['e', 'E']) {
        Some((fraction, exponent)) => (fraction, exponent),
        None => (rest, "+0"),
    };
    let exponent_digits = exponent.strip_prefix(['+', '-'])?;
    digits(exponent_digits, |c| c.is_ascii_digit()).filter(|_| !exponent_digits.contains('_'))?;
    let fraction: String = fraction.chars().filter(|c| *c != '_').collect();
    if !fraction.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    // Before a point without digits only a sign is missing: `.5`, but not `-.5` and not `.`.
    let whole = if whole.is_empty() && !fraction.is_empty() && bare.len() == text.len() {
        0
    } else {
        decimal_whole(whole)?
    };
    let sign = if negative { "-" } else { "" };
    format!("{sign}{whole}.{fraction}e{exponent}").parse().ok().and_then(number)
}

/// The digits before a point; zeros in front mean nothing there.
fn decimal_whole(text: &str) -> Option<u128> {
    if text.contains(':') {
        return decimal(text);
    }
    text.starts_with(|c: char| c.is_ascii_digit()).then_some(())?;
    digits(text, |c| c.is_ascii_digit())?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What `yaml.safe_load` of PyYAML 6.0 answers.
    #[test]
    fn plain_scalars_mean_what_python_sees() {
        let cases = [
            ("", json!(null)),
            ("~", json!(null)),
            ("nULL", json!("nULL")),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!("y")),
            ("0", json!(0)),
            ("-0", json!(0)),
            ("42", json!(42)),
            ("+1_000", json!(1000)),
            ("-7", json!(-7)),
            ("010", json!(8)),
            ("08", json!("08")),
            ("0x1F", json!(31)),
            ("0b101", json!(5)),
            ("0o17", json!("0o17")),
            ("1:30", json!(90)),
            ("1:60", json!("1:60")),
            ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
            ("1.5", json!(1.5)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("-.5", json!("-.5")),
            ("1.0e+3", json!(1000.0)),
            ("1.0e3", json!("1.0e3")),
            ("1e5", json!("1e5")),
            ("1.5.2", json!("1.5.2")),
            ("01.5", json!(1.5)),
            (".", json!(".")),
            ("1:30.5", json!(90.5)),
            (".inf", json!(".inf")),
            (".nan", json!(".nan")),
            ("2024-01-31", json!("2024-01-31")),
            ("_1", json!("_1")),
            ("0x", json!("0x")),
            ("1__0", json!(10)),
        ];
        for (text, expected) in cases {
            assert_eq!(plain(text), expected, "{text:?}");
        }
    }

    #[test]
    fn tags_decide_over_looks() {
        assert_eq!(tagged("1", "str"), Ok(json!("1")));
        assert_eq!(tagged("1", "float"), Ok(json!(1.0)));
        assert_eq!(tagged("on", "bool"), Ok(json!(true)));
        assert_eq!(tagged("x", "int"), Err("`x` isn't an int".to_owned()));
        assert_eq!(tagged("x", "binary"), Err("the tag !!binary isn't supported".to_owned()));
    }
}
