// The grid of results: pictures first, each with its proof.

import { el } from "./dom.js";
import { thumbnail } from "./pictures.js";
import { bar, inWords, levelsOf, shown } from "./scale.js";

export const titleOf = ({ id, metadata }) =>
  typeof metadata?.title === "string" && metadata.title.trim() ? metadata.title : id;

const VIEWS = [
  [/^mirror/, "found as its mirror image"],
  [/^rotate|^quarter|^turn/, "found turned"],
  [/^move/, "found shifted"],
  [/^corner|^middle/, "found by a part of it"],
  [/^border/, "found with a border"],
];

function viewInWords(view) {
  if (view === "whole") return null;
  return VIEWS.find(([pattern]) => pattern.test(view))?.[1] ?? `found as ${view}`;
}

export const radiusInLevels = (result) => result.certified_rms_8bit;

function verdictProved(levels) {
  if (levels === null) return "under any noise";
  return levels ? `under any noise below ${shown(levels)}` : "as it is: nothing proved";
}

function verdict(result, query) {
  if (result.match === null || result.match === undefined) return null;
  const word = el("span", { class: "strong" }, result.match ? "match" : "no match");
  if (!query.width) return el("span", { class: "verdict" }, word); // An index's row: without pixels, nothing is proved.
  const levels = levelsOf(result.match_radius, query);
  return el("span", { class: "verdict" }, el("span", {}, word, ` ${verdictProved(levels)}`), bar(levels, { small: true }));
}

function card(api, result, answer, onOpen) {
  const levels = radiusInLevels(result);
  const path = result.thumbnail ?? api.thumbnailOf(answer.index.name, result.id);
  const found = viewInWords(result.view);
  return el(
    "li",
    {},
    el(
      "button",
      { type: "button", class: "result", "data-id": result.id, "data-levels": levels ?? Infinity, onclick: () => onOpen(result) },
      el("span", { class: "picture" }, thumbnail(api, path)),
      el("span", { class: "title" }, titleOf(result)),
      el(
        "span",
        { class: "quiet facts" },
        `${result.rank} · distance ${result.distance.toFixed(3)}`,
        found && ` · ${found}`,
        result.duplicates.length > 0 && ` · ${result.duplicates.length} more the same`,
      ),
      bar(levels, { exact: result.exact }),
      el("span", { class: "words" }, inWords(levels)),
      verdict(result, answer.query),
    ),
  );
}

// Arrow keys walk the results as they lie on the screen.
function walk(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: "up", ArrowDown: "down" }[event.key];
  const here = document.activeElement.closest?.(".result");
  if (step === undefined || !here) return;
  const all = [...event.currentTarget.querySelectorAll(".result")];
  const at = all.indexOf(here);
  const top = (node) => node.getBoundingClientRect().top;
  const columns = all.filter((node) => Math.abs(top(node) - top(all[0])) < 2).length;
  const next = all[at + (step === "up" ? -columns : step === "down" ? columns : step)];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

export function resultGrid(api, answer, onOpen) {
  const cards = answer.results.map((result) => card(api, result, answer, onOpen));
  return el("ol", { class: "results", onkeydown: walk }, cards);
}

// What stands there while an answer is made: as large as what will replace it.
export function skeleton(count, words = "") {
  const tile = () =>
    el("li", {}, el("span", { class: "result" }, el("span", { class: "picture" }), ...["title", "facts", "bar", "words", "verdict"].map((kind) => el("span", { class: kind }, "\u00a0"))));
  return [el("div", { class: "lead-in" }, words), el("ol", { class: "results waiting", "aria-hidden": "true" }, Array.from({ length: count }, tile))];
}
