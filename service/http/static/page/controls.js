// The options of a search. On narrow screens they are a sheet from below.

import { el } from "./dom.js";
import { NO_VERDICT, pointAsked, read, write } from "./state.js";
import { share } from "./words.js";

function field(label, input) {
  return el("label", { class: "field" }, el("span", {}, label), input);
}

function choice(name, options, chosen) {
  const node = el("select", { name });
  for (const [value, text] of options) node.append(el("option", { value, selected: value === chosen }, text));
  return node;
}

function pointText({ name, recall, false_positive_rate: wrong, stale }) {
  return `${name}: finds ${share(recall)}, wrong ${share(wrong)}${stale ? ", stale" : ""}`;
}

export function createControls({ limits, indexes }, onChange) {
  const now = read();
  const name = now.index ?? "default";
  const index = indexes.find((one) => one.name === name);
  const points = index?.operating_points ?? [];
  const changed = (event) => {
    const { name, type, value, checked } = event.target;
    const plain = { index: "default", k: String(limits.default_k), operating_point: points[0]?.name }[name];
    if (!event.target.reportValidity()) return;
    const cleared = name === "index" ? { operating_point: null, filter: null, item: null } : {};
    write({ ...cleared, [name]: type === "checkbox" ? checked : value === plain ? null : value });
    onChange(name);
  };
  const fields = [
    indexes.length > 1 && field("Index", choice("index", indexes.map((one) => [one.name, one.name]), name)),
    field("Results", el("input", { type: "number", name: "k", min: 1, max: limits.max_k, required: true, value: now.k ?? limits.default_k })),
    field("Largest distance", el("input", { type: "number", name: "max_distance", min: 0, max: 2, step: "any", placeholder: "any", value: now.max_distance ?? "" })),
    points.length > 0 && field("Copy, or no copy", choice("operating_point", [[NO_VERDICT, "not asked"], ...points.map((point) => [point.name, pointText(point)])], pointAsked(points) ?? NO_VERDICT)),
    el("label", { class: "check" }, el("input", { type: "checkbox", name: "require_exact", checked: Boolean(now.require_exact) }), "Search until each proof is the largest"),
    el("label", { class: "check" }, el("input", { type: "checkbox", name: "trim", checked: Boolean(now.trim) }), "Look inside plain borders too"),
  ];
  const sheet = el("div", { id: "options", role: "group", "aria-labelledby": "options-title", popover: "auto", onchange: changed },
    el("h3", { id: "options-title" }, "Options"), fields);
  const opener = el("button", { type: "button", class: "open-options", popovertarget: "options" }, "Options");
  return el("div", { class: "controls" }, opener, sheet);
}
