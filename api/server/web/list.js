// The list: every machine with its state, where it runs, and what it takes.

import { follow, OBJECTS } from "./api.js";
import { age, el, setText } from "./elements.js";
import { curve, sample } from "./usage.js";

const COLUMNS = ["Name", "Phase", "Node", "Address", "Accelerator", "CPU", "Memory", "Age"];
/** How often ages are written anew. */
const MINUTE = 60000;

/** What is known of a machine: its VirtualMachine, its instance, or both. */
export function facts({ vm, vmi }) {
  const status = vmi?.status ?? {};
  const holds = (kind) => (status.conditions ?? []).find(({ type, status }) => type === kind && status === "True");
  const runs = status.phase === "Running";
  const paused = holds("Paused");
  const emulated = holds("SoftwareEmulation");
  return {
    phase: vm?.metadata.deletionTimestamp || vmi?.metadata.deletionTimestamp ? "Terminating"
      : paused && runs ? "Paused" : vm?.status?.printableStatus ?? status.phase ?? "Pending",
    runs,
    paused: Boolean(paused),
    node: status.nodeName ?? "",
    address: status.interfaces?.[0]?.ipAddress ?? "",
    addresses: (status.interfaces ?? []).flatMap(({ ipAddresses, ipAddress }) => ipAddresses ?? [ipAddress]).filter(Boolean),
    accelerator: !runs ? "" : emulated ? "TCG" : "KVM",
    acceleratorReason: emulated?.message ?? "",
    since: (vmi ?? vm).metadata.creationTimestamp,
    problem: (status.conditions ?? []).find(({ type, status }) => type === "Synchronized" && status === "False")?.message ?? "",
  };
}

/** A state as a mark and a word. */
export function mark(phase) {
  return el("span", { class: "mark", "data-phase": phase }, el("span", { class: "dot", "aria-hidden": "true" }), phase);
}

/** Shows the list until the returned function is called. */
export function list(root, { linkState }) {
  const known = { virtualmachines: new Map(), virtualmachineinstances: new Map() };
  /** The kinds that have been listed: before all have, nobody knows that there is no machine. */
  const listed = new Set();
  const shown = new Map();
  const namespace = localStorage.getItem("rvm.namespace") ?? "";
  const body = el("tbody", { role: "rowgroup" });
  const count = el("p", { class: "muted", role: "status" });
  const empty = el("div", { class: "card empty", hidden: true },
    el("h2", {}, "No machines here yet"),
    el("p", {}, "Apply a manifest, and it appears:"),
    el("pre", {}, el("code", {}, "kubectl apply -f vmi.yaml")));
  const unmatched = el("p", { class: "card empty muted", hidden: true });
  const problem = el("p", { class: "wrong notice", role: "alert" });
  const filter = el("input", { type: "search", id: "filter", placeholder: "Name, node, phase …", oninput: draw });
  const table = el("table", { role: "table", "aria-label": "Virtual machines" },
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" },
      COLUMNS.map((name) => el("th", { scope: "col", role: "columnheader" }, name)))),
    body);
  root.replaceChildren(
    el("div", { class: "heading" },
      el("div", {}, el("h1", {}, "Virtual machines"), count),
      el("div", { class: "fields" }, namespaceField(namespace),
        el("label", { for: "filter" }, "Filter", filter))),
    problem, el("div", { class: "card rows", hidden: true }, table), unmatched, empty);
  document.title = "Virtual machines – rvm";

  function machines() {
    const all = new Map();
    for (const [kind, short] of [["virtualmachines", "vm"], ["virtualmachineinstances", "vmi"]]) {
      for (const [key, object] of known[kind]) all.set(key, { ...all.get(key), key, ...object.metadata, [short]: object });
    }
    return [...all.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  function draw() {
    const all = machines();
    const wanted = filter.value.trim().toLowerCase();
    const matching = all.filter((machine) => {
      const { phase, node, address } = facts(machine);
      return [machine.key, phase, node, address].some((text) => text.toLowerCase().includes(wanted));
    });
    for (const [key, row] of shown) {
      if (!matching.some((machine) => machine.key === key)) {
        row.element.remove();
        shown.delete(key);
      }
    }
    matching.forEach((machine, at) => {
      if (!shown.has(machine.key)) shown.set(machine.key, newRow(machine, !namespace));
      const row = shown.get(machine.key);
      if (body.children[at] !== row.element) body.insertBefore(row.element, body.children[at] ?? null);
      row.update(machine);
    });
    const running = all.filter((machine) => facts(machine).runs).length;
    setText(count, all.length ? `${all.length} ${all.length === 1 ? "machine" : "machines"}, ${running} running` : "");
    setText(unmatched, `None of them has “${filter.value.trim()}” in its name, node, phase or address.`);
    empty.hidden = all.length > 0 || listed.size < Object.keys(known).length;
    unmatched.hidden = all.length === 0 || matching.length > 0;
    table.parentElement.hidden = matching.length === 0;
  }

  const scope = namespace ? `/namespaces/${namespace}` : "";
  const states = {};
  const stops = Object.keys(known).map((kind) => follow(`${OBJECTS}${scope}/${kind}`, {}, {
    all(items) {
      known[kind] = new Map(items.map((object) => [keyOf(object), object]));
      listed.add(kind);
      draw();
    },
    one(type, object) {
      if (type === "DELETED") known[kind].delete(keyOf(object));
      else if (type !== "BOOKMARK") known[kind].set(keyOf(object), object);
      draw();
    },
    state(word, error) {
      states[kind] = word;
      const words = Object.values(states);
      linkState(words.includes("lost") ? "lost" : "live");
      if (word === "refused") {
        setText(problem, error.status === 403 && !namespace
          ? "You may not list the machines of all namespaces. Name one of yours above."
          : error.message);
      } else if (!words.includes("refused")) setText(problem, "");
    },
  }));
  const running = () => machines().filter((machine) => shown.has(machine.key) && facts(machine).runs);
  stops.push(sample(running, (key) => shown.get(key)?.curves()));
  const ages = setInterval(draw, MINUTE);
  stops.push(() => clearInterval(ages));
  return () => stops.forEach((stop) => stop());
}

function keyOf({ metadata }) {
  return `${metadata.namespace}/${metadata.name}`;
}

/** Which namespace is listed; all of them where it is empty. */
function namespaceField(namespace) {
  const field = el("input", {
    id: "namespace", value: namespace, placeholder: "all", spellcheck: "false", autocapitalize: "off",
    onchange: () => {
      localStorage.setItem("rvm.namespace", field.value.trim().toLowerCase().replace(/[^a-z0-9-]/g, ""));
      dispatchEvent(new Event("hashchange"));
    },
  });
  return el("label", { for: "namespace" }, "Namespace", field);
}

function newRow(machine, isNamespaceShown) {
  const cells = COLUMNS.map((name) => el("td", { role: "cell", "data-label": name, class: name.toLowerCase() }));
  const [name, phase, node, address, accelerator, cpu, memory, since] = cells;
  name.append(
    el("a", { href: `#/vm/${machine.namespace}/${machine.name}` }, machine.name),
    isNamespaceShown ? el("span", { class: "muted namespace" }, machine.namespace) : "");
  const row = {
    element: el("tr", { role: "row" }, cells),
    update(now) {
      const known = facts(now);
      const said = `${known.phase} ${known.problem}`;
      if (phase.dataset.is !== said) {
        phase.replaceChildren(mark(known.phase),
          known.problem ? el("span", { class: "muted why", title: known.problem }, known.problem) : "");
      }
      phase.dataset.is = said;
      setText(node, known.node || "–");
      setText(address, known.address || "–");
      setText(accelerator, known.accelerator || "–");
      accelerator.title = known.acceleratorReason;
      setText(since, age(known.since));
      if (!known.runs || !cpu.firstChild) row.curves();
    },
    curves() {
      cpu.replaceChildren(curve(machine.key, "cpu"));
      memory.replaceChildren(curve(machine.key, "memory"));
    },
  };
  return row;
}
