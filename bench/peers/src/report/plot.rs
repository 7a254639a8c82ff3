//! The plot: our ratio to the best peer, a line a figure, on a logarithmic axis with the target marked.

use std::fmt::Write;

use super::figures::{Figure, Outcome};
use super::table::{measured, number};
use crate::samples::Samples;

/// Least and greatest ratio on the axis, as powers of two; what lies beyond sits at the edge.
const AXIS: (f64, f64) = (-7.0, 4.0);
const LABELS: f64 = 330.0;
const PLOT: f64 = 560.0;
const NUMBERS: f64 = 70.0;
const ROW: f64 = 18.0;
const TOP: f64 = 64.0;
const REACHED: &str = "#1a7f37";
const MISSED: &str = "#cf222e";
const UNSET: &str = "#57606a";

/// The picture as SVG.
pub(crate) fn draw(figures: &[Figure], samples: &Samples) -> String {
    let rows: Vec<(&Figure, Outcome)> =
        measured(figures, samples).filter(|(_, outcome)| outcome.ratio.is_some()).collect();
    let (width, height) = (LABELS + PLOT + NUMBERS, TOP + ROW * rows.len() as f64 + 16.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <title>kvindex to the best peer, by figure</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"8\" y=\"20\" font-size=\"14\" fill=\"#1f2328\">kvindex ÷ best peer: left of 1× is better. \
         The short line is the target.</text>\n"
    );
    axis(&mut svg, height);
    for (row, (figure, outcome)) in rows.iter().enumerate() {
        line(&mut svg, TOP + ROW * (row as f64 + 0.5), figure, outcome);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Where a ratio lies.
fn x(ratio: f64) -> f64 {
    let power = ratio.log2().clamp(AXIS.0, AXIS.1);
    LABELS + PLOT * (power - AXIS.0) / (AXIS.1 - AXIS.0)
}

fn axis(svg: &mut String, height: f64) {
    for power in AXIS.0 as i32..=AXIS.1 as i32 {
        let ratio = 2f64.powi(power);
        let (at, bottom) = (x(ratio), height - 12.0);
        let colour = if power == 0 { "#1f2328" } else { "#d8dee4" };
        let name = if power < 0 { format!("1/{}×", 1 << -power) } else { format!("{ratio}×") };
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{bottom}\" stroke=\"{colour}\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#57606a\">{name}</text>",
            TOP - 6.0,
            TOP - 12.0
        );
    }
}

fn line(svg: &mut String, y: f64, figure: &Figure, outcome: &Outcome) {
    let Some(ratio) = outcome.ratio else { return };
    let colour = match outcome.reached {
        Some(true) => REACHED,
        Some(false) => MISSED,
        None => UNSET,
    };
    let (one, at) = (x(1.0), x(ratio));
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#1f2328\">{}</text>\
         <line x1=\"{one:.1}\" x2=\"{at:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" stroke-width=\"2\"/>\
         <circle cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>\
         <text x=\"{}\" y=\"{:.1}\" fill=\"{colour}\">{}×</text>",
        LABELS - 10.0,
        y + 4.0,
        escape(&figure.title),
        LABELS + PLOT + 10.0,
        y + 4.0,
        number(ratio),
    );
    if let Some(bar) = outcome.bar_ratio.filter(|_| outcome.reached.is_some()) {
        let at = x(bar);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#1f2328\" stroke-width=\"2.5\"/>",
            y - 7.0,
            y + 7.0
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_is_logarithmic_and_ends_at_its_edges() {
        let step = x(2.0) - x(1.0);
        assert!((x(1.0) - x(0.5) - step).abs() < 1e-9);
        assert!((x(1e9) - (LABELS + PLOT)).abs() < 1e-9);
        assert!((x(0.0) - LABELS).abs() < 1e-9);
    }
}
