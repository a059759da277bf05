// What survives: a level of noise, and what of an answer provably withstands it.

import { el } from "./dom.js";
import { bar, l2Of, levelsAt, place, ruler, shown } from "./scale.js";

const STEPS = 400;
const PARTS = [
  ["top1_radius", "first result"],
  ["set_radius", "set"],
  ["order_radius", "order"],
];

export const survives = (radius, noise) => radius === null || noise < radius || (noise === 0 && radius === 0);

// `onNoise(levels)` is told each change; `area` holds the bars; `of` names the list that the marks are about, where there are two.
export function survivalSlider(answer, area, { start, of, onNoise }) {
  const size = answer.query;
  const marks = PARTS.map(([, text]) => el("span", {}, text));
  const said = el("output", { for: "noise", class: "number" });
  const input = el("input", { type: "range", id: "noise", min: 0, max: STEPS, step: 1, oninput: () => show(true) });
  input.value = Math.round(place(start) * STEPS);

  function show(isNew) {
    const levels = levelsAt(input.value / STEPS);
    const l2 = l2Of(levels, size);
    const text = levels === 0 ? "no noise" : `${shown(levels)} of 255 levels · l2 ${l2.toFixed(1)}`;
    said.textContent = text;
    input.setAttribute("aria-valuetext", text);
    area.style.setProperty("--noise", place(levels));
    area.classList.toggle("noisy", levels > 0);
    for (const card of area.querySelectorAll("[data-levels]")) {
      card.classList.toggle("faded", levels > 0 && !survives(Number(card.dataset.levels), levels));
    }
    PARTS.forEach(([name, text], at) => {
      const holds = survives(answer.certificate[name], l2);
      marks[at].className = holds ? "holds" : "open";
      marks[at].textContent = `${holds ? "✓" : "✗"} ${text} ${holds ? "holds" : "not proved"}`;
    });
    onNoise(levels, isNew);
  }

  const node = el(
    "div",
    { class: "survive" },
    el("div", { class: "pair" }, el("label", { for: "noise", class: "strong" }, "What survives this much noise?"), said),
    el("div", { class: "scale" }, input, ruler()),
    el("p", { class: "marks" }, of && el("span", { class: "quiet" }, `${of}:`), marks),
    el("p", { class: "key-of-bars quiet" },
      el("span", {}, bar(32), "proved, and no more can be"),
      el("span", {}, bar(32, { exact: false }), "proved; perhaps more holds"),
    ),
  );
  return { node, show: () => show(false) };
}
