// Try to break it: noise of a chosen size on the very pixels that were sent, and the answer to that.

import { Problem, wasReplaced } from "./api.js";
import { button, el, say } from "./dom.js";
import { problemPanel } from "./errors.js";
import { movedRows } from "./moved.js";
import { distance, enlargedDifference, unitNoise, withinBudget } from "./noise.js";
import { pixelsOf } from "./pictures.js";
import { pngOf } from "./png.js";
import { l2Of, levelsAt, levelsOf, shown } from "./scale.js";
import { asked } from "./state.js";

const MOST_SIDE = 1000; // At most one megapixel: a phone's picture as PNG would be too large to send.
const TIMES = 20;
const STEPS = 80; // Of a twentieth of the radius each.
const MARKS = [["one", "1 x the radius"], ["three", "3 x"]]; // Up to the first nothing can move, about the second most does.

// What the outcome means. `moved`: how far the pixels moved, l2; `radius`: what was proved of them.
export function verdict(moved, radius, held) {
  if (radius === null) return held ? "Nothing can take its place: it held, as it must." : "It broke, and must not have. Please report this.";
  if (moved < radius) {
    return held ? "Inside the proof: this result stayed in the answer, as it must." : "Inside the proof, and it broke. That must not happen: please report it.";
  }
  const far = radius > 0 ? `${(Math.floor((100 * moved) / radius) / 100).toFixed(2)} x the radius` : "nothing was proved";
  return `Outside: ${far}, and it ${held ? "held all the same" : "broke"}. No promise was made here.`;
}

function figure(caption) {
  const canvas = el("canvas", { width: 1, height: 1, role: "img", "aria-label": caption });
  const node = el("figure", {}, canvas, el("figcaption", { class: "quiet" }, caption));
  const show = (pixels) => {
    Object.assign(canvas, { width: pixels.width, height: pixels.height });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  };
  return { node, show };
}

export function attackSection(context, subject) {
  const body = el("div", { class: "attack" });
  const node = el("details", { class: "tool" }, el("summary", {}, "Try to break it"), body);
  const start = () => prepare(context, subject, body).catch((problem) => failed(problem, body, start));
  node.addEventListener("toggle", start, { once: true });
  return node;
}

function failed(problem, place, retry) {
  if (wasReplaced(problem)) return;
  if (!(problem instanceof Problem)) throw problem;
  place.replaceChildren(problemPanel(problem, { retry }));
}

// The picture is drawn once; what is sent, moved and measured from then on are these bytes.
async function prepare(context, { result, asked: { blob }, options }, body) {
  body.replaceChildren(el("p", { class: "quiet" }, "Drawing your picture, and asking about it"));
  const pixels = await pixelsOf(blob, MOST_SIDE);
  if (pixels === null) return body.replaceChildren(el("p", {}, "This browser cannot draw a picture of this format."));
  const before = await context.api.search(await pngOf(pixels), options, "attack");
  const found = before.results.find(({ id }) => id === result.id);
  if (!found) return body.replaceChildren(el("p", {}, "Drawn by this browser, your picture does not find this result."));
  body.replaceChildren(...bench(context, { pixels, before, found, options }));
}

function bench(context, subject) {
  const { pixels, before, found } = subject;
  const radius = found.certified_radius;
  const figures = [figure("sent"), figure("with noise"), figure(`difference x ${TIMES}`)];
  figures.forEach(({ show }) => show(pixels));
  const budgetAt = (step) => (radius ? (radius * step * 4) / STEPS : l2Of(levelsAt(step / STEPS), pixels));
  const said = el("output", { for: "budget", class: "number" });
  const input = el("input", { type: "range", id: "budget", min: 1, max: STEPS, value: 18, oninput: showBudget });
  const outcome = el("div", { class: "outcome", "aria-live": "polite" });
  const random = button("Random noise", () => attempt(() => randomly(pixels, budget())), { class: "main" });
  const buttons = [random];
  if (context.service.limits.challenge) {
    buttons.push(button("Worst noise we can find", () => attempt(() => worst(context.api, subject, budget()), "Looking for the worst noise: up to half a minute"), { class: "main" }));
  }

  function budget() {
    return budgetAt(Number(input.value));
  }

  function showBudget() {
    const share = radius ? `${((input.value * 4) / STEPS).toFixed(2)} x the radius · ` : "";
    const text = `${share}${levelsOf(budget(), pixels).toFixed(2)} of 255 levels · l2 ${budget().toFixed(1)}`;
    said.textContent = text;
    input.setAttribute("aria-valuetext", text);
  }

  // `make` gives the moved pixels; they are measured after rounding, and sent as they are.
  async function attempt(make, doing = "Asking again") {
    buttons.forEach((one) => (one.disabled = true));
    outcome.replaceChildren(el("p", { class: "quiet" }, doing));
    try {
      const moved = await make();
      const far = distance(pixels, moved);
      const after = await context.api.search(await pngOf(moved), subject.options, "attack");
      const held = after.results.some(({ id }) => id === found.id);
      figures[1].show(moved);
      figures[2].show(enlargedDifference(pixels, moved, TIMES));
      const text = verdict(far, radius, held);
      outcome.replaceChildren(
        el("p", { class: `strong ${radius === null || far < radius ? "inside" : ""}` }, text),
        el("p", { class: "quiet number" }, `The picture sent is l2 ${far.toFixed(2)} away after rounding to 8 bits: ${levelsOf(far, pixels).toFixed(2)} of 255 levels.`),
        movedRows(context.api, before, after, found.id),
      );
      say(text);
    } catch (problem) {
      failed(problem, outcome, () => attempt(make, doing));
    } finally {
      buttons.forEach((one) => (one.disabled = false));
    }
  }

  showBudget();
  return [
    el("p", { class: "quiet" }, `Sent as ${pixels.width} x ${pixels.height} PNG. ${proofOf(radius, pixels)}`),
    el("div", { class: "figures" }, figures.map((one) => one.node)),
    el("div", { class: "pair" }, el("label", { for: "budget", class: "strong" }, "How much noise"), said),
    el("div", { class: "budget" }, input, radius ? MARKS.map(([kind, text]) => el("span", { class: `at ${kind}`, "aria-hidden": "true" }, text)) : null),
    el("p", { class: "links" }, buttons),
    outcome,
  ];
}

function proofOf(radius, pixels) {
  if (radius === null) return "No noise can push this result out.";
  if (radius === 0) return "Nothing is proved of this result.";
  const levels = Math.floor(100 * levelsOf(radius, pixels)) / 100;
  return `That this result stays among those shown is proved against any noise below ${levels.toFixed(2)} of 255 levels.`;
}

function randomly(pixels, l2) {
  return withinBudget(pixels, unitNoise(pixels, Math.floor(Math.random() * 2 ** 32)), l2);
}

// What a gradient attack of the service finds, drawn as it was sent.
async function worst(api, { pixels, found, options }, budget) {
  const picture = await pngOf(pixels);
  const { image_base64: text } = await api.challenge(picture, { ...asked(options), id: found.id, budget });
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return pixelsOf(new Blob([bytes], { type: "image/png" }), Infinity);
}
