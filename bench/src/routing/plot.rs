//! The plot beside the page: mean TTFT by load for tight and ample caches, and hit rates. Written by hand, because a
//! few lines and bars need no library.

use std::fmt::Write;

use super::figures::Figures;
use super::router::Policy;
use super::scenario::{Case, Kind, Measured, Scenarios};

const WIDTH: f64 = 1080.0;
const HEAD: f64 = 64.0;
const ROW: f64 = 300.0;
const INK: &str = "#1f2328";
const FAINT: &str = "#57606a";
const GRID: &str = "#d8dee4";

/// A rectangle that values are drawn into.
struct Panel {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

fn colour(policy: Policy) -> &'static str {
    match policy {
        Policy::RoundRobin => "#8c959f",
        Policy::Session => "#bf8700",
        Policy::Guess => "#0969da",
        Policy::GuessDefault => "#8250df",
        Policy::Kvindex => "#cf222e",
        Policy::KvindexSpeculative => "#1a7f37",
    }
}

/// The whole picture: a row of panels for each trace.
pub(super) fn svg(scenarios: &Scenarios, measured: &[Measured]) -> String {
    let height = HEAD + ROW * measured.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <title>TTFT by load, and prefix hit rates, by routing policy</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    text(
        &mut svg,
        12.0,
        20.0,
        "start",
        INK,
        &format!("{} simulated engines, by routing policy", scenarios.middle()),
    );
    for (at, policy) in scenarios.policies.iter().enumerate() {
        let x = 12.0 + at as f64 * 176.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"32\" width=\"12\" height=\"12\" fill=\"{}\"/>",
            colour(*policy)
        );
        text(&mut svg, x + 17.0, 42.0, "start", INK, policy.name());
    }
    for (row, trace) in measured.iter().enumerate() {
        let y = HEAD + ROW * row as f64 + 34.0;
        for (column, cache_blocks) in scenarios.caches().iter().take(2).enumerate() {
            let panel = Panel { x: 52.0 + 360.0 * column as f64, y, width: 290.0, height: 210.0 };
            lines(&mut svg, &panel, scenarios, trace, *cache_blocks);
        }
        bars(&mut svg, &Panel { x: 772.0, y, width: 290.0, height: 210.0 }, scenarios, trace);
    }
    svg.push_str("</svg>\n");
    svg
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, fill: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{fill}\">{words}</text>"
    );
}

fn rule(svg: &mut String, panel: &Panel, y: f64, words: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{GRID}\"/>",
        panel.x,
        panel.x + panel.width
    );
    text(svg, panel.x - 6.0, y + 4.0, "end", FAINT, words);
}

/// Mean TTFT by load; the times grow by the logarithm, for they differ by orders of magnitude.
fn lines(svg: &mut String, panel: &Panel, scenarios: &Scenarios, trace: &Measured, cache_blocks: usize) {
    let title = format!("{}: mean TTFT, s, by load; {cache_blocks} blocks", trace.name);
    text(svg, panel.x - 30.0, panel.y - 12.0, "start", INK, &title);
    let mean = |load: f64, policy: Policy| {
        let case = Case { engines: scenarios.middle(), cache_blocks, routers: 1, kind: Kind::Load(load) };
        trace.of(case, policy).map(|figures| figures.ttft_mean.max(1e-3))
    };
    let all = scenarios
        .loads
        .iter()
        .flat_map(|load| scenarios.policies.iter().filter_map(move |policy| mean(*load, *policy)));
    let (least, most) = all.fold((f64::INFINITY, 0.0f64), |(least, most), of| (least.min(of), most.max(of)));
    if most <= 0.0 {
        return;
    }
    let (low, high) = (least.log2().floor(), most.log2().ceil().max(least.log2().floor() + 1.0));
    let y = |time: f64| panel.y + panel.height * (1.0 - (time.log2() - low) / (high - low));
    let (first, last) =
        (scenarios.loads.first().copied().unwrap_or(0.0), scenarios.loads.last().copied().unwrap_or(1.0));
    let x = |load: f64| panel.x + panel.width * (load - first) / (last - first).max(1e-9);
    for step in low as i32..=high as i32 {
        let time = f64::from(step).exp2();
        let words = if time < 1.0 { format!("{time:.2}") } else { format!("{time:.0}") };
        rule(svg, panel, y(time), &words);
    }
    for load in &scenarios.loads {
        text(svg, x(*load), panel.y + panel.height + 16.0, "middle", FAINT, &load.to_string());
    }
    for policy in &scenarios.policies {
        let points = scenarios.loads.iter().filter_map(|load| Some((x(*load), y(mean(*load, *policy)?))));
        let points: Vec<(f64, f64)> = points.collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dashed = if *policy == Policy::KvindexSpeculative { " stroke-dasharray=\"5 4\"" } else { "" };
        let colour = colour(*policy);
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashed}/>",
            path.join(" ")
        );
        for (x, y) in points {
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>");
        }
    }
}

/// Hit rates at the usual load, of one router and of several.
fn bars(svg: &mut String, panel: &Panel, scenarios: &Scenarios, trace: &Measured) {
    let load = scenarios.usual_load();
    let title = format!("{}: prefix hit rate at load {load}", trace.name);
    text(svg, panel.x - 30.0, panel.y - 12.0, "start", INK, &title);
    let groups: Vec<(usize, usize)> = scenarios
        .caches()
        .iter()
        .flat_map(|cache| scenarios.router_counts().into_iter().map(move |routers| (*cache, routers)))
        .collect();
    let rate = |(cache_blocks, routers), policy| {
        let case = Case { engines: scenarios.middle(), cache_blocks, routers, kind: Kind::Load(load) };
        trace.of(case, policy).map_or(0.0, Figures::hit_rate)
    };
    let rates = groups.iter().flat_map(|group| scenarios.policies.iter().map(|policy| rate(*group, *policy)));
    let most = (rates.fold(0.0, f64::max) * 10.0).ceil().max(1.0) / 10.0;
    let y = |rate: f64| panel.y + panel.height * (1.0 - rate / most);
    for step in 0..=(most * 10.0).round() as i32 {
        rule(svg, panel, y(f64::from(step) / 10.0), &format!("{} %", step * 10));
    }
    let room = panel.width / groups.len() as f64;
    let width = 0.84 * room / scenarios.policies.len() as f64;
    for (at, group) in groups.iter().enumerate() {
        let left = panel.x + room * (at as f64 + 0.08);
        for (number, policy) in scenarios.policies.iter().enumerate() {
            let top = y(rate(*group, *policy));
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
                left + width * number as f64,
                width - 1.5,
                panel.y + panel.height - top,
                colour(*policy)
            );
        }
        let (middle, bottom) = (left + 0.42 * room, panel.y + panel.height);
        let routers = if group.1 == 1 { "1 router".to_owned() } else { format!("{} routers", group.1) };
        text(svg, middle, bottom + 16.0, "middle", FAINT, &format!("{} blocks", group.0));
        text(svg, middle, bottom + 30.0, "middle", FAINT, &routers);
    }
}
