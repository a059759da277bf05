// A filter as chips: a key of the metadata and one of its values; all chips must hold.

import { button, el } from "./dom.js";
import { read, write } from "./state.js";

const MOST_VALUES = 200;
const isPlain = (value) => ["string", "number", "boolean"].includes(typeof value) && value !== "";
// In a filter a dot is a step into an object.
const path = (key) => key.replace(/[.\\]/g, "\\$&");

const clausesOf = (text) => {
  try {
    return JSON.parse(text ?? "{}").must ?? [];
  } catch {
    return [];
  }
};

export function createFilter(onChange) {
  const known = new Map();
  let clauses = clausesOf(read().filter);
  const chips = el("ul", { class: "chips" });
  const key = el("select", { id: "filter-key", onchange: showValues });
  const value = el("select", { id: "filter-value" });
  const node = el("div", { class: "filter", hidden: true },
    el("label", { class: "field" }, el("span", {}, "Only with"), key),
    el("label", { class: "field" }, el("span", {}, "equal to"), value),
    el("p", { class: "quiet" }, "Of the pictures listed so far; more pictures bring more values."),
    button("Add", () => set([...clauses, { key: path(key.value), match: { value: JSON.parse(value.value) } }]), { class: "main" }),
    chips);

  function showValues() {
    const found = [...(known.get(key.value) ?? [])].sort();
    value.replaceChildren(...found.map((text) => el("option", { value: text }, String(JSON.parse(text)))));
  }

  function showChips() {
    chips.replaceChildren(...clauses.map((clause) =>
      el("li", {}, `${clause.key.replace(/\\(.)/g, "$1")}: ${clause.match?.value}`,
        button("Remove", () => set(clauses.filter((one) => one !== clause)), { class: "link" }))));
  }

  function set(next) {
    clauses = next;
    write({ filter: clauses.length ? JSON.stringify({ must: clauses }) : null });
    showChips();
    onChange();
  }

  showChips();
  return {
    node,
    value: () => (clauses.length ? { must: clauses } : null),
    // Keys and values are those of the items that were listed.
    learn(items) {
      for (const [name, content] of items.flatMap((item) => Object.entries(item.metadata))) {
        if (!isPlain(content)) continue;
        const values = known.get(name) ?? new Set();
        if (values.size < MOST_VALUES) values.add(JSON.stringify(content));
        known.set(name, values);
      }
      const chosen = key.value;
      key.replaceChildren(...[...known.keys()].sort().map((name) => el("option", { value: name, selected: name === chosen }, name)));
      node.hidden = known.size === 0;
      showValues();
    },
  };
}
