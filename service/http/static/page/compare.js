// Two pictures: how far apart they are, how far noise can carry that, and whether they match.

import { Problem, wasReplaced } from "./api.js";
import { el, say } from "./dom.js";
import { problemPanel } from "./errors.js";
import { l2Of, levelsAt, levelsOf, place, ruler, shown } from "./scale.js";
import { createZone, takePictures } from "./zone.js";

const STEPS = 200;
const PLAIN_LEVELS = 3; // Of noise, at first: so that there is a band to see.
const REST_MS = 150; // A handle is dragged through many places: asked about is where it rests.
const FURTHEST = 2;

// An end of a proved interval: never rounded inwards.
const outward = (end, round) => (round(1e3 * end) / 1e3).toFixed(3);

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
  let known = null; // The last answer: distances do not depend on the limit.
  let timer = null;
  const threshold = el("input", { type: "range", id: "threshold", min: 0, max: FURTHEST, step: 0.01, value: 0.3, oninput: limitMoved });
  const noise = el("input", { type: "range", id: "epsilon", min: 0, max: STEPS, value: Math.round(place(PLAIN_LEVELS) * STEPS), oninput: noiseMoved });
  const saidThreshold = el("output", { for: "threshold", class: "number" });
  const saidNoise = el("output", { for: "epsilon", class: "number" });
  const line = el("div", { class: "distance-line" }, ["band", "at"].map((kind) => el("span", { class: kind })), threshold);
  const scale = el("div", { class: "ruler", "aria-hidden": "true" });
  for (const tick of [0, 0.5, 1, 1.5, 2]) {
    const mark = el("span", {}, String(tick));
    mark.style.setProperty("--place", tick / FURTHEST);
    scale.append(mark);
  }
  const answer = el("div", { "aria-live": "polite" }, el("p", { class: "quiet" }, "Two pictures are needed."));
  const figure = el("div", { class: "pair-answer", hidden: true },
    el("div", { class: "pair" }, el("label", { for: "threshold", class: "strong" }, "They match up to distance"), saidThreshold),
    el("div", { class: "scale" }, line, scale),
    el("p", { class: "key-of-bars quiet" },
      el("span", {}, el("span", { class: "sample at" }), "their distance"),
      el("span", {}, el("span", { class: "sample band" }), "where this much noise can carry it, at most"),
      el("span", {}, el("span", { class: "sample limit" }), "your limit: drag it (0.3 is a beginning)")),
    el("div", { class: "pair" }, el("label", { for: "epsilon", class: "strong" }, "Noise on the first picture"), saidNoise),
    el("div", { class: "scale" }, noise, ruler()));
  root.append(
    el("h2", { class: "unseen" }, "Compare two pictures"),
    el("div", { class: "two-zones" }, zones.map((zone) => zone.node)),
    el("p", { class: "quiet as-they-are" }, "Compared as they are. A search compares with every view that the index holds of a picture (parts, shifts, its mirror image), so it may find a copy that is far apart here."),
    answer, figure);
  zones.forEach((zone, at) => takePictures(zone.node, (file) => take(at, file), signal));
  takePictures(window, (file) => take(pictures[0] && !pictures[1] ? 1 : 0, file), signal);

  async function take(at, file) {
    pictures[at] = file;
    if (at === 0) size = null;
    forget();
    await zones[at].show(file, file.name || "pasted");
    await ask();
  }

  function askSoon() {
    clearTimeout(timer);
    timer = setTimeout(ask, REST_MS);
  }

  // What was said is of other pictures than those that stand there now.
  function forget() {
    known = null;
    if (!pictures[0] || !pictures[1]) return;
    answer.style.minHeight = `${answer.offsetHeight}px`; // Until there is an answer, nothing below moves.
    answer.replaceChildren(el("p", { class: "in-words quiet" }, "Comparing …"));
    figure.classList.add("waiting");
    say("");
    for (const said of [saidThreshold, saidNoise]) said.textContent = "";
    for (const input of [threshold, noise]) input.removeAttribute("aria-valuetext");
    line.classList.remove("proved");
  }

  function limitMoved() {
    if (!known) return askSoon();
    showLimit();
    const word = known.distance <= threshold.value ? "Match" : "No match";
    answer.querySelector(".strong").textContent = `${word}: asking how much noise flips it.`;
    askSoon();
  }

  function noiseMoved() {
    zones[0].noise(levelsAt(noise.value / STEPS));
    askSoon();
  }

  // At once, as every distance within the noise is inside the interval that was answered.
  function showLimit() {
    const limit = Number(threshold.value);
    const [low, high] = known.interval.a;
    const isProved = limit < low || high <= limit;
    const text = `${limit.toFixed(2)}: ${known.distance <= limit ? "match" : "no match"}, ${isProved ? "and this noise cannot flip it" : "but this noise may flip it"}`;
    saidThreshold.textContent = text;
    threshold.setAttribute("aria-valuetext", text);
    line.classList.toggle("proved", isProved);
  }

  async function ask() {
    clearTimeout(timer);
    if (!pictures[0] || !pictures[1]) return;
    const levels = levelsAt(noise.value / STEPS);
    zones[0].noise(levels);
    const asked = [...pictures];
    const isOld = () => asked.some((picture, at) => picture !== pictures[at]);
    try {
      // What a level is in l2 depends on the size, which the service says.
      const { image_a: found } = size ? { image_a: size } : await api.compare(...asked, {});
      if (isOld()) return;
      size = found;
      const epsilon = l2Of(levels, size);
      const limit = threshold.value;
      const answered = await api.compare(...asked, { epsilon, threshold: limit });
      if (isOld()) return;
      known = answered;
      render(known, levels);
      if (limit !== threshold.value) limitMoved();
    } catch (problem) {
      if (wasReplaced(problem) || isOld()) return;
      if (!(problem instanceof Problem)) throw problem;
      known = null;
      figure.hidden = true;
      answer.style.minHeight = "";
      answer.replaceChildren(problemPanel(problem, { limits: service.limits, retry: ask }));
    }
  }

  function render(found, levels) {
    const [low, high] = found.interval.a;
    const spot = (name, value) => line.style.setProperty(name, Math.min(1, value / FURTHEST));
    spot("--low", low);
    spot("--high", high);
    spot("--distance", found.distance);
    figure.hidden = false;
    figure.classList.remove("waiting");
    answer.style.minHeight = "";
    showLimit();
    saidNoise.textContent = levels ? `${shown(levels)} of 255 levels: distance ${outward(low, Math.floor)} to ${outward(high, Math.ceil)}` : "none";
    noise.setAttribute("aria-valuetext", saidNoise.textContent);
    const word = found.match ? "Match" : "No match";
    const { a, b, both } = found.certified_radius;
    const text = `${word}: ${flips(a, found.image_a)} on the first picture.`;
    const half = both === null ? "no noise can" : `less than ${shown(levelsOf(both, found.image_a))} levels`;
    answer.replaceChildren(
      el("p", { class: "in-words" }, `Distance ${found.distance.toFixed(3)}. `, el("span", { class: "strong" }, text)),
      el("p", { class: "quiet" }, `On the second: ${flips(b, found.image_b)}. On both at once, each: ${both === 0 ? "nothing is proved" : half} (l2 ${both === null ? "any" : (Math.floor(100 * both) / 100).toFixed(2)}).`),
    );
    say(text);
  }
}
