// The question of the moment as a program would ask it, and answers as JSON.

import { addressOf } from "./api.js";
import { button, dialog, el, say } from "./dom.js";
import { stringify } from "./json.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const inForm = (name) => `image=@"${name.replace(/["\\]/g, "\\$&")}"`;

function setOptions(options) {
  return Object.entries(options).filter(([, value]) => value != null && value !== "");
}

const curlKey = (hasKey) => (hasKey ? ` -H "Authorization: Bearer $LIPSIM_KEY"` : "");
const pythonKey = `headers={"Authorization": f"Bearer {os.environ['LIPSIM_KEY']}"}`;

export function curlOf(picture, options, hasKey) {
  const key = curlKey(hasKey);
  const url = quoted(addressOf("v1/search").href);
  if (picture.item) {
    const body = stringify({ item: picture.item, ...Object.fromEntries(setOptions(options)) });
    return `curl -s${key} -H 'Content-Type: application/json' -d ${quoted(body)} ${url}`;
  }
  const fields = setOptions(options).map(([name, value]) => `${name}=${typeof value === "object" ? stringify(value) : value}`);
  return `curl -s${key} ${[inForm(picture.name), ...fields].map((field) => `-F ${quoted(field)}`).join(" ")} ${url}`;
}

// JSON's texts and numbers are Python's too; its true is not.
export function pythonOf(picture, options, hasKey) {
  const set = Object.fromEntries(setOptions(options));
  const question = picture.item
    ? `    json=json.loads(${stringify(stringify({ item: picture.item, ...set }))}),`
    : [
        `    files={"image": Path(${stringify(picture.name)}).open("rb")},`,
        Object.keys(set).length > 0 && `    data=${stringify(Object.fromEntries(Object.entries(set).map(([name, value]) => [name, typeof value === "object" || value === true ? stringify(value) : value])))},`,
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
    `    ${stringify(addressOf("v1/search").href)},`,
    question,
    hasKey && `    ${pythonKey},`,
    ").json()",
    ...(set.trim ? [`for found in answer, answer["trimmed"]:  # As it is; without its borders, None where it has none`, `    for result in found["results"] or []:`] : [`for result in answer["results"]:`]),
    `${set.trim ? "    " : ""}    print(result["id"], result["distance"], result["certified_radius"])`,
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

const links = (answer, curl, python) =>
  Object.entries({ JSON: () => stringify(answer, 2), curl, Python: python }).map(([name, text]) =>
    button(name, () => showCode(name, text()), { class: "link" }));

export function codeLinks(picture, options, answer, hasKey) {
  return el("span", { class: "links" },
    links(answer, () => curlOf(picture, options, hasKey), () => pythonOf(picture, options, hasKey)));
}

// An item as the service describes it, and how a program asks for that.
export function itemLinks(path, item, hasKey) {
  const url = addressOf(path).href;
  return links(item, () => `curl -s${curlKey(hasKey)} ${quoted(url)}`, () => [
    "# pip install httpx",
    ...(hasKey ? ["import os", ""] : []),
    "import httpx",
    "",
    `item = httpx.get(${stringify(url)}${hasKey ? `, ${pythonKey}` : ""}).json()`,
    `print(item["id"], item["sha256"], item["metadata"])`,
  ].join("\n"));
}
