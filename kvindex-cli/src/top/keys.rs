//! Keys: what each does to the view.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::view::View;

/// The keys as the help tells them.
pub(super) const HELP: [(&str, &str); 9] = [
    ("q, Ctrl-C", "quit"),
    ("s / S", "sort by the next column / the other way round"),
    ("/", "filter by id, model, tenant or trust; Enter keeps it, Esc clears it"),
    ("p, blank", "pause: nothing is asked until the next p"),
    ("1 / 2 / 3", "show or hide workers / shards / hot prefixes"),
    ("j / k, arrows", "next or previous row; its details stand below"),
    ("PgDn / PgUp", "ten rows"),
    ("g / G", "first or last row"),
    ("? or h", "this help"),
];

/// What a key asks of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Stay,
    Quit,
}

/// Takes a key.
pub(super) fn take(key: KeyEvent, view: &mut View) -> Wish {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return if key.code == KeyCode::Char('c') { Wish::Quit } else { Wish::Stay };
    }
    if view.typing {
        typed(key.code, view);
        return Wish::Stay;
    }
    match key.code {
        // Whoever reads the help leaves that first.
        KeyCode::Char('q') | KeyCode::Esc if view.help => view.help = false,
        KeyCode::Char('q') => return Wish::Quit,
        KeyCode::Esc => view.filter.clear(),
        KeyCode::Char('?' | 'h') => view.help = !view.help,
        KeyCode::Char('s') => view.sort = view.sort.next(),
        KeyCode::Char('S') => view.reversed = !view.reversed,
        KeyCode::Char('/') => view.typing = true,
        KeyCode::Char('p' | ' ') => view.paused = !view.paused,
        KeyCode::Char('1') => view.shows_workers = !view.shows_workers,
        KeyCode::Char('2') => view.shows_shards = !view.shows_shards,
        KeyCode::Char('3') => view.shows_hot = !view.shows_hot,
        KeyCode::Char('j') | KeyCode::Down => view.cursor.select_next(),
        KeyCode::Char('k') | KeyCode::Up => view.cursor.select_previous(),
        KeyCode::PageDown => view.cursor.scroll_down_by(10),
        KeyCode::PageUp => view.cursor.scroll_up_by(10),
        KeyCode::Char('g') | KeyCode::Home => view.cursor.select_first(),
        KeyCode::Char('G') | KeyCode::End => view.cursor.select_last(),
        _ => {}
    }
    Wish::Stay
}

/// A key while the filter is typed.
fn typed(code: KeyCode, view: &mut View) {
    match code {
        KeyCode::Enter => view.typing = false,
        KeyCode::Esc => {
            view.typing = false;
            view.filter.clear();
        }
        KeyCode::Backspace => {
            view.filter.pop();
        }
        // No name is longer.
        KeyCode::Char(c) if view.filter.len() < kvindex_core::limits::MAX_NAME_BYTES => view.filter.push(c),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::Column;
    use super::*;

    fn press(view: &mut View, keys: &str) -> Wish {
        let mut wish = Wish::Stay;
        for c in keys.chars() {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Backspace,
                c => KeyCode::Char(c),
            };
            wish = take(KeyEvent::new(code, KeyModifiers::NONE), view);
        }
        wish
    }

    #[test]
    fn keys_change_what_is_shown() {
        let mut view = View::new(Column::Worker, String::new());
        assert_eq!(press(&mut view, "sSp123"), Wish::Stay);
        assert_eq!((view.sort, view.reversed, view.paused), (Column::Model, true, true));
        assert_eq!((view.shows_workers, view.shows_shards, view.shows_hot), (false, false, false));
        assert_eq!(press(&mut view, "p123?q"), Wish::Stay, "q leaves the help first");
        assert_eq!(press(&mut view, "q"), Wish::Quit);
    }

    #[test]
    fn a_filter_takes_every_letter_until_enter() {
        let mut view = View::new(Column::Worker, String::new());
        assert_eq!(press(&mut view, "/qps\u{8}\n"), Wish::Stay);
        assert_eq!((view.filter.as_str(), view.typing, view.paused), ("qp", false, false));
        press(&mut view, "/x\u{1b}");
        assert_eq!((view.filter.as_str(), view.typing), ("", false));
        let mut control = |c| take(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL), &mut view);
        assert_eq!((control('s'), control('c')), (Wish::Stay, Wish::Quit));
    }
}
