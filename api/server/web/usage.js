// What machines take: sampled while somebody looks, kept for a few minutes, drawn as small curves.

import { Refused, SUBRESOURCES, get } from "./api.js";
import { el, svg } from "./elements.js";

/** Milliseconds between two looks at one machine, and how many are kept. */
const EVERY = 4000;
const KEPT = 60;
/** Machines that are looked at, in the order of the list: each is a question. */
const MOST = 40;
const WIDTH = 120;
const HEIGHT = 28;

/** Samples by machine: { at, cpu, memory } as they were counted, and shares. */
const samples = new Map();

/** Looks at these machines, which `running()` names, until the returned function is called; `drawn(key)` after each look. */
export function sample(running, drawn) {
  let over = false;
  const look = async ({ key, namespace, name }) => {
    try {
      keep(key, await get(`${SUBRESOURCES}/namespaces/${namespace}/virtualmachineinstances/${name}/usage`));
    } catch (error) {
      // It may have ended, or nobody may know, or this user may not.
      if (!(error instanceof Refused)) return;
      samples.delete(key);
    }
    if (!over) drawn(key);
  };
  const round = async () => {
    if (!document.hidden) await Promise.all(running().slice(0, MOST).map(look));
    if (!over) timer = setTimeout(round, EVERY);
  };
  let timer = setTimeout(round, 0);
  return () => {
    over = true;
    clearTimeout(timer);
  };
}

function keep(key, { atMicroseconds: at, cpuMicroseconds: cpu, memoryBytes: memory, cpus, guestMemoryBytes: guest }) {
  const kept = samples.get(key) ?? [];
  const last = kept.at(-1);
  // Another process counts from the beginning.
  if (last && (at <= last.at || cpu < last.cpu)) kept.length = 0;
  const share = kept.length ? (cpu - last.cpu) / (at - last.at) : null;
  kept.push({ at, cpu, memory, guest, cpus, share });
  if (kept.length > KEPT) kept.shift();
  samples.set(key, kept);
}

/** A curve of processors' time, or of memory, and its last value in words. */
export function curve(key, what) {
  const kept = samples.get(key) ?? [];
  const values = what === "cpu"
    ? kept.filter(({ share }) => share !== null).map(({ share, cpus }) => share / cpus)
    : kept.map(({ memory, guest }) => memory / Math.max(guest, memory));
  const last = kept.at(-1);
  const word = !last ? "–" : what === "cpu"
    ? last.share === null ? "…" : `${Math.round(last.share * 100)} %`
    : size(last.memory);
  return el("span", { class: `curve ${what}` }, drawing(values), el("span", { class: "value" }, word));
}

/** What is said of a curve to who cannot see it stands beside it as its value. */
function drawing(values) {
  const drawn = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true", preserveAspectRatio: "none" });
  if (values.length < 2) return drawn;
  const x = (at) => (WIDTH * (KEPT - values.length + at)) / (KEPT - 1);
  const y = (value) => HEIGHT - 2 - Math.min(1, Math.max(0, value)) * (HEIGHT - 4);
  const points = values.map((value, at) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
  const first = x(0).toFixed(1);
  drawn.append(
    svg("polygon", { points: `${first},${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}`, class: "below" }),
    svg("polyline", { points: points.join(" "), class: "line", "vector-effect": "non-scaling-stroke" }));
  return drawn;
}

export function size(bytes) {
  return bytes >= 1 << 30 ? `${(bytes / (1 << 30)).toFixed(1)} GiB` : `${Math.round(bytes / (1 << 20))} MiB`;
}
