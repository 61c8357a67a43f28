//! How are numbers written in pictures?

/// A share: `40 %`, and no more digits than are needed: `12.5 %`.
pub fn percent(share: f64) -> String {
    format!("{} %", (10_000.0 * share).round() / 100.0)
}

/// A share that is measured: whole per cents.
pub fn whole_percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// A number of tokens: `8K` is 8,192, `1M` is 1,048,576. Others are written out, also those that are
/// round without it: 128,000 is not to be read as 125K.
pub fn tokens(n: usize) -> String {
    const K: usize = 1024;
    match n {
        _ if n.is_multiple_of(1000) => thousands(n),
        _ if n.is_multiple_of(K * K) => format!("{}M", n / (K * K)),
        _ if n.is_multiple_of(K) => format!("{}K", n / K),
        _ => thousands(n),
    }
}

/// A number with about four digits, its minus as it is printed.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        ..100.0 => format!("{value:.2}"),
        ..1e6 => format!("{value:.0}"),
        _ => format!("{value:.1e}"),
    };
    digits.replace('-', "\u{2212}")
}

/// One of values that are `step` apart, with the digits that tell it from the next.
pub fn stepped(value: f64, step: f64) -> String {
    match value.abs() {
        ..1e6 => format!("{value:.*}", (-step.log10().floor()).max(0.0) as usize),
        _ => number(value),
    }
}

/// `1 case`, `5 cases`, `1 to 5 cases`.
pub fn cases((least, most): (usize, usize)) -> String {
    match (least, most) {
        (1, 1) => "1 case".to_owned(),
        _ if least == most => format!("{} cases", thousands(most)),
        _ => format!("{} to {} cases", thousands(least), thousands(most)),
    }
}

fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(as_digits).collect();
    groups.join(",")
}

fn as_digits(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("because digits are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_shortly_and_never_wrongly() {
        let lengths = [900, 1024, 6000, 8192, 128_000, 131_072, 1_048_576, 1_572_864, 1_000_000];
        let expected = ["900", "1K", "6,000", "8K", "128,000", "128K", "1M", "1536K", "1,000,000"];
        assert_eq!(lengths.map(tokens), expected);
        assert_eq!(
            [0.0, 0.1, 0.125, 1.0 / 3.0, 1.0].map(percent),
            ["0 %", "10 %", "12.5 %", "33.33 %", "100 %"]
        );
        assert_eq!([0.0, 0.666, 1.0].map(whole_percent), ["0 %", "67 %", "100 %"]);
        let numbers = [-0.83, 12.345, -123.4, 2e7].map(number);
        assert_eq!(numbers, ["\u{2212}0.83", "12.35", "\u{2212}123", "2.0e7"]);
        assert_eq!(
            [(1, 1), (5, 5), (1, 1500)].map(cases),
            ["1 case", "5 cases", "1 to 1,500 cases"]
        );
    }
}
