// The page's loop: asks the node now and then while somebody looks, and shows what it says.

import { ask, readiness, Refused, token, useToken } from "./calls.js";
import { at, el, fill, say, time } from "./draw.js";
import { listen } from "./explain.js";
import { drawCluster, drawHot, drawNotices, drawTiles, drawWorkers, streamsOf } from "./fleet.js";

// Between two looks. A list of workers costs a node some microseconds a stream, so that a page costs it well below one
// per cent of a core, however many there are.
const REST_MS = 3_000;
const REST_A_STREAM_MS = 2;
const REST_AFTER_TROUBLE_MS = 10_000;
const NO_CLUSTER = 412;

const seen = { streams: [], workers: [], hot: undefined, cluster: undefined, clusterSaid: "" };
let timer;
let looking = false;
let seenAt = 0;
let alone = false;

async function look() {
  clearTimeout(timer);
  if (looking || document.hidden || at("door").open) return;
  looking = true;
  let rest = REST_AFTER_TROUBLE_MS;
  try {
    rest = await lookOnce();
  } finally {
    looking = false;
    // Whoever came back meanwhile does not wait.
    if (!document.hidden) timer = setTimeout(look, rest);
  }
}

async function lookOnce() {
  const trouble = [];
  const refused = [];
  const part = async (path, take, whenRefused) => {
    try {
      take(await ask(path));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      refused.push(error);
      whenRefused(error);
    }
  };
  const tell = (what) => (error) => trouble.push({ level: error.status === 403 ? "" : "bad", text: `${what}: ${error.message}`, more: "" });
  const now = Date.now();
  const [ready] = await Promise.all([
    readiness(),
    part("v1/workers", (answer) => ([seen.workers, seen.streams] = [answer.workers, streamsOf(answer.workers, now)]), tell("No list of workers")),
    part("v1/hot?limit=10", (answer) => (seen.hot = answer), tell("No hot prefixes")),
    alone ? undefined : part("v1/cluster", (answer) => ([seen.cluster, seen.clusterSaid] = [answer, ""]), noCluster),
  ]);
  const stranger = refused.find((error) => error.status === 401);
  if (stranger !== undefined) {
    openDoor(stranger.message);
    return REST_MS;
  }
  const lost = refused.find((error) => error.status === 0);
  if (lost === undefined && trouble.every((one) => one.level !== "bad")) seenAt = Date.now();
  draw(ready, lost === undefined ? trouble : [{ level: "bad", text: `No answer: ${lost.message}.`, more: "What is shown below is old." }]);
  const wait = Math.max(0, ...refused.map((error) => error.retryAfter)) * 1000;
  const usual = REST_MS + seen.streams.length * REST_A_STREAM_MS;
  return Math.max(usual, wait, lost === undefined ? 0 : REST_AFTER_TROUBLE_MS);
}

function noCluster(error) {
  seen.cluster = undefined;
  // A node that is alone stays so until it starts again.
  alone = error.status === NO_CLUSTER;
  seen.clusterSaid = alone ? "This node is alone: what it has is all there is." : error.message;
}

function draw(ready, trouble) {
  drawNotices(seen.streams, seen.cluster, ready, trouble);
  drawTiles(seen.workers, seen.streams, seen.hot);
  drawWorkers(seen.streams, at("filter").value);
  drawHot(seen.hot);
  drawCluster(seen.cluster, seen.clusterSaid);
  const node = seen.cluster ? `node ${seen.cluster.node_id} of ${seen.cluster.nodes.length}` : "one node";
  say("node", `${node} at ${location.host}`);
  at("forget").hidden = token() === "";
  const options = (values) => [...new Set(values)].sort().map((value) => ({ key: value, value }));
  const option = ({ value }) => el("option", { value });
  fill(at("models"), options(seen.workers.map((worker) => worker.model)), option);
  fill(at("tenants"), options(seen.workers.map((worker) => worker.tenant)), option);
  if (at("ask-model").value === "" && seen.workers.length > 0) at("ask-model").value = seen.workers[0].model;
  tellAge();
}

function tellAge() {
  const age = Date.now() - seenAt;
  const old = seenAt > 0 && age > REST_AFTER_TROUBLE_MS + REST_MS + seen.streams.length * REST_A_STREAM_MS;
  say("fresh", seenAt === 0 ? "" : old ? `${time(age)} old` : "up to date");
  at("fresh").classList.toggle("bad", old);
}

function openDoor(why) {
  say("door-why", token() === "" ? "" : `The token is refused: ${why}`);
  at("forget").hidden = token() === "";
  if (!at("door").open) at("door").showModal();
}

at("door-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(at("door-token").value.trim());
  at("door-token").value = "";
  at("door").close();
  look();
});

// Without a token there is nothing to see behind it.
at("door").addEventListener("cancel", (event) => event.preventDefault());

at("forget").addEventListener("click", () => {
  useToken("");
  // What was shown with it goes as well.
  location.reload();
});

at("filter").addEventListener("input", () => drawWorkers(seen.streams, at("filter").value));

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));

const themes = ["auto", "light", "dark"];

function useTheme(theme) {
  document.documentElement.dataset.theme = theme;
  at("theme").textContent = `Colours: ${theme}`;
  sessionStorage.setItem("kvindex-theme", theme);
}

at("theme").addEventListener("click", () => useTheme(themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length]));

const kept = sessionStorage.getItem("kvindex-theme");
useTheme(themes.includes(kept) ? kept : "auto");
listen();
look();
// In case nothing comes for long: the page says how old it is.
setInterval(() => document.hidden || tellAge(), 5_000);
