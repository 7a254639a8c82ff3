//! A terminal's screen as SVG, for the documentation: what people see there is what the program drew.

use std::fmt::Write;

use vt100::{Cell, Color, Screen};

/// Of a monospaced font of 14 pixels.
const CELL_WIDTH: f32 = 8.4;
const CELL_HEIGHT: f32 = 18.0;
const MARGIN: f32 = 12.0;

const PAPER: &str = "#1b1d22";
const INK: &str = "#d7dae0";

/// The picture of a screen.
pub(crate) fn svg(screen: &Screen) -> String {
    let (rows, columns) = screen.size();
    let width = f32::from(columns) * CELL_WIDTH + 2.0 * MARGIN;
    let height = f32::from(rows) * CELL_HEIGHT + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" \
         font-size=\"14\">\n<rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{PAPER}\"/>\n"
    );
    for row in 0..rows {
        let mut column = 0;
        while column < columns {
            let run = run(screen, row, column);
            draw(&mut svg, screen, row, column, run);
            column += run;
        }
    }
    svg + "</svg>\n"
}

/// How many cells from this one on look alike.
fn run(screen: &Screen, row: u16, column: u16) -> u16 {
    let columns = screen.size().1;
    let first = screen.cell(row, column).map(style);
    (column..columns).take_while(|at| screen.cell(row, *at).map(style) == first).count() as u16
}

fn style(cell: &Cell) -> (Color, bool, bool, bool) {
    (cell.fgcolor(), cell.bold(), cell.dim(), cell.inverse())
}

fn draw(svg: &mut String, screen: &Screen, row: u16, column: u16, run: u16) {
    let Some(cell) = screen.cell(row, column) else { return };
    let text = screen.contents_between(row, column, row, column + run);
    let (x, y) = (MARGIN + f32::from(column) * CELL_WIDTH, MARGIN + f32::from(row) * CELL_HEIGHT);
    let length = f32::from(run) * CELL_WIDTH;
    let (mut ink, mut paper) = (colour(cell.fgcolor()), None);
    if cell.inverse() {
        (ink, paper) = (PAPER, Some(colour(cell.fgcolor())));
    }
    if let Some(paper) = paper {
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{CELL_HEIGHT}\" fill=\"{paper}\"/>"
        );
    }
    if text.trim().is_empty() {
        return;
    }
    let weight = if cell.bold() { " font-weight=\"bold\"" } else { "" };
    let dim = if cell.dim() { " opacity=\"0.6\"" } else { "" };
    let text = text.trim_end();
    let length = text.chars().count() as f32 * CELL_WIDTH;
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{:.1}\" textLength=\"{length:.1}\" xml:space=\"preserve\" fill=\"{ink}\"{weight}{dim}>{text}</text>",
        y + 13.5
    );
}

fn colour(colour: Color) -> &'static str {
    match colour {
        Color::Idx(1 | 9) => "#f0707a",
        Color::Idx(2 | 10) => "#8fce7a",
        Color::Idx(3 | 11) => "#e6c07b",
        _ => INK,
    }
}
