//! Numbers as Java's `Double.toString` writes them: TorchServe's metrics have always looked like this, and scrape
//! rules and tests match it.

use std::fmt;

/// Shows a number in Java's form.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Java(pub(super) f64);

impl fmt::Display for Java {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if self.0.is_nan() {
            f.write_str("NaN")
        } else if size.is_infinite() {
            // As Prometheus wants it; Java's word would be `Infinity`.
            f.write_str(if self.0 > 0.0 { "+Inf" } else { "-Inf" })
        } else if size == 0.0 || (1e-3..1e7).contains(&size) {
            write!(f, "{:?}", self.0)
        } else {
            let text = format!("{:e}", self.0);
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let point = if digits.contains('.') { "" } else { ".0" };
            write!(f, "{digits}{point}E{exponent}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_in_java() {
        for (number, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (8.0, "8.0"),
            (-1.5, "-1.5"),
            (3245.6, "3245.6"),
            (0.001, "0.001"),
            (0.000_999, "9.99E-4"),
            (0.0001, "1.0E-4"),
            (9_999_999.0, "9999999.0"),
            (9_999_999.999, "9999999.999"),
            (1e7, "1.0E7"),
            (12_345_678.0, "1.2345678E7"),
            (-1e7, "-1.0E7"),
            (0.1 + 0.2, "0.30000000000000004"),
            (100.0 / 3.0, "33.333333333333336"),
            (1e21, "1.0E21"),
            (1e22, "1.0E22"),
            (f64::MAX, "1.7976931348623157E308"),
            (f64::MIN_POSITIVE, "2.2250738585072014E-308"),
            (5e-324, "5.0E-324"),
            (9_007_199_254_740_993.0, "9.007199254740992E15"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(Java(number).to_string(), text, "{number:e}");
        }
    }
}
