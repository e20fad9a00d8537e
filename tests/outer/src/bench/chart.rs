//! What was measured, as a picture for the documents: each row's bars are in proportion to QEMU's, which is 1.

use svg::Document;
use svg::node::element::{Group, Line, Rectangle, Style, Text};

use super::System;
use super::report::{Figure, rows};

const WIDTH: f64 = 860.0;
/// Where the bars begin; the names of the rows stand before.
const LEFT: f64 = 250.0;
/// How long a bar of 1 is.
const ONE: f64 = 400.0;
/// The longest bar that is drawn whole.
const MOST: f64 = 1.25;
const BAR: f64 = 13.0;
const GAP: f64 = 12.0;
const TOP: f64 = 34.0;

const STYLE: &str = "text { font: 12px sans-serif; fill: #24292f } .figure { fill: #57606a } .rvmm { fill: #1f6feb } \
    .qemu-kvm { fill: #8c959f } .bare { fill: #d0d7de } .paper { fill: #ffffff } line { stroke: #d0d7de }";

/// Draws all rows that QEMU has a figure for.
#[must_use]
pub fn draw(figures: &[Figure]) -> String {
    let mut rows_drawn = Group::new();
    let mut y = TOP;
    for row in rows(figures) {
        let of = |system| {
            figures
                .iter()
                .find(|figure| figure.row == row && figure.system == system)
        };
        let Some(qemu) = of(System::QemuKvm).filter(|figure| figure.value > 0.0) else {
            continue;
        };
        rows_drawn = rows_drawn.add(Text::new(row).set("x", 8).set("y", y + BAR));
        for figure in System::ALL.into_iter().filter_map(of) {
            rows_drawn = bar(rows_drawn, figure, figure.value / qemu.value, y);
            y += BAR + 2.0;
        }
        y += GAP;
    }
    let scale = Line::new()
        .set("x1", LEFT + ONE)
        .set("x2", LEFT + ONE)
        .set("y1", TOP - 6.0)
        .set("y2", y);
    Document::new()
        .set("viewBox", (0, 0, WIDTH, y + GAP))
        .set("role", "img")
        .add(Style::new(STYLE))
        .add(
            Rectangle::new()
                .set("class", "paper")
                .set("width", "100%")
                .set("height", "100%"),
        )
        .add(
            Text::new("In proportion to QEMU under KVM (shorter is better)")
                .set("x", 8)
                .set("y", 18),
        )
        .add(scale)
        .add(rows_drawn)
        .to_string()
}

fn bar(group: Group, figure: &Figure, ratio: f64, y: f64) -> Group {
    let length = (ratio.min(MOST) * ONE).max(1.0);
    let text = format!("{} {}", figure.system.name(), figure.shown());
    group
        .add(
            Rectangle::new()
                .set("class", figure.system.name())
                .set("x", LEFT)
                .set("y", y)
                .set("width", (length * 10.0).round() / 10.0)
                .set("height", BAR),
        )
        .add(
            Text::new(text)
                .set("class", "figure")
                .set("x", LEFT + length + 6.0)
                .set("y", y + BAR - 2.0),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_drawn_in_proportion_to_qemus_figure() {
        let drawn = draw(&[
            Figure::bytes("binary-size", System::Rvmm, 25),
            Figure::bytes("binary-size", System::QemuKvm, 100),
        ]);
        assert!(
            drawn.contains("binary-size") && drawn.contains("width=\"100\""),
            "{drawn}"
        );
        assert!(drawn.contains("width=\"400\""), "{drawn}");
    }

    #[test]
    fn a_row_without_a_figure_of_qemu_is_left_out() {
        let drawn = draw(&[Figure::bytes("binary-size", System::Rvmm, 25)]);
        assert!(!drawn.contains("binary-size"), "{drawn}");
    }
}
