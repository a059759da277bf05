// The question of the moment as a program would ask it, and answers as JSON.

import { addressOf } from "./api.js";
import { button, dialog, el, say } from "./dom.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const inForm = (name) => `image=@"${name.replace(/["\\]/g, "\\$&")}"`;

function setOptions(options) {
  return Object.entries(options).filter(([, value]) => value != null && value !== "");
}

export function curlOf(picture, options, hasKey) {
  const key = hasKey ? ` -H "Authorization: Bearer $LIPSIM_KEY"` : "";
  const url = quoted(addressOf("v1/search").href);
  if (picture.item) {
    const body = JSON.stringify({ item: picture.item, ...Object.fromEntries(setOptions(options)) });
    return `curl -s${key} -H 'Content-Type: application/json' -d ${quoted(body)} ${url}`;
  }
  const fields = setOptions(options).map(([name, value]) => `${name}=${typeof value === "object" ? JSON.stringify(value) : value}`);
  return `curl -s${key} ${[inForm(picture.name), ...fields].map((field) => `-F ${quoted(field)}`).join(" ")} ${url}`;
}

// JSON's texts and numbers are Python's too; its true is not.
export function pythonOf(picture, options, hasKey) {
  const set = Object.fromEntries(setOptions(options));
  const question = picture.item
    ? `    json=json.loads(${JSON.stringify(JSON.stringify({ item: picture.item, ...set }))}),`
    : [
        `    files={"image": Path(${JSON.stringify(picture.name)}).open("rb")},`,
        Object.keys(set).length > 0 && `    data=${JSON.stringify(Object.fromEntries(Object.entries(set).map(([name, value]) => [name, typeof value === "object" || value === true ? JSON.stringify(value) : value])))},`,
      ].filter(Boolean).join("\n");
  return [
    "# pip install httpx",
    picture.item && "import json",
    hasKey && "import os",
    !picture.item && "from pathlib import Path",
    "",
    "import httpx",
    "",
    "answer = httpx.post(",
    `    ${JSON.stringify(addressOf("v1/search").href)},`,
    question,
    hasKey && `    headers={"Authorization": f"Bearer {os.environ['LIPSIM_KEY']}"},`,
    ").json()",
    `for result in answer["results"]:`,
    `    print(result["id"], result["distance"], result["certified_radius"])`,
  ]
    .filter((line) => typeof line === "string")
    .join("\n");
}

export function showCode(title, text) {
  const code = el("pre", { tabindex: 0 }, text);
  const copy = button("Copy", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without HTTPS there is no clipboard: select it, so that Ctrl-C is enough.
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected: press Ctrl-C";
      return;
    }
    copy.textContent = "Copied";
    say("Copied");
  }, { class: "main" });
  dialog(title, { class: "wide" }, code, copy);
}

export function codeLinks(picture, options, answer, hasKey) {
  const link = (name, text) => button(name, () => showCode(name, text()), { class: "link" });
  return el(
    "span",
    { class: "links" },
    link("JSON", () => JSON.stringify(answer, null, 2)),
    link("curl", () => curlOf(picture, options, hasKey)),
    link("Python", () => pythonOf(picture, options, hasKey)),
  );
}
