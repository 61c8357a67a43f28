//! What day is it, as templates ask? `strftime` for the fields that they use, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// The present moment in `format`. Fields that are not known stay as they are written.
pub(super) fn format_now(format: &str) -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format_time(format, since_epoch.as_secs())
}

fn format_time(format: &str, unix_seconds: u64) -> String {
    let days = unix_seconds / 86_400;
    let (hour, minute, second) =
        (unix_seconds / 3600 % 24, unix_seconds / 60 % 60, unix_seconds % 60);
    let (year, month, day) = civil_date(days);
    let (month_name, weekday) = (MONTHS[month - 1], WEEKDAYS[(days % 7) as usize]);
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('Y') => text += &year.to_string(),
            Some('m') => text += &format!("{month:02}"),
            Some('d') => text += &format!("{day:02}"),
            Some('e') => text += &format!("{day:2}"),
            Some('B') => text += month_name,
            Some('b') => text += &month_name[..3],
            Some('A') => text += weekday,
            Some('a') => text += &weekday[..3],
            Some('H') => text += &format!("{hour:02}"),
            Some('M') => text += &format!("{minute:02}"),
            Some('S') => text += &format!("{second:02}"),
            Some('%') => text.push('%'),
            Some(other) => text.extend(['%', other]),
            None => text.push('%'),
        }
    }
    text
}

/// Year, month and day of the month, each counted as people do, of a day since 1970-01-01.
fn civil_date(days: u64) -> (u64, usize, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut year, mut rest) = (1970, days);
    loop {
        let year_days = if is_leap(year) { 366 } else { 365 };
        if rest < year_days {
            break;
        }
        rest -= year_days;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for month_days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if rest < month_days {
            break;
        }
        rest -= month_days;
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_the_format_says() {
        let cases = [
            (0, "%Y-%m-%d %H:%M:%S %A", "1970-01-01 00:00:00 Thursday"),
            (951_782_400, "%d %b %Y", "29 Feb 2000"),
            (951_868_799, "%d %B %Y, %H:%M", "29 February 2000, 23:59"),
            (4_107_542_400, "%Y-%m-%d", "2100-03-01"),
            (1_798_675_200, "%a %e %q%%%", "Thu 31 %q%%"),
        ];
        for (seconds, format, expected) in cases {
            assert_eq!(format_time(format, seconds), expected);
        }
    }
}
