// The Kubernetes API, as this browser's user: questions, watches, websockets. The token stays in this tab.

const KEPT = "rvm.token";
/** Before a token among a websocket's subprotocols, as Kubernetes reads it. */
const BEARER = "base64url.bearer.authorization.k8s.io.";
/** Waits between tries, in milliseconds. */
const FIRST_WAIT = 500;
const LONGEST_WAIT = 5000;
/** Longest line of a watch: no object is as large. */
const LONGEST_LINE = 8 * 1024 * 1024;

export const OBJECTS = "/apis/kubevirt.io/v1";
export const SUBRESOURCES = "/apis/subresources.kubevirt.io/v1";

/** What the API says no to, and why. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Takes the token out of the address, where it could be seen; says whether there was one. */
export function takeTokenFromAddress() {
  const found = /^#token=([^&]+)$/.exec(location.hash);
  if (!found) return false;
  keepToken(decodeURIComponent(found[1]));
  history.replaceState(null, "", `${location.pathname}#/`);
  return true;
}

export function keepToken(token) {
  sessionStorage.setItem(KEPT, token.trim());
}

export function forgetToken() {
  sessionStorage.removeItem(KEPT);
}

export function hasToken() {
  return Boolean(sessionStorage.getItem(KEPT));
}

/** Whoever shows the login is told here that the token is no longer good. */
export const strangers = new EventTarget();

async function answer(path, options = {}) {
  const headers = { Accept: "application/json", Authorization: `Bearer ${sessionStorage.getItem(KEPT) ?? ""}` };
  if (options.body) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  if (response.ok) return response;
  if (response.status === 401) strangers.dispatchEvent(new Event("unknown"));
  throw new Refused(response.status, await reason(response));
}

/** In words: Kubernetes says it in a Status, servers on the way in plain text. */
async function reason(response) {
  const text = await response.text().catch(() => "");
  try {
    return JSON.parse(text).message || text;
  } catch {
    return text.slice(0, 300) || `${response.status} ${response.statusText}`;
  }
}

export async function get(path, signal) {
  return (await answer(path, { signal })).json();
}

export async function put(path, body) {
  await answer(path, { method: "PUT", body: JSON.stringify(body ?? {}) });
}

export async function remove(path) {
  await answer(path, { method: "DELETE" });
}

/**
 * Follows a collection until the returned function is called.
 *   all(items)          it is so now: at the beginning, and after each gap
 *   one(type, object)   ADDED, MODIFIED, DELETED
 *   state(word, error)  "live", "lost" (and tries again), "refused" (and does not)
 */
export function follow(path, query, { all, one, state }) {
  const stop = new AbortController();
  (async () => {
    let wait = FIRST_WAIT;
    while (!stop.signal.aborted) {
      try {
        const list = await get(`${path}?${new URLSearchParams(query)}`, stop.signal);
        all(list.items ?? []);
        state("live");
        wait = FIRST_WAIT;
        await watch(path, { ...query, resourceVersion: list.metadata.resourceVersion }, one, stop.signal);
      } catch (error) {
        if (stop.signal.aborted) return;
        if (error instanceof Refused && [401, 403, 404].includes(error.status)) {
          state("refused", error);
          return;
        }
        state("lost", error);
      }
      await pause(wait, stop.signal);
      wait = Math.min(wait * 2, LONGEST_WAIT);
    }
  })();
  return () => stop.abort();
}

/** One watch, to its end. Ends well where the server has had enough, or the past is gone. */
async function watch(path, query, one, signal) {
  const asked = new URLSearchParams({ ...query, watch: "true", timeoutSeconds: "240" });
  const response = await answer(`${path}?${asked}`, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    if (rest.length > LONGEST_LINE) throw new Error("a change that is longer than any object");
    for (const line of lines) {
      if (!line) continue;
      const { type, object } = JSON.parse(line);
      if (type === "ERROR") return;
      one(type, object);
    }
  }
}

/** Resolves after this time, or when the browser finds its network again, or when it is over. */
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const go = () => {
      clearTimeout(timer);
      removeEventListener("online", go);
      signal?.removeEventListener("abort", go);
      resolve();
    };
    const timer = setTimeout(go, milliseconds);
    addEventListener("online", go);
    signal?.addEventListener("abort", go);
  });
}

/** A websocket to this path that speaks the protocol. */
export function socket(path, protocol) {
  const bytes = new TextEncoder().encode(sessionStorage.getItem(KEPT) ?? "");
  const base64 = btoa(String.fromCharCode(...bytes));
  const token = base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const url = new URL(path, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const made = new WebSocket(url, [protocol, BEARER + token]);
  made.binaryType = "arraybuffer";
  return made;
}
