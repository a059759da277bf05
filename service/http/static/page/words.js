// The answer in two sentences.

import { el, plural } from "./dom.js";
import { levelsOf, shown } from "./scale.js";

function proved(radius, query) {
  if (radius === null) return "whatever the noise";
  if (radius === 0) return null;
  return `against noise up to ${shown(levelsOf(radius, query))} levels`;
}

export function answerInWords(answer) {
  const { query, index, results, certificate, timings_ms: times } = answer;
  const searched = `${plural(index.matching ?? index.items ?? index.size, "picture")} searched exactly in ${Math.max(1, Math.round(times.total))} ms.`;
  if (results.length === 0) return searched;
  if (query.item) return `${searched} The query is the index's own row: it has no pixels, so nothing is proved of noise.`;
  const verdicts = answer.operating_point ? "" : " Whether any of these is a copy of yours is for you to judge: no verdict was asked for.";
  const first = proved(certificate.top1_radius, query);
  const set = proved(certificate.set_radius, query);
  const one = first ? `The first result is proved ${first}` : "Nothing is proved of the first result";
  if (results.length === 1) return `${searched} ${one}.${verdicts}`;
  const rest = set ? `the set of ${results.length} ${set.replace("against noise ", "")}` : `of the set of ${results.length} nothing is proved`;
  return `${searched} ${one}; ${rest}.${verdicts}`;
}

export const share = (rate) => (rate === null ? "not known" : `${(100 * rate).toFixed(1)} %`);
// Of a bound: never rounded down.
export const atMost = (rate) => `${(Math.ceil(1000 * rate) / 10).toFixed(1)} %`;

// What the verdicts are worth: nothing where none was asked for.
export function verdictsInWords({ operating_point: point, results }) {
  if (!point) return [];
  const matches = results.filter(({ match }) => match).length;
  const rates = [
    `${share(point.recall)} of ${plural(point.positives, "copy", "copies")} were called a match`,
    `so were ${share(point.false_positive_rate)} of ${plural(point.negatives, "query", "queries")} without a copy here (at most ${atMost(point.false_positive_upper)} with 95 % confidence)`,
  ];
  const old = point.stale ? " Stale: the index has changed since." : "";
  return [
    el("p", { class: "judged" },
      el("span", { class: "strong" }, `${plural(matches, "match", "matches")} by “${point.name}”. `),
      el("span", { class: "quiet" }, `As measured here: ${rates.join("; ")}.${old}`)),
  ];
}
