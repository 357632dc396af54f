//! Tables for people: columns as wide as what is in them, two spaces between.

/// A table as text, without a last line's end.
#[must_use]
pub fn text<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(&widths);
        let padded: Vec<String> = padded
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(head)];
    for row in rows {
        lines.push(line(row.each_ref().map(String::as_str)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows = [
            ["1".to_owned(), "eu-west".to_owned()],
            ["1000".to_owned(), String::new()],
        ];
        let shown = text(["NODE", "REGION"], &rows);
        assert_eq!(shown, "NODE  REGION\n1     eu-west\n1000");
    }
}
