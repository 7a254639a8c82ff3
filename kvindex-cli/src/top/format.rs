//! Numbers as they fit into columns.

/// A count: whole to six digits, then in thousands, millions and so on.
pub(super) fn count(number: u64) -> String {
    match number {
        0..1_000_000 => number.to_string(),
        1_000_000..10_000_000_000 => format!("{:.1} M", number as f64 / 1e6),
        _ => format!("{:.1} G", number as f64 / 1e9),
    }
}

/// So many a second; a dash where nothing is known.
pub(super) fn rate(per_s: Option<f64>) -> String {
    match per_s {
        None => "-".into(),
        Some(rate) if rate < 9.95 => format!("{rate:.1}"),
        Some(rate) => count(rate.round() as u64),
    }
}

/// A time in milliseconds to two or three digits.
pub(super) fn milliseconds(ms: Option<f64>) -> String {
    match ms {
        None => "-".into(),
        Some(ms) if ms < 9.95 => format!("{ms:.2} ms"),
        Some(ms) => format!("{ms:.0} ms"),
    }
}

/// A size in memory.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{bytes} {name}") } else { format!("{size:.1} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_to_their_columns() {
        for (number, text) in
            [(0, "0"), (999_999, "999999"), (1_500_000, "1.5 M"), (u64::MAX, "18446744073.7 G")]
        {
            assert_eq!(count(number), text);
        }
        for (per_s, text) in [(None, "-"), (Some(0.0), "0.0"), (Some(9.94), "9.9"), (Some(1234.4), "1234")] {
            assert_eq!(rate(per_s), text);
        }
        assert_eq!([bytes(512), bytes(1536), bytes(3 << 30)], ["512 B", "1.5 KiB", "3.0 GiB"]);
        assert_eq!(
            [milliseconds(None), milliseconds(Some(0.5)), milliseconds(Some(12.3))],
            ["-", "0.50 ms", "12 ms"]
        );
    }
}
