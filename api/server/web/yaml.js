// An object as YAML, as people write manifests. A text that YAML could take for something else is written as JSON, which is YAML, too.

const PLAIN = /^[A-Za-z_./][A-Za-z0-9_./@%+=,() -]*(:[A-Za-z0-9_./@-]+)*$/;
const WORDS = /^(true|false|null|yes|no|on|off|y|n|~)$/i;

export function yaml(value, indent = "") {
  if (Array.isArray(value)) {
    return value.map((item) => `${indent}- ${nested(item, `${indent}  `).trimStart()}`).join("\n");
  }
  return Object.entries(value).map(([key, item]) => {
    const name = scalar(key);
    if (isEmpty(item) || !isTree(item)) return `${indent}${name}: ${nested(item, indent)}`;
    return `${indent}${name}:\n${nested(item, `${indent}  `)}`;
  }).join("\n");
}

function nested(value, indent) {
  if (isTree(value)) return isEmpty(value) ? (Array.isArray(value) ? "[]" : "{}") : yaml(value, indent);
  if (typeof value === "string" && value.includes("\n") && !/^\s|[\t\r]| \n/.test(value)) return block(value, indent);
  return scalar(value);
}

/** Several lines, as they are. */
function block(text, indent) {
  const lines = text.replace(/\n$/, "").split("\n");
  return `${text.endsWith("\n") ? "|" : "|-"}\n${lines.map((line) => line && `${indent}  ${line}`).join("\n")}`;
}

function scalar(value) {
  if (typeof value !== "string") return JSON.stringify(value);
  const isPlain = PLAIN.test(value) && !WORDS.test(value) && !value.endsWith(" ") && Number.isNaN(Number(value));
  return isPlain ? value : JSON.stringify(value);
}

function isTree(value) {
  return typeof value === "object" && value !== null;
}

function isEmpty(value) {
  return isTree(value) && Object.keys(value).length === 0;
}
