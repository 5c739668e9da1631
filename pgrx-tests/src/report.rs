//! Numbers and tables for people, as the demo and the benchmarks print them.

/// 1234567 as 1,234,567.
pub fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    if number < 0.0 {
        text.push('-');
    }
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub fn megabytes(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1_048_576.0)
}

/// Milliseconds with as many places as they deserve.
pub fn ms(n: f64) -> String {
    match n {
        n if n < 10.0 => format!("{n:.1} ms"),
        n if n < 10_000.0 => format!("{n:.0} ms"),
        n => format!("{:.1} s", n / 1000.0),
    }
}

/// The middle one; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// By nearest rank: the smallest value that at least this share does not exceed; NaN of none.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// Lines of a table: the first column to the left, the others to the right.
pub fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| {
            let cells = rows.iter().filter_map(|row| row.get(i));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
                line += &match i {
                    0 => format!("{cell:<width$}"),
                    _ => format!("   {cell:>width$}"),
                };
            }
            line.trim_end().to_string()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let numbers = [0.0, 999.0, 1000.0, 2_000_000.4, -12_345.0];
        let texts: Vec<String> = numbers.into_iter().map(grouped).collect();
        assert_eq!(texts, ["0", "999", "1,000", "2,000,000", "-12,345"]);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(median(&values), 2.0);
        assert_eq!(percentile(&values, 0.99), 4.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["", "b"], vec!["a", "1000"], vec!["long", "1"]]
            .map(|row| row.into_iter().map(str::to_string).collect());
        assert_eq!(table(&rows), ["          b", "a      1000", "long      1"]);
    }
}
