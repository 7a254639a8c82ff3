// The node's calls, made with the reader's token. The token is kept for this tab, and goes nowhere but to this node.

const KEPT = "kvindex-token";

/** Why a call brought nothing. */
export class Refused extends Error {
  constructor(status, message, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export const token = () => sessionStorage.getItem(KEPT) ?? "";

export function useToken(text) {
  if (text === "") sessionStorage.removeItem(KEPT);
  else sessionStorage.setItem(KEPT, text);
}

// Longer than a node takes to answer; a poll that hangs must not end polling.
const PATIENCE_MS = 15_000;

/** Asks, and answers what the node says as a value. */
export async function ask(path, body) {
  const headers = {};
  if (token() !== "") headers.authorization = `Bearer ${token()}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const request = { method: body === undefined ? "GET" : "POST", headers, body, signal: AbortSignal.timeout(PATIENCE_MS) };
  // Beside the page, wherever a proxy put it.
  let answer;
  let text;
  try {
    answer = await fetch(new URL(path, document.baseURI), { ...request, cache: "no-store", credentials: "omit", redirect: "error" });
    text = await answer.text();
  } catch (error) {
    throw new Refused(0, error.name === "TimeoutError" ? `no answer within ${PATIENCE_MS / 1000} s` : "the node cannot be reached");
  }
  if (answer.ok) return read(text);
  let message = text.trim();
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // Not the node's own words, but a proxy's.
  }
  throw new Refused(answer.status, message.slice(0, 400), Number(answer.headers.get("retry-after")) || 0);
}

/** Hashes have more digits than JavaScript's numbers, so they become text. Within text quotes have a backslash. */
function read(text) {
  return JSON.parse(text.replace(/"(sequence_hash|digest)":(\d+)/g, '"$1":"$2"'));
}

/** Whether the node is ready, and if not, what it says. */
export async function readiness() {
  try {
    const options = { cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(PATIENCE_MS) };
    const answer = await fetch(new URL("readyz", document.baseURI), options);
    return { ready: answer.ok, said: (await answer.text()).trim().slice(0, 400) };
  } catch {
    return { ready: false, said: "" };
  }
}
