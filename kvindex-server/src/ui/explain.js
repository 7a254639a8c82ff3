// Why a prompt hits or misses, as a picture: each worker's path over the prompt's blocks, coloured by tier, and the
// reason at its end.

import { ask, Refused } from "./calls.js";
import { chip } from "./fleet.js";
import { at, count, el, number, percent, say, svg } from "./draw.js";

// More paths than this are no picture; the best come first.
const MOST_WORKERS = 50;
// So many blocks can be told apart on a screen.
const APART = 160;
const WIDTH = 1000;
const TIERS = ["device", "host", "disk", "external"];

/** Answers the form. */
export function listen() {
  at("ask").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.submitter ?? at("ask").querySelector("button");
    button.disabled = true;
    say("ask-said", "asking …");
    at("ask-said").classList.remove("bad");
    try {
      const began = performance.now();
      const answer = await ask("v1/explain", question());
      say("ask-said", `${count(answer.workers.length, "stream")} in ${(performance.now() - began).toFixed(0)} ms, of these ${number(answer.timing.hash_us + answer.timing.walk_us)} µs in the index`);
      draw(answer);
    } catch (error) {
      at("ask-said").classList.add("bad");
      say("ask-said", error instanceof Refused && error.status === 401 ? "this node asks for a token" : error.message);
      at("picture").replaceChildren();
    } finally {
      button.disabled = false;
    }
  });
}

/** The call's body, written by hand: hashes have more digits than JavaScript's numbers. */
function question() {
  const form = at("ask-form").value;
  const fields = [`"model":${JSON.stringify(at("ask-model").value)}`, `"${form}":[${numbers(at("ask-numbers").value, form)}]`];
  const size = at("ask-size").value.trim();
  if (size !== "" && !/^\d{1,6}$/.test(size)) throw new Error(`block size: ${JSON.stringify(size)} is no number`);
  if (size !== "") fields.push(`"block_size":${Number(size)}`);
  for (const [name, id] of [["lora_name", "ask-lora"], ["cache_salt", "ask-salt"], ["tenant", "ask-tenant"]]) {
    const text = at(id).value;
    if (text !== "") fields.push(`"${name}":${JSON.stringify(text)}`);
  }
  return `{"prompt":{${fields.join(",")}},"top_k":${MOST_WORKERS}}`;
}

/** Numbers as people paste them: with commas, brackets or lines between; hashes in hex too. */
export function numbers(text, form) {
  const most = form === "token_ids" ? 0xffff_ffffn : 0xffff_ffff_ffff_ffffn;
  const found = text.split(/[\s,;[\]"']+/).filter((word) => word !== "");
  if (found.length === 0) throw new Error("numbers: there are none");
  return found
    .map((word, i) => {
      const written = /^(\d+|0x[0-9a-f]+)$/i.test(word) ? BigInt(word) : undefined;
      if (written === undefined || written > most) throw new Error(`numbers: ${JSON.stringify(word.slice(0, 40))}, number ${i + 1}, is no whole number up to ${most}`);
      return written.toString();
    })
    .join(",");
}

function draw(answer) {
  const tiers = new Set(answer.workers.flatMap((worker) => worker.matched.tiers.map((tier) => tier.tier)));
  const shown = [...TIERS, ...tiers].filter((tier, i, all) => tiers.has(tier) && all.indexOf(tier) === i);
  const sample = (kind) => svg("svg", { viewBox: "0 0 16 12", "aria-hidden": "true" }, svg(`rect.${kind}`, { x: 1, y: 1, width: 14, height: 10, rx: 2 }));
  const entry = ([kind, text]) => el("span", {}, sample(kind), text);
  const legend = [...shown.map((tier) => [kindOf(tier), tier]), ["t-none", "not held"], ["t-beyond", "held behind the break, of no use"]];
  const head = el("p.quiet", {}, `${number(answer.prompt_tokens)} tokens, from left to right. The tier of a block is the fastest that the path needs to reach it.`);
  const none = answer.workers.length === 0 && el("p", {}, "No worker of this model and tenant is registered.");
  at("picture").replaceChildren(head, el("div.legend", {}, legend.map(entry)), ...answer.workers.map((worker) => path(worker, answer.prompt_tokens)), none || "");
}

const kindOf = (tier) => (TIERS.includes(tier) ? `t-${tier}` : "t-other");

function path(worker, tokens) {
  const { matched } = worker;
  const held = tokens > 0 ? matched.matched_tokens / tokens : 0;
  const trust = matched.trust ?? { state: "pending", reason: "" };
  const much = worker.prompt_blocks > 0 ? `${number(matched.matched_blocks)} of ${number(worker.prompt_blocks)} blocks, ${percent(held)}` : "no blocks";
  const doubts = matched.doubts.length > 0 && el("div.quiet", {}, `The events leave open: ${matched.doubts.join(", ").replaceAll("_", " ")}.`);
  const distrust = trust.reason !== "" && el("div.quiet", {}, `${trust.state}: ${trust.reason}`);
  return el("article.path", {},
    el("div.who", {},
      el("b", {}, matched.worker_id),
      el("span.quiet", {}, [`rank ${matched.dp_rank}`, matched.address, matched.role].filter(Boolean).join(" · ")),
      chip(trust.state),
      el("span.much", {}, much)),
    picture(worker, tokens),
    el("div.why", {}, reason(worker)),
    doubts || undefined, distrust || undefined);
}

/** The reason at the path's end, in the node's words; times as this reader's clock tells them. */
function reason(worker) {
  const clock = (_, ms) => new Date(Number(ms)).toLocaleTimeString("en-GB");
  const detail = worker.detail.replace(/(\d{12,14}) ms\b/g, clock);
  const broke = worker.broke_at !== undefined && worker.broke_at !== null;
  const beyond = worker.held_beyond > 0 && el("span.quiet", {}, `; ${count(worker.held_beyond, "block")} held further on`);
  return [broke && worker.prompt_blocks > 0 ? el("b", {}, `block ${number(worker.broke_at)}: `) : "", detail, beyond || ""];
}

function picture(worker, tokens) {
  const { matched } = worker;
  const size = matched.block_size || 1;
  const blocks = Math.max(1, worker.prompt_blocks || Math.floor(tokens / size));
  const unit = WIDTH / blocks;
  const gap = blocks <= APART ? Math.min(2, unit * 0.15) : 0;
  const parts = [];
  const piece = (kind, from, to, title) => {
    if (to <= from) return;
    const named = title && svg("title", {}, title);
    // Blocks that can be told apart stand apart.
    const pieces = gap > 0 ? Array.from({ length: to - from }, (_, i) => [from + i, from + i + 1]) : [[from, to]];
    for (const [a, b] of pieces) {
      parts.push(svg(`rect.${kind}`, { x: a * unit + gap / 2, y: 5, width: Math.max(0.5, (b - a) * unit - gap), height: 20 }, named ? named.cloneNode(true) : undefined));
    }
  };
  let reached = 0;
  for (const tier of matched.tiers) {
    const to = Math.min(tier.prefix_blocks, matched.matched_blocks);
    piece(kindOf(tier.tier), reached, to, `${tier.tier}: blocks ${reached} to ${to - 1}`);
    reached = Math.max(reached, to);
  }
  piece("t-other", reached, matched.matched_blocks, "held");
  const ends = matched.matched_blocks;
  const beyond = Math.min(worker.held_beyond, Math.max(0, blocks - ends - 1));
  piece("t-none", ends, blocks, "not held");
  if (beyond > 0) {
    // Which ones they are is not told: they are drawn as far right as they may be.
    parts.push(svg("rect.t-beyond", { x: (blocks - beyond) * unit + 1, y: 6, width: Math.max(1, beyond * unit - 2), height: 18 }, svg("title", {}, `${count(worker.held_beyond, "block")} held behind the break`)));
  }
  const mark = Math.min(WIDTH - 1.5, Math.max(1.5, ends * unit));
  parts.push(svg(worker.reason === "complete" ? "line.break.complete" : "line.break", { x1: mark, x2: mark, y1: 1, y2: 29 }));
  const label = `${matched.worker_id} holds ${matched.matched_blocks} of ${blocks} blocks`;
  return svg("svg", { viewBox: `0 0 ${WIDTH} 30`, preserveAspectRatio: "none", role: "img", "aria-label": label }, parts);
}
