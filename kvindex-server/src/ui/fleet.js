// What there is and how it stands: tiles, notices, workers, hot prefixes, the cluster.

import { at, brief, count, el, fill, number, percent, rate, row, say, svg, time } from "./draw.js";

// More rows than this nobody reads; the filter finds the others.
const MOST_ROWS = 200;
// Points of a small curve: at the usual pace the last three minutes.
const POINTS = 60;
// A shard that is older than this is worth a word: some heartbeats and an election.
const OLD_MS = 5_000;

const STATES = ["suspect", "rebuilding", "pending", "live"];
const curves = { questions: [], batches: [] };
let before = new Map();
let beforeAt = 0;

/** One entry for each stream of each worker, with how many batches a second it has taken in since the last look. */
export function streamsOf(workers, now) {
  const seconds = (now - beforeAt) / 1000;
  const seen = new Map();
  const streams = workers.flatMap((worker) => {
    const listed = worker.streams.length > 0 ? worker.streams : [undefined];
    return listed.map((stream, i) => {
      const key = `${worker.worker_id} ${stream?.dp_rank ?? 0}`;
      const trust = stream?.trust ?? { state: "pending", reason: "has no stream yet", lag_ms: 0, generation: 0 };
      const past = before.get(key);
      const applied = trust.applied_seq ?? undefined;
      if (applied !== undefined) seen.set(key, { generation: trust.generation, applied });
      const known = past !== undefined && past.generation === trust.generation && applied >= past.applied && seconds > 0;
      return { key, worker, stream, trust, first: i === 0, rate: known ? (applied - past.applied) / seconds : undefined };
    });
  });
  [before, beforeAt] = [seen, now];
  // What is not as it should be comes first; of equals the node's order stays.
  return streams.sort((a, b) => STATES.indexOf(a.trust.state) - STATES.indexOf(b.trust.state));
}

export function drawTiles(workers, streams, hot) {
  const counts = STATES.map((state) => [state, streams.filter((one) => one.trust.state === state).length]);
  const not = counts.filter(([state, n]) => state !== "live" && n > 0).map(([state, n]) => `${number(n)} ${state}`);
  const lag = streams.reduce((worst, one) => Math.max(worst, one.trust.lag_ms), 0);
  const blocks = streams.reduce((sum, one) => sum + (one.stream?.blocks ?? 0), 0);
  const rates = streams.filter((one) => one.rate !== undefined);
  const batches = rates.length > 0 ? rates.reduce((sum, one) => sum + one.rate, 0) : undefined;
  const live = counts[STATES.indexOf("live")][1];
  curve(curves.questions, hot?.questions_per_s);
  curve(curves.batches, batches);
  const tiles = [
    { key: "workers", name: "workers", value: number(workers.length), more: modelsOf(workers) },
    { key: "live", name: "streams live", value: `${number(live)} of ${number(streams.length)}`, more: not.join(", ") || "all of them" },
    { key: "lag", name: "largest lag", value: time(lag), more: lag === 0 ? "nothing is waiting" : "oldest batch not yet applied" },
    { key: "blocks", name: "block copies", value: brief(blocks), more: "over all tiers" },
    { key: "questions", name: "questions/s", value: rate(hot?.questions_per_s), more: "this node", points: [...curves.questions] },
    { key: "batches", name: "event batches/s", value: rate(batches), more: "all streams", points: [...curves.batches] },
  ];
  fill(at("tiles"), tiles, tile);
}

function modelsOf(workers) {
  const models = [...new Set(workers.map((worker) => worker.model))];
  return models.length === 1 ? models[0] : count(models.length, "model");
}

function curve(points, value) {
  if (value === undefined) return;
  points.push(Math.round(value * 100) / 100);
  if (points.length > POINTS) points.shift();
}

function tile({ name, value, more, points = [] }) {
  const top = Math.max(...points, 1e-9);
  const line = points.map((value, i) => `${((POINTS - points.length + i) / (POINTS - 1)) * 100},${29 - (value / top) * 26}`).join(" ");
  const picture = points.length > 1 && svg("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("polyline", { points: line }));
  return el("div.tile", {}, el("div.name", {}, name), el("div.value", {}, value), el("div.more", { title: more }, more), picture || undefined);
}

/** What someone on duty should read first. The node has no list of alerts; these follow from what its calls say. */
export function drawNotices(streams, cluster, ready, trouble) {
  const notices = [...trouble];
  if (!ready.ready && ready.said !== "") notices.push({ level: "bad", text: `This node takes no calls: ${ready.said}`, more: "" });
  const reasons = new Map();
  for (const { worker, stream, trust } of streams) {
    if (trust.state === "live" && trust.reason === "") continue;
    const key = `${trust.state} ${trust.reason}`;
    const found = reasons.get(key) ?? { trust, ids: [] };
    found.ids.push(stream && stream.dp_rank > 0 ? `${worker.worker_id} rank ${stream.dp_rank}` : worker.worker_id);
    reasons.set(key, found);
  }
  const weight = ([, { trust }]) => (trust.state === "live" ? STATES.length - 1 : STATES.indexOf(trust.state));
  for (const [, { trust, ids }] of [...reasons].sort((a, b) => weight(a) - weight(b))) {
    const level = { suspect: "bad", rebuilding: "warn", live: "warn" }[trust.state] ?? "";
    const more = ids.slice(0, 5).join(", ") + (ids.length > 5 ? ` and ${number(ids.length - 5)} more` : "");
    const what = `${count(ids.length, "stream is", "streams are")} ${trust.state}`;
    notices.push({ level, text: trust.reason === "" ? what : `${what}: ${trust.reason}`, more });
  }
  const differ = streams.filter((one) => one.stream?.hash_check === "differs");
  if (differ.length > 0) {
    const more = differ.slice(0, 5).map((one) => one.worker.worker_id).join(", ");
    notices.push({ level: "warn", text: `${count(differ.length, "engine hashes", "engines hash")} blocks in another way than registered`, more });
  }
  notices.push(...clusterNotices(cluster));
  fill(at("notices"), notices.slice(0, 12).map((one, i) => ({ key: `${i}`, ...one })), ({ level, text, more }) =>
    el(level === "" ? "li" : `li.${level}`, {}, text, more && el("span.quiet", {}, more)));
}

function clusterNotices(cluster) {
  if (cluster === undefined) return [];
  const numbers = (shards) => shards.map((shard) => shard.shard).join(", ");
  const notices = [];
  const tell = (level, shards, what) => {
    if (shards.length > 0) notices.push({ level, text: `${count(shards.length, "shard")} ${what}`, more: `shard ${numbers(shards)}` });
  };
  if (cluster.waits_for !== "") notices.push({ level: "bad", text: `This node is no member yet: ${cluster.waits_for}`, more: "" });
  tell("bad", cluster.shards.filter((shard) => shard.stopped !== ""), "stopped on this node");
  tell("bad", cluster.shards.filter((shard) => shard.stopped === "" && shard.leader === 0), "without a leader known here");
  tell("warn", cluster.shards.filter(isOld), "behind on this node");
  return notices;
}

const isOld = (shard) => shard.stopped === "" && (shard.age_ms === undefined || shard.age_ms === null || shard.age_ms > OLD_MS);

export function drawWorkers(streams, filter) {
  const wanted = filter.trim().toLowerCase();
  const words = ({ worker, trust }) =>
    [worker.worker_id, worker.model, worker.tenant, worker.address, worker.role, worker.pd_group, worker.engine, worker.pod?.name, trust.state, trust.reason];
  const found = streams.filter((one) => wanted === "" || words(one).some((word) => word?.toLowerCase().includes(wanted)));
  const shown = found.slice(0, MOST_ROWS);
  fill(at("worker-rows"), shown.map((one) => ({ key: one.key, ...cellsOf(one) })), workerRow);
  const rest = found.length - shown.length;
  const none = streams.length === 0 ? "No worker is registered. `kvindex register`, a file of workers or discovery makes one known." : "No worker is like that.";
  say("worker-more", found.length === 0 ? none : rest > 0 ? `${number(rest)} more streams: filter to see them.` : "");
}

function cellsOf({ worker, stream, trust, rate: batches }) {
  return {
    id: worker.worker_id,
    what: [worker.model, [worker.engine, worker.engine_version].filter(Boolean).join(" "), worker.tenant !== "default" && `tenant ${worker.tenant}`, worker.role, worker.pd_group && `group ${worker.pd_group}`].filter(Boolean).join(" · "),
    rank: stream ? `${stream.dp_rank}` : "–",
    state: trust.state,
    reason: trust.reason,
    lag: time(trust.lag_ms),
    blocks: stream ? number(stream.blocks) : "–",
    rate: rate(batches),
    last: trust.applied_seq ?? "–",
    generation: trust.generation,
    serves: worker.address ?? "–",
    pod: worker.pod ? `${worker.pod.namespace}/${worker.pod.name}` : "",
  };
}

function workerRow(cells) {
  return row(
    ["worker", "", el("span.id", {}, cells.id), el("span.sub", {}, cells.what)],
    ["rank", "", cells.rank],
    ["state", cells.reason ? ".full" : "", el("div", {}, chip(cells.state), cells.reason && el("span.sub", {}, cells.reason))],
    ["lag", ".num", cells.lag],
    ["blocks", ".num", cells.blocks],
    ["batches/s", ".num", cells.rate],
    ["last batch", ".num", `${cells.last}`],
    ["generation", ".num", `${cells.generation}`],
    ["serves", cells.serves === "–" && cells.pod === "" ? ".full.none" : ".full", el("div", {}, el("span.mono", {}, cells.serves), cells.pod && el("span.sub", {}, cells.pod))],
  );
}

/** A state by its word, its colour and its shape. */
export const chip = (state) => el(`span.chip.${STATES.includes(state) ? state : "pending"}`, {}, state);

export function drawHot(hot) {
  const prefixes = hot?.prefixes ?? [];
  fill(at("hot-rows"), prefixes.map((prefix) => ({ key: `${prefix.tenant} ${prefix.model} ${prefix.sequence_hash}`, ...hotCells(prefix) })), hotRow);
  say("hot-none", prefixes.length > 0 ? "" : "Nobody has asked for a prefix that some worker holds, lately.");
}

function hotCells(prefix) {
  return {
    share: Math.round(prefix.share * 1000) / 1000,
    rate: rate(prefix.per_s),
    tokens: `${number(prefix.tokens)} tokens`,
    blocks: ` (${number(prefix.blocks)} × ${prefix.block_size})`,
    held: count(prefix.held_by, "stream"),
    model: prefix.model,
    more: [prefix.lora_name && `LoRA ${prefix.lora_name}`, prefix.tenant !== "default" && `tenant ${prefix.tenant}`].filter(Boolean).join(" · "),
    hash: BigInt(prefix.sequence_hash).toString(16).padStart(16, "0"),
  };
}

function hotRow(cells) {
  const filled = el("i");
  filled.style.width = `${cells.share * 100}%`;
  return row(
    ["share", ".full", el("div.share", {}, el("div.bar", {}, filled), el("b", {}, percent(cells.share)))],
    ["per second", ".num", cells.rate],
    ["length", ".num", el("span", {}, cells.tokens, el("span.quiet", {}, cells.blocks))],
    ["held by", ".num", cells.held],
    ["model", "", el("span", {}, cells.model, cells.more && el("span.sub", {}, cells.more))],
    ["prefix", "", el("span.mono", { title: "sequence hash of its last block" }, cells.hash)],
  );
}

/** `cluster` is the node's answer, or `said` why there is none. */
export function drawCluster(cluster, said) {
  say("cluster-said", cluster === undefined ? said : `as node ${cluster.node_id} sees it · cluster ${cluster.cluster_id}`);
  at("node-table").hidden = cluster === undefined;
  fill(at("node-rows"), (cluster?.nodes ?? []).map((node) => nodeCells(node, cluster)), nodeRow);
  fill(at("shards"), (cluster?.shards ?? []).map((shard) => ({ key: `${shard.shard}`, ...shard })), shardTile);
}

function nodeCells(node, cluster) {
  const here = node.node_id === cluster.node_id;
  const leads = cluster.shards.filter((shard) => shard.leader === node.node_id).length;
  return { key: `${node.node_id}`, id: node.node_id, here, clients: node.address, peers: node.peer_address, voter: node.voter, leads, behind: behindOf(node, cluster, here) };
}

/** Of itself a node knows the age of what it has; of others only the entries of shards that it leads. */
function behindOf(node, cluster, here) {
  if (here) {
    const ages = cluster.shards.map((shard) => shard.age_ms ?? Infinity);
    const entries = cluster.shards.reduce((sum, shard) => sum + shard.entries_behind, 0);
    const age = Math.max(0, ...ages);
    return `${number(entries)} entries, ${age === Infinity ? "age unknown" : `${time(age)} old`}`;
  }
  const led = cluster.shards.filter((shard) => shard.leader === cluster.node_id);
  const missing = led.map((shard) => {
    const member = shard.members.find((member) => member.node_id === node.node_id);
    return member === undefined ? 0 : (shard.last ?? 0) - (member.matched ?? 0);
  });
  return led.length === 0 ? "its leaders know" : `${number(missing.reduce((sum, n) => sum + Math.max(0, n), 0))} entries of ${count(led.length, "shard")} led here`;
}

function nodeRow(cells) {
  return row(
    ["node", "", el("b", {}, `${cells.id}`), cells.here ? el("span.sub", {}, "this node") : undefined],
    ["clients", "", el("span.mono", {}, cells.clients)],
    ["nodes", "", el("span.mono", {}, cells.peers)],
    ["votes", "", cells.voter ? "yes" : "no"],
    ["leads", ".num", count(cells.leads, "shard")],
    ["behind", "", cells.behind],
  );
}

function shardTile(shard) {
  const level = shard.stopped !== "" || shard.leader === 0 ? ".bad" : isOld(shard) || shard.changing ? ".warn" : "";
  const leader = shard.leader === 0 ? "no leader known" : `led by node ${shard.leader}, term ${shard.term}`;
  const behind = shard.stopped !== "" ? shard.stopped : `${number(shard.entries_behind)} behind, ${time(shard.age_ms)} old`;
  const applied = `entry ${shard.applied ?? "–"} of ${shard.last ?? "–"}${shard.changing ? ", members change" : ""}`;
  return el(`div.shard${level}`, {}, el("h3", {}, `shard ${shard.shard}`, el("span", {}, shard.role)), el("div", {}, leader), el("div", {}, applied), el("div.quiet", {}, behind));
}
