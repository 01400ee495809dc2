//! The moment that a manifest says: now in local time, or a fixed one for reproducible archives.

use jiff::{Timestamp, Zoned, tz::TimeZone};

use crate::error::PackError;

/// `createdOn` of a manifest. `source_date_epoch` is the text of the environment variable of that name, by
/// which builds are made reproducible: seconds since 1970, shown in UTC so that every machine agrees.
///
/// # Errors
/// If the text isn't a number of seconds.
pub fn created_on(source_date_epoch: Option<&str>) -> Result<String, PackError> {
    let moment = match source_date_epoch {
        None => Zoned::now(),
        Some(text) => {
            let seconds = text.trim().parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
            let moment = seconds.ok_or_else(|| PackError::SourceDateEpoch { value: text.to_owned() })?;
            moment.to_zoned(TimeZone::UTC)
        }
    };
    Ok(moment.strftime("%d/%m/%Y %H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_moment_is_shown_in_utc() {
        assert_eq!(created_on(Some("1735689599")).unwrap(), "31/12/2024 23:59:59");
        let error = created_on(Some("yesterday")).unwrap_err().to_string();
        assert_eq!(error, "SOURCE_DATE_EPOCH is \"yesterday\"; it must be a number of seconds since 1970");
        assert_eq!(created_on(None).unwrap().len(), 19);
    }
}
