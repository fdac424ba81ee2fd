//! What is written in columns: names as text, times as microseconds since 1970 (UTC), numbers as signed 64 bits.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::session::Failure;
use crate::metadata::{Listing, Page};

/// Returns column `name` as text that must parse.
pub(super) fn parsed<T: FromStr>(row: &AnyRow, name: &'static str) -> Result<T, Failure> {
    let text: &str = row.try_get(name)?;
    text.parse().or(Err(Failure::Corrupt(name)))
}

/// Returns column `name` as a number that must not be negative.
pub(super) fn unsigned(row: &AnyRow, name: &'static str) -> Result<u64, Failure> {
    let number: i64 = row.try_get(name)?;
    number.try_into().or(Err(Failure::Corrupt(name)))
}

/// Returns a number as it is written.
pub(super) fn number(number: u64) -> i64 {
    // Sizes and counters: 2^63 bytes or events do not come about.
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns a time as it is written.
pub(super) fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Returns column `name` as the time that [`micros`] wrote.
pub(super) fn time(row: &AnyRow, name: &'static str) -> Result<SystemTime, Failure> {
    Ok(UNIX_EPOCH + Duration::from_micros(unsigned(row, name)?))
}

/// Returns how many rows to ask for, so that [`listing`] learns whether there is more behind the page.
pub(super) fn one_more_than<T>(page: &Page<T>) -> i64 {
    i64::from(page.limit) + 1
}

/// Returns the rows of a page, of which there may be one more than asked for.
pub(super) fn listing<T, P>(
    rows: &[AnyRow],
    page: &Page<P>,
    item: impl FnMut(&AnyRow) -> Result<T, Failure>,
) -> Result<Listing<T>, Failure> {
    let limit = page.limit as usize;
    Ok(Listing {
        items: rows
            .iter()
            .take(limit)
            .map(item)
            .collect::<Result<_, _>>()?,
        more: rows.len() > limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_microseconds() {
        let time = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        assert_eq!(micros(time), 1_700_000_000_123_456);
        assert_eq!(micros(UNIX_EPOCH - Duration::from_secs(1)), 0);
    }

    #[test]
    fn numbers_do_not_wrap() {
        assert_eq!(number(u64::MAX), i64::MAX);
    }
}
