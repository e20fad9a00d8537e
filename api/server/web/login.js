// Asks who is there.

import { forgetToken, get, keepToken, OBJECTS } from "./api.js";
import { el } from "./elements.js";

/** Shows the question; done() when the API knows the answer. */
export function login(root, why, done) {
  const token = el("input", {
    id: "token", name: "token", type: "password", autocomplete: "current-password", required: true,
    spellcheck: "false", autocapitalize: "off", "aria-describedby": "token-help",
  });
  const wrong = el("p", { class: "wrong", role: "alert" }, why ?? "");
  const enter = el("button", { type: "submit", class: "first" }, "Log in");
  const form = el("form", { class: "card login", novalidate: true },
    el("h1", {}, "Log in"),
    el("label", { for: "token" }, "Token"),
    token,
    el("p", { id: "token-help", class: "muted" },
      "On one machine, ", el("code", {}, "rvm web"), " prints an address with it. In a cluster it is a bearer token, such as that of ",
      el("code", {}, "kubectl create token"), "; you may do here what your roles let you. It is kept in this tab alone."),
    wrong,
    enter);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!token.value.trim()) {
      wrong.textContent = "A token is needed.";
      token.focus();
      return;
    }
    enter.disabled = true;
    keepToken(token.value);
    const problem = await unknown();
    enter.disabled = false;
    if (problem) {
      forgetToken();
      wrong.textContent = problem;
      token.select();
    } else {
      done();
    }
  });
  root.replaceChildren(form);
  document.title = "Log in – rvm";
  token.focus();
}

/** Why the token is not good, if it is not. Who may not list everything may still be somebody. */
async function unknown() {
  try {
    await get(`${OBJECTS}/virtualmachineinstances?limit=1`);
    return null;
  } catch (error) {
    if (error.status === 401) return "This token is not known here, or no longer.";
    return error.status === 403 ? null : `It cannot be tried: ${error.message}`;
  }
}
