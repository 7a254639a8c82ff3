//! The screen, drawn the same for a terminal and as text.

use ratatui::backend::TestBackend;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table};
use ratatui::{Frame, Terminal};

use super::board::{Board, HotRow, NodeLine, ShardRow, WorkerRow};
use super::format::{bytes, count, milliseconds, rate};
use super::keys;
use super::view::View;
use crate::printable;

/// From this width on there is room for the reason beside each worker.
const WIDE: u16 = 110;

/// Shards, or hot prefixes, that a section shows at most.
const SECTION_ROWS: usize = 16;

/// Narrower, columns of text would be cut to nothing.
const MIN_TEXT_WIDTH: u16 = 80;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BAD: Style = Style::new().fg(Color::Red);

/// Draws all of it. `gone` says since when and why the node does not answer.
pub(super) fn screen(frame: &mut Frame<'_>, board: &Board, view: &mut View, gone: Option<&str>) {
    let rows = view.rows(board).len();
    let notes = u16::try_from(board.notes.len() + usize::from(gone.is_some())).unwrap_or(u16::MAX);
    let third = (frame.area().height / 3).max(3);
    // Two lines are the section's own.
    let height = |shown: bool, rows: usize| match rows {
        1.. if shown => u16::try_from(rows.min(SECTION_ROWS) + 2).map_or(third, |rows| rows.min(third)),
        _ => 0,
    };
    let shards = height(view.shows_shards, board.shards.len());
    let hot = height(view.shows_hot, board.hot.len());
    let parts = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(notes.min(4)),
        Constraint::Fill(1),
        Constraint::Length(shards),
        Constraint::Length(hot),
        Constraint::Length(1),
    ]);
    let [header, said, middle, below, bottom, footer] = parts.areas(frame.area());
    frame.render_widget(Paragraph::new(node_lines(&board.node)), header);
    frame.render_widget(Paragraph::new(note_lines(board, gone)), said);
    if view.shows_workers {
        let [table, details] = Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(middle);
        workers(frame, table, board, view);
        let chosen = view.cursor.selected().map(|at| at.min(rows.saturating_sub(1)));
        if let Some(row) = chosen.and_then(|at| view.rows(board).get(at).copied()) {
            frame.render_widget(Paragraph::new(Line::styled(details_of(row), DIM)), details);
        }
    }
    if shards > 0 {
        shard_table(frame, below, &board.shards);
    }
    if hot > 0 {
        hot_table(frame, bottom, &board.hot);
    }
    frame.render_widget(Paragraph::new(foot_line(view)), footer);
    if view.help {
        help(frame);
    }
}

/// One screen as text, as high as it needs to be.
pub(super) fn as_text(board: &Board, view: &View, width: usize) -> anyhow::Result<String> {
    let mut view = view.clone();
    // There is no cursor to look at and nothing to press.
    view.cursor.select(None);
    let lines = 3
        + board.notes.len()
        + view.rows(board).len()
        + 3
        + (board.shards.len().max(board.hot.len()) + 4) * 3;
    let (width, height) = (u16::try_from(width)?.max(MIN_TEXT_WIDTH), u16::try_from(lines.min(20_000))?);
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    terminal.draw(|frame| screen(frame, board, &mut view, None))?;
    let buffer = terminal.backend().buffer();
    let mut text = Vec::new();
    for row in 0..height.saturating_sub(1) {
        let cells = (0..width).filter_map(|column| buffer.cell((column, row)));
        let line: String = cells.map(|cell| cell.symbol()).collect();
        let line = line.trim_end().to_owned();
        // Of the room between the sections one line stays.
        if !(line.is_empty() && text.last().is_some_and(String::is_empty)) {
            text.push(line);
        }
    }
    Ok(text.join("\n").trim_end().to_owned())
}

fn node_lines(node: &NodeLine) -> Text<'static> {
    let version = node.version.as_deref().unwrap_or("-");
    let place = match (&node.cluster_id, node.node_id) {
        (Some(cluster), Some(id)) => format!(
            "node {id} of cluster {}, {} nodes, leads {} shards",
            printable::name(cluster),
            node.nodes,
            node.leads
        ),
        _ => "no cluster seen".into(),
    };
    let size = match (node.bytes, node.max_bytes) {
        (Some(size), Some(cap)) => format!("{} of {}", bytes(size), bytes(cap)),
        (Some(size), None) => bytes(size),
        _ => "-".into(),
    };
    let cpu = node.cpu_percent.map_or_else(|| "-".into(), |percent| format!("{percent:.1} %"));
    Text::from(vec![
        Line::from(vec![
            Span::styled(format!("kvindex {}", printable::name(version)), BOLD),
            Span::raw(format!("  {}  {place}", printable::name(&node.server))),
        ]),
        Line::from(format!(
            "{} workers, {} streams, {} live   {} blocks   index {size}   cpu {cpu}",
            node.workers,
            node.streams,
            node.live,
            count(node.blocks)
        )),
        Line::from(format!(
            "batches {}/s   questions {}/s   p50 {}   p99 {}",
            rate(node.batches_per_s),
            rate(node.questions_per_s),
            milliseconds(node.p50_ms),
            milliseconds(node.p99_ms)
        )),
    ])
}

fn note_lines(board: &Board, gone: Option<&str>) -> Text<'static> {
    let gone =
        gone.map(|why| Line::styled(printable::name(why).into_owned(), BAD.add_modifier(Modifier::BOLD)));
    let notes = board.notes.iter().map(|note| Line::styled(printable::name(note).into_owned(), DIM));
    Text::from(gone.into_iter().chain(notes).collect::<Vec<_>>())
}

fn right(text: impl Into<String>) -> Cell<'static> {
    Cell::from(Text::from(text.into()).alignment(Alignment::Right))
}

fn heading(names: &[&'static str], left: &[&str]) -> Row<'static> {
    let cell = |name: &&'static str| if left.contains(name) { Cell::from(*name) } else { right(*name) };
    Row::new(names.iter().map(cell).collect::<Vec<_>>()).style(BOLD)
}

fn section(title: String) -> Block<'static> {
    Block::new().borders(Borders::TOP).border_style(DIM).title(Line::styled(title, BOLD))
}

fn workers(frame: &mut Frame<'_>, area: Rect, board: &Board, view: &mut View) {
    let wide = area.width >= WIDE;
    let rows = view.rows(board);
    let mut names = vec!["worker", "rank", "model", "trust", "lag ms", "gen", "blocks", "batches/s"];
    let mut widths = vec![
        Constraint::Fill(2),
        Constraint::Length(4),
        Constraint::Fill(1),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(5),
        Constraint::Length(9),
        Constraint::Length(9),
    ];
    if wide {
        names.push("why");
        widths.push(Constraint::Fill(2));
    }
    let order = if view.reversed { ", reversed" } else { "" };
    let mut title = format!(
        " workers: {} of {} streams, by {}{order} ",
        rows.len(),
        board.workers.len(),
        view.sort.word()
    );
    if !view.filter.is_empty() || view.typing {
        title += &format!("filter /{}{} ", printable::name(&view.filter), if view.typing { "_" } else { "" });
    }
    let cells = rows.iter().map(|row| worker_row(row, wide)).collect::<Vec<_>>();
    let table = Table::new(cells, widths)
        .header(heading(&names, &["worker", "model", "trust", "why"]))
        .block(section(title))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(table, area, &mut view.cursor);
}

fn worker_row(row: &WorkerRow, wide: bool) -> Row<'static> {
    let style = match row.trust {
        "live" if row.reason.is_empty() => Style::new().fg(Color::Green),
        "live" | "pending" | "rebuilding" => Style::new().fg(Color::Yellow),
        "suspect" => BAD,
        _ => DIM,
    };
    let mut cells = vec![
        Cell::from(printable::name(&row.worker_id).into_owned()),
        right(row.dp_rank.map_or_else(|| "-".into(), |rank| rank.to_string())),
        Cell::from(printable::name(&row.model).into_owned()),
        Cell::from(Span::styled(row.trust, style)),
        right(count(row.lag_ms)),
        right(row.generation.to_string()),
        right(count(row.blocks)),
        right(rate(row.batches_per_s)),
    ];
    if wide {
        cells.push(Cell::from(printable::name(&row.reason).into_owned()));
    }
    Row::new(cells)
}

/// What the columns have no room for.
fn details_of(row: &WorkerRow) -> String {
    let batch = row.applied_seq.map_or_else(|| "none".into(), |seq| seq.to_string());
    let why = if row.reason.is_empty() { String::new() } else { format!("; {}", row.reason) };
    let said = format!(
        "{}: {}, tenant {}, events from {}, last batch {batch}{why}",
        row.worker_id, row.engine, row.tenant, row.events_from
    );
    printable::name(&said).into_owned()
}

fn shard_table(frame: &mut Frame<'_>, area: Rect, shards: &[ShardRow]) {
    let names =
        ["shard", "role here", "leader", "term", "applied", "behind", "age ms", "voters", "entries/s"];
    let widths = [
        Constraint::Length(5),
        Constraint::Fill(1),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(9),
    ];
    let rows = shards.iter().map(shard_row).collect::<Vec<_>>();
    let led = shards.iter().filter(|shard| shard.leader != 0).count();
    let title = format!(" shards: {}, {led} with a leader ", shards.len());
    let table = Table::new(rows, widths).header(heading(&names, &["role here"])).block(section(title));
    frame.render_widget(table, area);
}

fn shard_row(shard: &ShardRow) -> Row<'static> {
    let or_dash = |number: Option<u64>| number.map_or_else(|| "-".into(), count);
    let role = match shard.stopped.as_str() {
        "" => shard.role.clone(),
        why => format!("{}: {why}", shard.role),
    };
    let style = match (shard.role.as_str(), shard.leader) {
        ("stopped", _) | (_, 0) => BAD,
        ("leader", _) => BOLD,
        _ => Style::new(),
    };
    let learners = shard.members.saturating_sub(shard.voters);
    let voters =
        if learners == 0 { shard.voters.to_string() } else { format!("{}+{learners}", shard.voters) };
    Row::new(vec![
        right(shard.shard.to_string()),
        Cell::from(Span::styled(printable::name(&role).into_owned(), style)),
        right(if shard.leader == 0 { "-".into() } else { shard.leader.to_string() }),
        right(count(shard.term)),
        right(or_dash(shard.applied)),
        right(count(shard.entries_behind)),
        right(or_dash(shard.age_ms)),
        right(voters),
        right(rate(shard.entries_per_s)),
    ])
}

fn hot_table(frame: &mut Frame<'_>, area: Rect, hot: &[HotRow]) {
    let names = ["per s", "share", "tokens", "blocks", "held by", "model", "tenant", "ends with"];
    let widths = [
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Fill(2),
        Constraint::Fill(1),
        Constraint::Length(16),
    ];
    let row = |prefix: &HotRow| {
        let model = match &prefix.lora_name {
            Some(lora) => format!("{} + {lora}", prefix.model),
            None => prefix.model.clone(),
        };
        Row::new(vec![
            right(rate(Some(prefix.questions_per_s))),
            right(format!("{:.0} %", prefix.share * 100.0)),
            right(count(prefix.tokens)),
            right(count(prefix.blocks)),
            right(count(prefix.held_by)),
            Cell::from(printable::name(&model).into_owned()),
            Cell::from(printable::name(&prefix.tenant).into_owned()),
            Cell::from(prefix.sequence_hash.clone()),
        ])
    };
    let title = format!(" hot prefixes: {} asked for most ", hot.len());
    let left = ["model", "tenant", "ends with"];
    let table = Table::new(hot.iter().map(row).collect::<Vec<_>>(), widths)
        .header(heading(&names, &left))
        .block(section(title));
    frame.render_widget(table, area);
}

fn foot_line(view: &View) -> Line<'static> {
    if view.typing {
        return Line::from("type a filter; Enter keeps it, Esc clears it");
    }
    let keys = Span::styled("q quit  s sort  / filter  p pause  1 2 3 sections  ? help", DIM);
    if view.paused {
        return Line::from(vec![Span::styled("PAUSED  ", BOLD.fg(Color::Yellow)), keys]);
    }
    Line::from(keys)
}

fn help(frame: &mut Frame<'_>) {
    let lines = keys::HELP.iter().map(|(key, does)| Line::from(format!(" {key:<15} {does}")));
    let height = u16::try_from(keys::HELP.len() + 2).unwrap_or(u16::MAX);
    let area = frame.area();
    let (width, height) = (area.width.min(78), area.height.min(height));
    let place = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    frame.render_widget(Clear, place);
    let text = Paragraph::new(lines.collect::<Vec<_>>()).block(Block::bordered().title(" keys "));
    frame.render_widget(text, place);
}

#[cfg(test)]
mod tests;
