// A filter as chips: a key of the metadata and one of its values; all chips must hold.

import { Problem, wasReplaced } from "./api.js";
import { button, el } from "./dom.js";
import { parse, stringify } from "./json.js";
import { read, write } from "./state.js";

const LONGEST = 60; // Of a value as it is shown; the filter has the whole.

const inWords = (value) => (value === "" ? "empty" : String(value).slice(0, LONGEST));

const clausesOf = (text) => {
  try {
    return parse(text ?? "{}").must ?? [];
  } catch {
    return [];
  }
};

// Keys and values are those of the whole index, as the service lists them.
export function createFilter(api, index, onChange) {
  let clauses = clausesOf(read().filter);
  const chips = el("ul", { class: "chips" });
  const key = el("select", { id: "filter-key", onchange: () => showValues((prefix.value = "")) });
  const value = el("select", { id: "filter-value" });
  const prefix = el("input", { id: "filter-prefix", autocomplete: "off", oninput: () => showValues(prefix.value) });
  const narrow = el("label", { class: "field", hidden: true }, el("span", {}, "beginning with"), prefix);
  const said = el("p", { class: "quiet", role: "status" });
  const add = button("Add", () => set([...clauses, { key: key.value, match: { value: parse(value.value) } }]), { class: "main", disabled: true });
  const choices = el("div", { class: "filter" },
    el("label", { class: "field" }, el("span", {}, "Only with"), key),
    el("label", { class: "field" }, el("span", {}, "equal to"), value),
    narrow, add, said);

  async function showKeys() {
    const { keys } = await api.keys(index);
    key.replaceChildren(...keys.map((name) => el("option", { value: name }, name)));
    choices.hidden = keys.length === 0;
    if (keys.length > 0) await showValues("");
  }

  async function showValues(start) {
    // Nothing to choose until they are here: what was chosen meanwhile would be taken back.
    value.replaceChildren();
    add.disabled = true;
    try {
      const { values, complete } = await api.values(index, key.value, start);
      value.replaceChildren(...values.map(({ value: one, items }) =>
        el("option", { value: stringify(one) }, `${inWords(one)} (${items})`)));
      add.disabled = values.length === 0;
      narrow.hidden = complete && start === "";
      said.textContent = complete ? "" : `The first ${values.length} values: more are found by how they begin.`;
    } catch (problem) {
      failed(problem);
    }
  }

  function failed(problem) {
    if (wasReplaced(problem)) return;
    if (!(problem instanceof Problem)) throw problem;
    said.textContent = `No values to choose from: ${problem.detail} (${problem.code})`;
  }

  function showChips() {
    chips.replaceChildren(...clauses.map((clause) =>
      el("li", {}, `${String(clause.key).replace(/\\(.)/g, "$1")}: ${inWords(clause.match?.value)}`,
        button("Remove", () => set(clauses.filter((one) => one !== clause)), { class: "link" }))));
  }

  function set(next) {
    clauses = next;
    write({ filter: clauses.length ? stringify({ must: clauses }) : null });
    showChips();
    onChange();
  }

  showChips();
  showKeys().catch(failed);
  return { node: el("div", {}, choices, chips), value: () => (clauses.length ? { must: clauses } : null) };
}
