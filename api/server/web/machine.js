// One machine: its console first, then what can be done with it, what happened to it, and how it was started.

import { follow, OBJECTS, put, remove, SUBRESOURCES } from "./api.js";
import { age, announce, confirmed, el, setText } from "./elements.js";
import { Link } from "./link.js";
import { facts, mark } from "./list.js";
import { Screen } from "./terminal.js";
import { curve, sample } from "./usage.js";
import { yaml } from "./yaml.js";

/** Events that are shown: the youngest. */
const EVENTS = 100;

/** What is said of the console's connection. */
const SAID = {
  idle: "The machine does not run.",
  connecting: "Connecting …",
  lost: "The connection is lost; trying again …",
};

/** Shows a machine until the returned function is called. */
export function machine(root, { namespace, name, linkState }) {
  const now = { vm: null, vmi: null };
  /** Which of both have been asked for: one that is not there yet is not gone. */
  const listed = new Set();
  const key = `${namespace}/${name}`;
  const parts = { actions: actions(namespace, name), console: consoleCard(namespace, name), facts: factsCard(key) };
  const phase = el("span", { class: "phase" });
  const problem = el("p", { class: "wrong notice", role: "status" });
  const events = eventsCard();
  const manifest = manifestCard();
  root.replaceChildren(
    el("div", { class: "heading" },
      el("div", {},
        el("p", { class: "back" }, el("a", { href: "#/" }, "Virtual machines"), ` / ${namespace}`),
        el("h1", {}, name, " ", phase)),
      parts.actions.element),
    problem,
    el("div", { class: "machine" }, parts.console.element,
      el("div", { class: "beside" }, parts.facts.element, events.element), manifest.element));
  document.title = `${name} – rvm`;

  function draw() {
    if (!now.vm && !now.vmi && listed.size < 2) return;
    const known = now.vm || now.vmi ? facts(now) : { phase: "Gone", addresses: [], runs: false };
    if (phase.dataset.is !== known.phase) phase.replaceChildren(mark(known.phase));
    phase.dataset.is = known.phase;
    setText(problem, known.problem ?? "");
    parts.actions.update(now, known);
    parts.facts.update(now, known);
    parts.console.update(now.vmi, known);
    manifest.update(now);
  }

  const named = { fieldSelector: `metadata.name=${name}` };
  const states = {};
  const collection = (kind, short) => follow(`${OBJECTS}/namespaces/${namespace}/${kind}`, named, {
    all(items) {
      now[short] = items[0] ?? null;
      listed.add(short);
      draw();
    },
    one(type, object) {
      if (type === "BOOKMARK") return;
      now[short] = type === "DELETED" ? null : object;
      draw();
    },
    state(word, error) {
      states[kind] = word;
      if (word === "refused") setText(problem, error.message);
      linkState(Object.values(states).includes("lost") ? "lost" : "live");
    },
  });
  const stops = [
    collection("virtualmachines", "vm"),
    collection("virtualmachineinstances", "vmi"),
    follow(`/api/v1/namespaces/${namespace}/events`, { fieldSelector: `involvedObject.name=${name}` }, events),
    sample(() => (now.vmi && facts(now).runs ? [{ key, namespace, name }] : []), () => parts.facts.curves()),
    () => parts.console.end(),
  ];
  return () => stops.forEach((stop) => stop());
}

/** The switches. */
function actions(namespace, name) {
  const wrong = el("p", { class: "wrong", role: "alert" });
  const group = el("div", { class: "actions", role: "group", "aria-label": "What to do with the machine" });
  const below = (kind, verb) => `${SUBRESOURCES}/namespaces/${namespace}/${kind}/${name}/${verb}`;
  const verbs = {
    Start: { does: () => put(below("virtualmachines", "start")) },
    Pause: { does: () => put(below("virtualmachineinstances", "pause")) },
    Resume: { does: () => put(below("virtualmachineinstances", "unpause")) },
    Restart: { does: () => put(below("virtualmachines", "restart")), asks: "Its guest is asked to switch itself off, and then boots again." },
    Stop: { does: () => put(below("virtualmachines", "stop")), asks: "Its guest is asked to switch itself off. It can be started again." },
    Reset: { does: () => put(below("virtualmachineinstances", "reset")), asks: "As by its reset button: its guest is not asked." },
    Delete: {
      does: () => remove(`${OBJECTS}/namespaces/${namespace}/virtualmachineinstances/${name}`),
      asks: "Its guest is asked to switch itself off. The instance is then gone, with what it kept on disks of its own.",
    },
  };
  for (const [word, verb] of Object.entries(verbs)) {
    verb.button = el("button", { type: "button", hidden: true, class: word === "Delete" ? "danger" : null, onclick: act }, word);
    group.append(verb.button);
    async function act() {
      if (verb.asks && !await confirmed(`${word} ${name}?`, verb.asks, word)) return;
      verb.button.disabled = true;
      setText(wrong, "");
      try {
        await verb.does();
        announce(`${word}: done`);
      } catch (error) {
        setText(wrong, error.message);
      }
      verb.button.disabled = false;
    }
  }
  const show = (word, isShown) => {
    const { button } = verbs[word];
    // A keyboard's place is not to vanish with a button.
    if (button.hidden === isShown && !isShown && document.activeElement === button) {
      document.getElementById("main").focus();
    }
    button.hidden = !isShown;
  };
  return {
    element: el("div", { class: "switches" }, group, wrong),
    update({ vm, vmi }, { runs, paused }) {
      show("Start", Boolean(vm) && !vmi);
      show("Pause", runs && !paused);
      show("Resume", runs && paused);
      show("Restart", Boolean(vm) && runs);
      show("Reset", runs);
      show("Stop", Boolean(vm && vmi));
      show("Delete", Boolean(!vm && vmi));
    },
  };
}

/** The console, its state and its tools. */
function consoleCard(namespace, name) {
  const state = el("p", { class: "state", id: "console-state", role: "status" }, SAID.idle);
  const take = el("button", { type: "button", class: "first", hidden: true, id: "take-over" }, "Take over");
  const place = el("div", { class: "screen", id: "terminal" });
  const copy = el("button", { type: "button" }, "Copy");
  const tools = el("div", { class: "actions", role: "group", "aria-label": "Console" },
    copy,
    el("button", { type: "button", onclick: () => tried(screen.paste()) }, "Paste"),
    el("button", { type: "button", onclick: tellSize, title: "Types the command stty, by which a shell learns how large this terminal is" }, "Fit the guest"),
    el("button", { type: "button", id: "reader", onclick: toggleReader }, "Screen reader"),
    el("button", { type: "button", id: "wide", "aria-pressed": "false", onclick: toggleWide }, "Enlarge"));
  const card = el("section", { class: "card console", "aria-labelledby": "console-title" },
    el("div", { class: "title" }, el("h2", { id: "console-title" }, "Console"), state, take),
    place,
    el("div", { class: "tools" }, tools,
      el("p", { class: "muted", id: "console-help" }, el("kbd", {}, "Ctrl"), "+", el("kbd", {}, "]"), " leaves the console")));
  let uid = null;
  // The terminal measures its letters, so it has to stand in the page first.
  let screen = null;
  const link = new Link(`${SUBRESOURCES}/namespaces/${namespace}/virtualmachineinstances/${name}/console`, {
    state(word, why) {
      card.dataset.link = word;
      if (SAID[word] ?? why) setText(state, SAID[word] ?? why);
      if (word !== "live") take.hidden = true;
    },
    attached: () => screen.begin(),
    turn(types) {
      card.dataset.types = types;
      setText(state, types ? "You are typing." : "Somebody else is typing; you are looking on.");
      take.hidden = types;
    },
    bytes: (data, done) => screen.write(data, done),
  });
  take.addEventListener("click", () => {
    link.takeOver();
    screen.focus();
  });
  copy.addEventListener("click", () => tried(screen.copy(), (count) => announce(`${count} letters copied`)));

  async function tried(work, done) {
    try {
      done?.(await work);
    } catch {
      announce("The browser does not let this page use the clipboard.");
      setText(state, "The browser does not let this page use the clipboard.");
    }
  }
  function tellSize() {
    const { rows, columns } = screen.size;
    link.type(`stty rows ${rows} cols ${columns}\r`);
    screen.focus();
  }
  function toggleReader({ currentTarget }) {
    screen.readsAloud = !screen.readsAloud;
    currentTarget.setAttribute("aria-pressed", String(screen.readsAloud));
  }
  function toggleWide({ currentTarget }) {
    const wide = card.classList.toggle("wide");
    currentTarget.setAttribute("aria-pressed", String(wide));
    currentTarget.textContent = wide ? "Make smaller" : "Enlarge";
    screen.fit();
  }
  return {
    element: card,
    update(vmi, { runs }) {
      if (!screen) {
        screen = new Screen(place, { typed: (text) => link.type(text), left: () => copy.focus() });
        card.querySelector("#reader").setAttribute("aria-pressed", String(screen.readsAloud));
        place.querySelector("textarea")?.setAttribute("aria-describedby", "console-help console-state");
      }
      if (vmi && vmi.metadata.uid !== uid) {
        link.leave();
        uid = vmi.metadata.uid;
      }
      if (runs) link.want();
      else link.leave();
    },
    end() {
      link.leave();
      screen?.end();
    },
  };
}

/** What it is, and what it takes. */
function factsCard(key) {
  const list = el("dl", { class: "facts" });
  const curves = el("div", { class: "curves" });
  const draw = () => curves.replaceChildren(
    el("div", {}, el("h3", {}, "CPU"), curve(key, "cpu")),
    el("div", {}, el("h3", {}, "Memory"), curve(key, "memory")));
  draw();
  return {
    element: el("section", { class: "card", "aria-labelledby": "facts-title" },
      el("h2", { id: "facts-title" }, "Machine"), curves, list),
    curves: draw,
    update({ vm, vmi }, known) {
      const domain = (vmi ?? vm?.spec.template)?.spec.domain ?? {};
      const { sockets = 1, cores = 1, threads = 1 } = domain.cpu ?? {};
      const guest = vmi?.status?.guestOSInfo?.prettyName;
      const rows = [
        ["Node", known.node], ["Address", known.addresses.join(", ")],
        ["Accelerator", known.accelerator], ["Why", known.acceleratorReason],
        ["Processors", String(sockets * cores * threads)],
        ["Memory", (domain.memory?.guest ?? domain.resources?.requests?.memory)?.replace(/[KMGT]i$/, " $&B")],
        ["System", guest], ["Run strategy", vm?.spec.runStrategy],
        ["Started", vmi ? `${age(vmi.metadata.creationTimestamp)} ago` : ""],
      ];
      list.replaceChildren(...rows.filter(([, value]) => value).flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
    },
  };
}

/** What happened, the youngest first; it is told as `follow` tells it. */
function eventsCard() {
  const known = new Map();
  // It may be longer than its place, so a keyboard has to come to it.
  const list = el("ol", { class: "events", tabindex: "0", "aria-labelledby": "events-title" });
  const none = el("p", { class: "muted" }, "Nothing has been recorded.");
  const time = ({ lastTimestamp, eventTime, metadata }) => lastTimestamp ?? eventTime ?? metadata.creationTimestamp ?? "";
  function draw() {
    const events = [...known.values()].sort((a, b) => (time(a) < time(b) ? 1 : -1)).slice(0, EVENTS);
    list.replaceChildren(...events.map((event) => el("li", { class: event.type === "Warning" ? "warning" : null },
      el("span", { class: "reason" }, event.reason ?? ""),
      el("time", { class: "muted", datetime: time(event) }, `${age(time(event))} ago${event.count > 1 ? ` ×${event.count}` : ""}`),
      el("span", { class: "message" }, event.message ?? ""))));
    none.hidden = events.length > 0;
  }
  return {
    element: el("section", { class: "card", "aria-labelledby": "events-title" }, el("h2", { id: "events-title" }, "Events"), none, list),
    all(items) {
      known.clear();
      items.forEach((event) => known.set(event.metadata.uid, event));
      draw();
    },
    one(type, event) {
      if (type === "DELETED") known.delete(event.metadata.uid);
      else if (type !== "BOOKMARK") known.set(event.metadata.uid, event);
      draw();
    },
    state(word, error) {
      if (word === "refused") setText(none, error.message);
    },
  };
}

/** The manifest: as it was applied where kubectl has kept that, else what is left of the object without what servers have written. */
function manifestCard() {
  const code = el("code", {});
  const what = el("p", { class: "muted" });
  let last = "";
  return {
    element: el("section", { class: "card manifest", "aria-labelledby": "manifest-title" },
      el("details", {}, el("summary", {}, el("h2", { id: "manifest-title" }, "How it was started")), what,
        el("pre", { tabindex: "0", role: "region", "aria-label": "Manifest" }, code))),
    update({ vm, vmi }) {
      const object = vm ?? vmi;
      if (!object) return;
      const applied = object.metadata.annotations?.["kubectl.kubernetes.io/last-applied-configuration"];
      const text = yaml(applied ? JSON.parse(applied) : written(object));
      if (text === last) return;
      last = text;
      setText(what, applied ? "The manifest that was applied last." : "The object, without what servers have added to it.");
      code.textContent = text;
    },
  };
}

function written({ apiVersion, kind, metadata, spec }) {
  const { name, namespace, labels, annotations } = metadata;
  const kept = Object.fromEntries(Object.entries({ name, namespace, labels, annotations }).filter(([, value]) => value));
  return { apiVersion, kind, metadata: kept, spec };
}
