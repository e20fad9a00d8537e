// Which page is shown, and to whom.
//
//   #token=…        comes in with a token, which is taken out of the address
//   #/              the list
//   #/vm/NS/NAME    a machine

import { forgetToken, hasToken, strangers, takeTokenFromAddress } from "./api.js";
import { setText } from "./elements.js";
import { list } from "./list.js";
import { login } from "./login.js";
import { machine } from "./machine.js";

const main = document.getElementById("main");
const leave = document.getElementById("leave");
const theme = document.getElementById("theme");
const THEMES = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };

let stop = () => {};

function show(why) {
  stop();
  stop = () => {};
  linkState("live");
  const known = hasToken();
  leave.hidden = !known;
  if (!known) {
    login(main, why, () => show());
    return;
  }
  const found = /^#\/vm\/([a-z0-9-]+)\/([a-z0-9.-]+)$/.exec(location.hash);
  const page = found ? machine : list;
  stop = page(main, { namespace: found?.[1], name: found?.[2], linkState });
}

function linkState(word) {
  setText(document.getElementById("link-state"), word === "lost" ? "Not connected; trying again …" : "");
  document.body.dataset.link = word;
}

function setTheme(wanted) {
  document.documentElement.dataset.theme = wanted;
  localStorage.setItem("rvm.theme", wanted);
  theme.textContent = THEMES[wanted];
}

theme.addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const at = names.indexOf(document.documentElement.dataset.theme ?? "");
  setTheme(names[(at + 1) % names.length]);
});
leave.addEventListener("click", () => {
  forgetToken();
  show();
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
strangers.addEventListener("unknown", () => {
  if (!hasToken() || leave.hidden) return;
  forgetToken();
  show("The token is no longer good. Please log in again.");
});
addEventListener("hashchange", () => {
  takeTokenFromAddress();
  show();
  main.focus();
});

takeTokenFromAddress();
const kept = localStorage.getItem("rvm.theme") ?? "";
setTheme(kept in THEMES ? kept : "");
show();
