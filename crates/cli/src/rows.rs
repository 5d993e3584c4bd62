//! Rows of cells: as a table for people, or as comma-separated values for a spreadsheet.

use crate::terminal;

/// A table with columns as wide as their widest cell.
pub(crate) fn table<const N: usize>(columns: [&str; N], rows: &[&[String; N]]) -> String {
    let header = columns.map(str::to_owned);
    let escaped: Vec<[String; N]> = std::iter::once(&header)
        .chain(rows.iter().copied())
        .map(|row| row.each_ref().map(|cell| terminal::escape(cell)))
        .collect();
    let mut widths = [0; N];
    for row in &escaped {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    escaped.iter().map(line).collect()
}

/// Comma-separated values, each in quotes.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc4180>
pub(crate) fn csv<const N: usize>(columns: [&str; N], rows: &[&[String; N]]) -> String {
    let header = columns.map(str::to_owned);
    let line = |row: &[String; N]| row.each_ref().map(|cell| csv_cell(cell)).join(",") + "\r\n";
    std::iter::once(&header)
        .chain(rows.iter().copied())
        .map(line)
        .collect()
}

/// Quotes a cell, and keeps a spreadsheet from taking it for a formula.
///
/// Source: <https://owasp.org/www-community/attacks/CSV_Injection>
fn csv_cell(cell: &str) -> String {
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let apostrophe = if is_formula { "'" } else { "" };
    format!(
        "\"{apostrophe}{}\"",
        terminal::escape(cell).replace('"', "\"\"")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_looks_like_a_formula_is_a_text_in_a_spreadsheet() {
        for (cell, expected) in [
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(1)", "\"'@SUM(1)\""),
            ("\t=1", "\"'\\u{9}=1\""),
            ("\r=1", "\"'\\u{d}=1\""),
            ("golden \"a\", b", "\"golden \"\"a\"\", b\""),
            ("a\r\nb", "\"a\\u{d}\\u{a}b\""),
            ("111122223333", "\"111122223333\""),
        ] {
            assert_eq!(csv_cell(cell), expected);
        }
    }

    #[test]
    fn rows_of_comma_separated_values_end_as_the_standard_says() {
        let row = ["a".to_owned(), "=b".to_owned()];
        assert_eq!(
            csv(["one", "two"], &[&row]),
            "\"one\",\"two\"\r\n\"a\",\"'=b\"\r\n"
        );
    }
}
