// Makes elements. Text is always text: nothing that a guest or a manifest says becomes markup.

/** An element: el("button", { type: "button", onclick }, "Stop"). A property that is null or false is left out. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** The same, of a drawing. */
export function svg(tag, properties = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Says something to those who hear the page. */
export function announce(text) {
  document.getElementById("said").textContent = text;
}

/** Sets a text only where it differs, so that no screen reader says it again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Asks before something that cannot be taken back. Resolves to whether it is wanted. */
export function confirmed(question, detail, verb) {
  return new Promise((resolve) => {
    const title = el("h2", { id: "question" }, question);
    const dialog = el("dialog", { "aria-labelledby": "question" },
      title,
      el("p", {}, detail),
      el("div", { class: "actions" },
        el("button", { type: "button", onclick: () => dialog.close("no"), autofocus: true }, "Cancel"),
        el("button", { type: "button", class: "danger", onclick: () => dialog.close("yes") }, verb)));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** How long ago that was: 5 s, 3 min, 2 h, 4 d. */
export function age(timestamp) {
  if (!timestamp) return "";
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(timestamp)) / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}
