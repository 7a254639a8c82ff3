// Elements and numbers. Whatever others wrote, such as a worker's id, goes in as text and never as markup.

/** An element: `el("td.num", {title: "…"}, "text", child)`. */
export function el(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const made = document.createElement(tag);
  if (classes.length > 0) made.className = classes.join(" ");
  return dress(made, attributes, children);
}

/** The same of a picture. */
export function svg(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  if (classes.length > 0) made.setAttribute("class", classes.join(" "));
  return dress(made, attributes, children);
}

function dress(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== "") made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== ""));
  return made;
}

/** The element of the page with this id. */
export const at = (id) => document.getElementById(id);

/** Puts text there, if it is another than before: what a reader selected stays. */
export function say(id, text) {
  const place = at(id);
  if (place.textContent !== text) place.textContent = text;
}

/**
 * Makes a list's elements those of `items`, in order. What did not change since the last time stays as it is, so that
 * focus, selection and scrolling do.
 */
export function fill(parent, items, make) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map(({ key, ...item }) => {
    const seen = JSON.stringify(item);
    const known = old.get(key);
    if (known !== undefined && known.dataset.seen === seen) return known;
    const made = make(item);
    made.dataset.key = key;
    made.dataset.seen = seen;
    return made;
  });
  const same = wanted.length === parent.children.length && wanted.every((child, i) => child === parent.children[i]);
  if (!same) parent.replaceChildren(...wanted);
}

/** A row of a table; on narrow screens each cell shows its column's name. */
export function row(...cells) {
  return el("tr", {}, cells.map(([name, kind, ...children]) => el(`td${kind}`, { "data-name": name }, ...children)));
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** 12,345. */
export const number = (value) => whole.format(value);

/** 12,345 or 1.23M: as much as fits. */
export const brief = (value) => (value < 100_000 ? whole : short).format(value);

/** What happens in a second. */
export function rate(value) {
  if (value === undefined) return "–";
  if (value >= 100) return brief(Math.round(value));
  return value >= 10 || value === 0 ? value.toFixed(0) : value.toFixed(value < 1 ? 2 : 1);
}

/** 0.123 as 12.3 %. */
export const percent = (share) => `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;

/** 1234 ms as 1.2 s. */
export function time(ms) {
  if (ms === undefined || ms === null) return "–";
  if (ms < 1000) return `${whole.format(ms)} ms`;
  if (ms < 120_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 7_200_000) return `${whole.format(ms / 60_000)} min`;
  return `${whole.format(ms / 3_600_000)} h`;
}

/** One block, 2 blocks. */
export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;
