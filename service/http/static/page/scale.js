// One scale for noise everywhere, 0 to 32 of 255 levels, so that bars of all visits can be compared.
// Levels are a root mean square over all H x W x 3 values; numbers that were proved are rounded down.

import { el } from "./dom.js";

const MOST = 32;
export const TICKS = [0, 1, 2, 4, 8, 16, 32];

export const place = (levels) => Math.min(1, Math.log2(1 + levels) / Math.log2(1 + MOST));
export const levelsAt = (where) => (1 + MOST) ** where - 1;
export const levelsOf = (l2, { width, height }) => (l2 === null ? null : (255 * l2) / Math.sqrt(3 * width * height));
export const l2Of = (levels, { width, height }) => (levels / 255) * Math.sqrt(3 * width * height);

export function shown(levels) {
  // As many as the first that is not zero needs, of what is so small that a visitor asks whether it is zero.
  const digits = levels >= 1 ? 1 : levels >= 0.1 ? 2 : levels > 0 ? Math.min(12, Math.max(3, Math.ceil(-Math.log10(levels)))) : 3;
  return (Math.floor(levels * 10 ** digits) / 10 ** digits).toFixed(digits);
}

export function inWords(levels) {
  if (levels === null) return "stays in the answer under any noise: nothing can take its place";
  if (levels === 0) return "nothing proved";
  if (levels < 0.001) return "proved against hardly any noise: less than 0.001 of 255 levels";
  return `stays in the answer under any noise below ${shown(levels)} of 255 levels`;
}

// `radius`: in levels; 0: nothing is proved; null: no change can matter.
export function bar(levels, { exact = true, small = false } = {}) {
  const kind = levels === null ? "endless" : levels === 0 ? "none" : exact ? "proved" : "proved hollow";
  const node = el("span", { class: `bar ${kind}${small ? " small" : ""}`, "aria-hidden": "true" });
  node.append(el("span", { class: "fill" }), el("span", { class: "line" }));
  if (levels === null) node.append(el("span", { class: "end" }, "∞"));
  node.style.setProperty("--length", levels === null ? 1 : place(levels));
  return node;
}

export function ruler() {
  const node = el("div", { class: "ruler", "aria-hidden": "true" });
  for (const tick of TICKS) {
    const mark = el("span", {}, String(tick));
    mark.style.setProperty("--place", place(tick));
    node.append(mark);
  }
  return node;
}
