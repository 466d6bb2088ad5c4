//! Writes and reads times as upstreams do. Reads no clock: a call's times are in its request.

/// The time as RFC 3339 in UTC: `2026-11-23T16:40:00Z`.
pub fn rfc3339(unix_secs: u64) -> String {
    let (days, secs) = (unix_secs / DAY_SECS, unix_secs % DAY_SECS);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The Unix seconds of an RFC 3339 time, such as `2026-11-23T17:40:00.25+01:00`, without fractions
/// of a second; `None` for anything else, and for times before 1970.
pub fn unix_secs(rfc3339: &str) -> Option<u64> {
    let (date, time) = rfc3339.split_once(['T', 't'])?;
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(zone);
    let time = match time.split_once('.') {
        Some((time, fraction)) if !fraction.is_empty() && numbers(fraction, "").is_some() => time,
        Some(_) => return None,
        None => time,
    };
    let [year, month, day] = numbers(date, "-")?.try_into().ok()?;
    let [hour, minute, second] = numbers(time, ":")?.try_into().ok()?;
    let days = days_since_1970(year, month, day)?;
    // A leap second counts as the first second of the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let local = days * DAY_SECS + hour * 3600 + minute * 60 + second;
    if zone.eq_ignore_ascii_case("z") {
        return Some(local);
    }
    let [hours, minutes] = numbers(zone.get(1..)?, ":")?.try_into().ok()?;
    let offset = hours * 3600 + minutes * 60;
    if zone.starts_with('+') { local.checked_sub(offset) } else { local.checked_add(offset) }
}

/// The numbers between separators.
fn numbers(text: &str, separator: &str) -> Option<Vec<u64>> {
    let parts = if separator.is_empty() { vec![text] } else { text.split(separator).collect() };
    let number = |part: &str| {
        let digits = (1..=9).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        if digits { part.parse().ok() } else { None }
    };
    parts.into_iter().map(number).collect()
}

/// The day since 1970-01-01 of a Gregorian date: the one whose [`civil_date`] it is.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let (march_year, march_month) =
        if month > 2 { (year, month.checked_sub(3)?) } else { (year.checked_sub(1)?, month + 9) };
    let day_of_year = (153 * march_month + 2) / 5 + day.checked_sub(1)?;
    let leap_days = march_year / 4 - march_year / 100 + march_year / 400;
    let days = march_year * 365 + leap_days + day_of_year;
    let days = days.checked_sub(DAYS_FROM_0000_03_01_TO_1970)?;
    (civil_date(days) == (year, month, day)).then_some(days)
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
    #[test]
    fn reads_what_it_writes_and_what_others_write() {
        for unix_secs in [0, 951_782_399, 951_782_400, 951_868_800, 1_795_451_705, 4_107_542_400] {
            assert_eq!(super::unix_secs(&rfc3339(unix_secs)), Some(unix_secs));
        }
        for (text, expect) in [
            ("2026-11-23T16:35:05.334052Z", Some(1_795_451_705)),
            ("2026-11-23T17:35:05+01:00", Some(1_795_451_705)),
            ("2026-11-23t06:05:05-10:30", Some(1_795_451_705)),
            ("2026-02-29T00:00:00Z", None),
            ("2026-11-23T24:00:00Z", None),
            ("2026-11-23T16:35:05", None),
            ("2026-11-23T16:35:05.Z", None),
            ("2026-11-23 16:35:05Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-00-01T00:00:00Z", None),
            ("2026-11-00T00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(super::unix_secs(text), expect, "{text}");
        }
    }
}
