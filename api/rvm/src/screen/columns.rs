//! Lines of plain cells under each other, and numbers of bytes for people.

use std::fmt::Write as _;

use super::table::printable;

/// Between two columns.
const GAP: usize = 3;

/// Rows under a header. What a cell holds is not trusted to steer this terminal.
pub fn columns<const COUNT: usize>(header: [&str; COUNT], rows: &[[String; COUNT]]) -> String {
    let header = header.map(str::to_owned);
    let clean = |row: &[String; COUNT]| row.each_ref().map(|cell| printable(cell));
    let rows: Vec<_> = std::iter::once(&header).chain(rows).map(clean).collect();
    let width = |index: usize| rows.iter().map(|row| row[index].chars().count()).max();
    let widths: [usize; COUNT] = std::array::from_fn(|index| width(index).unwrap_or_default() + GAP);
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string does not fail.
            let _ = write!(text, "{cell:width$}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text.trim_end().to_owned()
}

/// A number of bytes: 512 B, 3.5 KiB, 12.3 MiB, 1.2 GiB.
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(power) = (1..=units.len()).rev().find(|power| bytes >> (10 * power) > 0) else {
        return format!("{bytes} B");
    };
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    format!("{}.{} {}", tenths / 10, tenths % 10, units[power - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_under_each_other_and_cannot_steer_the_terminal() {
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["long\u{1b}[2J".to_owned(), String::new()],
        ];
        assert_eq!(
            columns(["NAME", "SIZE"], &rows),
            "NAME       SIZE\na          1\nlong?[2J"
        );
    }

    #[test]
    fn bytes_are_said_with_one_place_after_the_point() {
        let sizes = [0, 1023, 1024, 3_584, 12_897_485, u64::MAX].map(size);
        assert_eq!(
            sizes,
            ["0 B", "1023 B", "1.0 KiB", "3.5 KiB", "12.3 MiB", "15.9 EiB"]
        );
    }
}
