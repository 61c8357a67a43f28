//! How are numbers shown to people? With as many digits as mean something, and a unit.

use std::time::Duration;

/// A count with its thousands set apart: `11,302`.
pub(super) fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A count of things: `1 token`, `2 tokens`.
pub(super) fn count_of(n: usize, thing: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", count(n))
}

/// Bytes in the unit that fits: `98.4 MB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    if n < 1000 {
        return format!("{n} bytes");
    }
    let power = (n.ilog10() / 3).min(4);
    format!("{:.1} {}", n as f64 / 1000f64.powi(power as i32), UNITS[power as usize])
}

/// A rate: `312`, or `8.4` where it is small.
pub(super) fn rate(n: usize, time: Duration) -> String {
    let rate = per_second(n, time);
    if rate < 10.0 { format!("{rate:.1}") } else { count(rate.round() as usize) }
}

/// A rate as a number; 0 where no time has passed.
pub(super) fn per_second(n: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { n as f64 / time.as_secs_f64() }
}

/// A time: `0.8 s`, `36 s`, `4 min 10 s`, `2 h 5 min`.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Rows as a table, columns `left` flush left and the others right.
pub(super) fn columns<const N: usize>(rows: &[[String; N]], left: &[usize]) -> String {
    let width = |column: usize| {
        rows.iter().map(|row| unicode_width::UnicodeWidthStr::width(&*row[column])).max()
    };
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let show = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, width))| {
            let space = " ".repeat(width - unicode_width::UnicodeWidthStr::width(&**cell));
            if left.contains(&i) { format!("{cell}{space}") } else { format!("{space}{cell}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_people_read_them() {
        let counts = [0, 999, 1000, 11_302, 1_234_567].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "11,302", "1,234,567"]);
        assert_eq!([1, 2].map(|n| count_of(n, "unit")), ["1 unit", "2 units"]);
        let sizes = [0, 999, 1000, 98_362_432, 1_500_000_000].map(bytes);
        assert_eq!(sizes, ["0 bytes", "999 bytes", "1.0 kB", "98.4 MB", "1.5 GB"]);
        let times = [0.04, 9.94, 9.96, 59.4, 250.0, 7500.0].map(Duration::from_secs_f64);
        let times = times.map(duration);
        assert_eq!(times, ["0.0 s", "9.9 s", "10 s", "59 s", "4 min 10 s", "2 h 5 min"]);
        assert_eq!(rate(5, Duration::ZERO), "0.0");
        assert_eq!(rate(2500, Duration::from_secs(2)), "1,250");
    }
}
