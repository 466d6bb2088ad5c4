//! Writes Unix seconds as upstreams read them. Reads no clock: a call's times are in its request.

/// The time as RFC 3339 in UTC: `2026-11-23T16:40:00Z`.
pub fn rfc3339(unix_secs: u64) -> String {
    let (days, secs) = (unix_secs / DAY_SECS, unix_secs % DAY_SECS);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The Gregorian date of a day since 1970-01-01. Counts in years that begin in March, so that
/// the leap day comes last and every month's start is a linear function of its number.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_FROM_0000_03_01_TO_1970;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

const DAY_SECS: u64 = 86_400;
/// Days in 400 Gregorian years, after which the calendar repeats.
const ERA_DAYS: u64 = 146_097;
const DAYS_FROM_0000_03_01_TO_1970: u64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_leap_days_and_century_ends() {
        for (unix_secs, expect) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_795_451_705, "2026-11-23T16:35:05Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(unix_secs), expect, "{unix_secs}");
        }
    }
}
