// Two pictures: how far apart they are, how far noise can carry that, and whether they match.

import { Problem, wasReplaced } from "./api.js";
import { el, say } from "./dom.js";
import { problemPanel } from "./errors.js";
import { l2Of, levelsAt, levelsOf, place, ruler, shown } from "./scale.js";
import { createZone, takePictures } from "./zone.js";

const STEPS = 200;
const FURTHEST = 2;

function flips(radius, size) {
  if (radius === null) return "no noise can flip it";
  if (radius === 0) return "nothing is proved of it";
  return `nobody can flip it with less than ${shown(levelsOf(radius, size))} of 255 levels`;
}

export function mountCompare(root, { api, service }, signal) {
  const pictures = [null, null];
  let size = null; // Of the first picture, as the service decoded it.
  const zones = ["First picture: drop, paste or choose", "Second picture: drop or choose"].map((label, at) =>
    createZone(label, (file) => take(at, file)),
  );
  const threshold = el("input", { type: "range", id: "threshold", min: 0, max: FURTHEST, step: 0.01, value: 0.3, oninput: ask });
  const noise = el("input", { type: "range", id: "epsilon", min: 0, max: STEPS, value: 0, oninput: ask });
  const saidThreshold = el("output", { for: "threshold", class: "number" });
  const saidNoise = el("output", { for: "epsilon", class: "number" });
  const line = el("div", { class: "distance-line", "aria-hidden": "true" },
    ["band", "at", "limit"].map((kind) => el("span", { class: kind })));
  const scale = el("div", { class: "ruler", "aria-hidden": "true" });
  for (const tick of [0, 0.5, 1, 1.5, 2]) {
    const mark = el("span", {}, String(tick));
    mark.style.setProperty("--place", tick / FURTHEST);
    scale.append(mark);
  }
  const answer = el("div", { "aria-live": "polite" }, el("p", { class: "quiet" }, "Two pictures are needed."));
  const figure = el("div", { class: "pair-answer", hidden: true },
    el("div", { class: "scale" }, line, scale),
    el("div", { class: "pair" }, el("label", { for: "threshold", class: "strong" }, "They match up to distance (a limit of yours: 0.3 is a beginning)"), saidThreshold),
    threshold,
    el("div", { class: "pair" }, el("label", { for: "epsilon", class: "strong" }, "Noise on the first picture"), saidNoise),
    el("div", { class: "scale" }, noise, ruler()));
  root.append(
    el("h2", { class: "unseen" }, "Compare two pictures"),
    el("div", { class: "two-zones" }, zones.map((zone) => zone.node)), answer, figure);
  zones.forEach((zone, at) => takePictures(zone.node, (file) => take(at, file), signal));
  takePictures(window, (file) => take(pictures[0] && !pictures[1] ? 1 : 0, file), signal);

  async function take(at, file) {
    pictures[at] = file;
    if (at === 0) size = null;
    await zones[at].show(file, file.name || "pasted");
    await ask();
  }

  async function ask() {
    if (!pictures[0] || !pictures[1]) return;
    const levels = levelsAt(noise.value / STEPS);
    zones[0].noise(levels);
    try {
      // What a level is in l2 depends on the size, which the service says.
      size ??= (await api.compare(...pictures, {})).image_a;
      const epsilon = l2Of(levels, size);
      render(await api.compare(...pictures, { epsilon, threshold: threshold.value }), levels);
    } catch (problem) {
      if (wasReplaced(problem)) return;
      if (!(problem instanceof Problem)) throw problem;
      figure.hidden = true;
      answer.replaceChildren(problemPanel(problem, { limits: service.limits, retry: ask }));
    }
  }

  function render(found, levels) {
    const [low, high] = found.interval.a;
    const spot = (name, value) => line.style.setProperty(name, Math.min(1, value / FURTHEST));
    spot("--low", low);
    spot("--high", high);
    spot("--distance", found.distance);
    spot("--limit", threshold.value);
    figure.hidden = false;
    saidThreshold.textContent = Number(threshold.value).toFixed(2);
    saidNoise.textContent = levels ? `${shown(levels)} of 255 levels: distance ${low.toFixed(3)} to ${high.toFixed(3)}` : "none";
    noise.setAttribute("aria-valuetext", saidNoise.textContent);
    const word = found.match ? "Match" : "No match";
    const { a, b, both } = found.certified_radius;
    const text = `${word}: ${flips(a, found.image_a)} on the first picture.`;
    const half = both === null ? "no noise can" : `less than ${shown(levelsOf(both, found.image_a))} levels`;
    answer.replaceChildren(
      el("p", { class: "in-words" }, `Distance ${found.distance.toFixed(3)}. `, el("span", { class: "strong" }, text)),
      el("p", { class: "quiet" }, `On the second: ${flips(b, found.image_b)}. On both at once, each: ${both === 0 ? "nothing is proved" : half} (l2 ${both === null ? "any" : both.toFixed(2)}).`),
    );
    say(text);
  }
}
