// The terminal: xterm.js, with what a serial console needs around it.

import { Terminal } from "./vendor/xterm/xterm.mjs";
import { FitAddon } from "./vendor/xterm/addon-fit.mjs";

/** Lines that can be scrolled back to. What is older is gone, so that a machine that prints without end costs no more. */
const SCROLLBACK = 5000;
const SIZE = 14;
const SIZE_OF_A_PHONE = 11;
const PHONE = matchMedia("(max-width: 640px)");

const THEME = {
  background: "#12151b", foreground: "#dfe4ec", cursor: "#8db4ff", cursorAccent: "#12151b",
  selectionBackground: "#3a5a94", black: "#2a2f3a", red: "#ff8b85", green: "#8fd694", yellow: "#e9c77b",
  blue: "#8db4ff", magenta: "#d7a5f0", cyan: "#7fd4d6", white: "#dfe4ec", brightBlack: "#8a94a6",
  brightRed: "#ffa9a4", brightGreen: "#abe6af", brightYellow: "#f4d998", brightBlue: "#aecbff",
  brightMagenta: "#e6c2f8", brightCyan: "#a2e6e8", brightWhite: "#ffffff",
};

/**
 * Has the terminal's own style sheets adopted instead of written into the page: the page's policy lets nothing inline be a style.
 * It makes them while it is opened.
 */
function withAdoptedStyles(open) {
  const create = document.createElement;
  document.createElement = function (tag, options) {
    // Something that is no style, which is put into the page in its place.
    return tag === "style" ? adopted(create.call(document, "template")) : create.call(document, tag, options);
  };
  try {
    return open();
  } finally {
    delete document.createElement;
  }
}

function adopted(stand) {
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  Object.defineProperty(stand, "textContent", {
    get: () => "",
    set: (text) => sheet.replaceSync(text),
  });
  stand.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== sheet);
    Element.prototype.remove.call(stand);
  };
  return stand;
}

/**
 * Letters in a colour of their own, be it the guest's or one that a selection makes legible, get it from the terminal by an attribute,
 * which the page's policy lets nobody write. The same by the element's object is let.
 */
HTMLSpanElement.prototype.setAttribute = function (name, value) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
};

export class Screen {
  /** In this element; typed(text) is told what is typed, left() that the keyboard is wanted elsewhere. */
  constructor(place, { typed, left }) {
    this.terminal = new Terminal({
      scrollback: SCROLLBACK,
      fontSize: PHONE.matches ? SIZE_OF_A_PHONE : SIZE,
      fontFamily: "ui-monospace, 'SF Mono', 'Cascadia Mono', 'DejaVu Sans Mono', Menlo, Consolas, monospace",
      theme: THEME,
      cursorBlink: false,
      minimumContrastRatio: 4.5,
      screenReaderMode: localStorage.getItem("rvm.reader") === "true",
    });
    this.fitting = new FitAddon();
    this.terminal.loadAddon(this.fitting);
    withAdoptedStyles(() => this.terminal.open(place));
    this.terminal.onData(typed);
    this.terminal.onBinary((text) => typed(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
    this.terminal.attachCustomKeyEventHandler((event) => this.#key(event, left));
    this.watching = new ResizeObserver(() => this.fit());
    this.watching.observe(place);
    this.fit();
  }

  #key(event, left) {
    if (event.type !== "keydown") return true;
    const letter = event.key.toLowerCase();
    // As in `rvm console` and virtctl; and the way out for who has no mouse.
    if (event.ctrlKey && !event.shiftKey && event.key === "]") {
      event.preventDefault();
      left();
      return false;
    }
    if (event.ctrlKey && event.shiftKey && letter === "c" || event.ctrlKey && event.key === "Insert") {
      event.preventDefault();
      this.copy();
      return false;
    }
    // The browser's own paste follows.
    return !(event.ctrlKey && event.shiftKey && letter === "v" || event.shiftKey && event.key === "Insert");
  }

  fit() {
    this.fitting.fit();
  }

  get size() {
    return { rows: this.terminal.rows, columns: this.terminal.cols };
  }

  write(bytes, done) {
    this.terminal.write(bytes, done);
  }

  /** A console begins with its history, so what is there from before goes. */
  begin() {
    this.terminal.reset();
  }

  /** Copies what is selected, or else all that there is. Resolves to how many letters. */
  async copy() {
    let text = this.terminal.getSelection();
    if (!text) {
      this.terminal.selectAll();
      text = this.terminal.getSelection().trimEnd();
      this.terminal.clearSelection();
    }
    await navigator.clipboard.writeText(text);
    return text.length;
  }

  async paste() {
    this.terminal.paste(await navigator.clipboard.readText());
    this.terminal.focus();
  }

  get readsAloud() {
    return this.terminal.options.screenReaderMode;
  }

  set readsAloud(wanted) {
    this.terminal.options.screenReaderMode = wanted;
    localStorage.setItem("rvm.reader", String(wanted));
  }

  focus() {
    this.terminal.focus();
  }

  end() {
    this.watching.disconnect();
    this.terminal.dispose();
  }
}
