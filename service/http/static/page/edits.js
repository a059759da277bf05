// In edits: how far known edits of the picture may go while the result provably stays.

import { Problem, wasReplaced } from "./api.js";
import { button, el } from "./dom.js";
import { problemPanel } from "./errors.js";
import { applyEdit } from "./preview.js";
import { pixelsOf } from "./pictures.js";
import { levelsAt, place as placeOfLevels, shown } from "./scale.js";
import { asked as askedOptions } from "./state.js";

const SIDE = 300;
const STEPS = 200;
const MORE_PASSES = 32;
const HOW = { exact: "proved by arithmetic", "every member": "every member checked", chain: "in several links" };

const percent = (factor, round) => {
  const change = round((factor - 1) * 1000) / 10;
  return `${change > 0 ? "+" : ""}${change} %`;
};
// A factor from a quarter to four times, as a logarithm.
const factor = {
  place: (value) => Math.min(1, Math.max(0, (Math.log2(value) + 2) / 4)),
  at: (where) => 2 ** (4 * where - 2),
  // Rounded inwards: a proved range may not be said to be wider than it is.
  words: (from, to) => `${percent(from, Math.ceil)} to ${percent(to, Math.floor)}`,
};
const linear = (most, words) => ({ place: (value) => value / most, at: (where) => Math.max(1, Math.round(where * most)), words });

// Each family: what it is called, its scale, and its range in words.
const families = (width) => ({
  jpeg: ["JPEG", linear(100, (from) => `quality ${from} and above`)],
  brightness: ["Brightness", factor],
  contrast: ["Contrast", factor],
  gamma: ["Gamma", { ...factor, words: (from, to) => `${(Math.ceil(from * 100) / 100).toFixed(2)} to ${(Math.floor(to * 100) / 100).toFixed(2)}` }],
  resize: ["Scaled down and back", linear(width, (from) => `to ${from} pixels wide and back`)],
  noise: ["Noise", { place: placeOfLevels, at: levelsAt, words: (_, to) => (to === null ? "of any size" : `up to ${shown(to)} of 255 levels`) }],
});

function row(name, [title, scale], found, preview) {
  const isNothing = found.from === null && !(name === "noise" && found.radius === null);
  const range = el("span", { class: "range", "aria-hidden": "true" }, el("span", { class: "fill" }));
  if (!isNothing) {
    range.style.setProperty("--from", scale.place(found.from ?? 0));
    range.style.setProperty("--to", found.to === null ? 1 : scale.place(found.to));
  }
  const words = found.reason === "too_large" ? "not looked at: the picture is too large" : isNothing ? "nothing proved" : scale.words(found.from, found.to);
  const input = el("input", { type: "range", min: 0, max: STEPS, "aria-label": `Preview: ${title}`, oninput: () => preview(name, scale.at(input.value / STEPS)) });
  input.value = Math.round((found.from === null ? 0.5 : scale.place(name === "noise" ? found.to ?? 0 : found.from)) * STEPS);
  const how = isNothing ? "" : `${HOW[found.how] ?? found.how}${found.complete ? "" : ", as far as there was time"}`;
  return el("li", {}, el("div", { class: "pair" }, el("span", { class: "strong" }, title), el("span", {}, words)),
    range, input, el("span", { class: "quiet" }, how));
}

export function editsSection(context, subject) {
  const body = el("div", { class: "edits" });
  const node = el("details", { class: "tool" }, el("summary", {}, "In edits"), body);
  const measure = (chain) => show(context, subject, body, chain, measure);
  node.addEventListener("toggle", () => measure(0), { once: true });
  return node;
}

async function show({ api, service }, { result, asked, options, answer }, body, chain, again) {
  body.replaceChildren(el("p", { class: "quiet" }, "Measuring: this may take some seconds"));
  try {
    const file = new File([asked.blob], asked.name);
    const found = await api.tolerance(file, { ...askedOptions(options), id: result.id, chain });
    const pixels = await pixelsOf(asked.blob, SIDE);
    const canvas = el("canvas", { width: pixels?.width ?? 1, height: pixels?.height ?? 1, role: "img", "aria-label": "Your picture, edited" });
    const draw = (image) => canvas.getContext("2d").putImageData(image, 0, 0);
    const preview = async (name, parameter) => pixels && draw(await applyEdit(name, parameter, pixels, answer.query.width));
    if (pixels) draw(pixels);
    const known = families(answer.query.width);
    const rows = Object.entries(found.families).filter(([name]) => name in known);
    body.replaceChildren(
      el("p", {}, "Provably still in the answer after any one of these edits of the picture as it was decoded, within the range in colour. The handles show what an edit looks like."),
      pixels ? canvas : "",
      el("ul", {}, rows.map(([name, family]) => row(name, known[name], family, preview))),
      chain === 0 ? button("Look further, in links", () => again(MORE_PASSES), { class: "main" }) : "",
    );
  } catch (problem) {
    if (wasReplaced(problem)) return;
    if (!(problem instanceof Problem)) throw problem;
    body.replaceChildren(problemPanel(problem, { limits: service.limits, retry: () => again(chain) }));
  }
}
