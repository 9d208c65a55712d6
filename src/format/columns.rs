//! Lines of aligned columns.

/// Pads each column to its widest cell, two spaces between; the last column is not padded.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..count).map(width).collect();
    rows.iter().map(|row| line(row, &widths)).collect()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let Some((last, padded)) = row.split_last() else { return "\n".into() };
    let padded: String = padded.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
    format!("{padded}{last}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "bb", "c"], ["ddd", "e", "ff"]].map(|row| row.map(str::to_owned).to_vec());

        assert_eq!(columns(&rows), "a    bb  c\nddd  e   ff\n");
        assert_eq!(columns(&[]), "");
    }
}
