// The answer in two sentences.

import { otherProof } from "./borders.js";
import { el, plural } from "./dom.js";
import { levelsOf, shown } from "./scale.js";

function proved(radius, query) {
  if (radius === null) return "whatever the noise";
  if (radius === 0) return null;
  return `against noise up to ${shown(levelsOf(radius, query))} levels`;
}

// Of the list that stands first, and of how much was searched.
export function answerInWords(lists) {
  const [answer, other] = lists;
  const where = other && answer.where;
  const { query, index, results, certificate, timings_ms: times } = answer;
  const looks = where ? ", as your picture is and with its border trimmed," : "";
  const searched = `${plural(index.matching ?? index.items ?? index.size, "picture")} searched exactly${looks} in ${Math.max(1, Math.round(times.total))} ms.`;
  if (results.length === 0) return searched;
  if (query.item) return `${searched} The query is the index's own row: it has no pixels, so nothing is proved of noise.`;
  const verdicts = answer.operating_point ? "" : " Whether any of these is a copy of yours is for you to judge: no verdict was asked for.";
  const first = proved(certificate.top1_radius, query);
  const set = proved(certificate.set_radius, query);
  const one = where ? `first result, ${where},` : "first result";
  const said = first ? `The ${one} is proved ${first}` : `Of the ${one} nothing is proved`;
  const rest = set ? `the set of ${results.length} ${set.replace("against noise ", "")}` : `of the set of ${results.length} nothing is proved`;
  const either = other && otherProof(lists);
  const stays = either ? ` In one of the two lists the first result stays ${either.certified_radius === null ? "whatever the noise" : `under any noise below ${shown(levelsOf(either.certified_radius, query))} levels`}.` : "";
  return `${searched} ${said}${results.length === 1 ? "" : `; ${rest}`}.${stays}${verdicts}`;
}

export const share = (rate) => (rate === null ? "not known" : `${(100 * rate).toFixed(1)} %`);
// Of a bound: never rounded down.
export const atMost = (rate) => `${(Math.ceil(1000 * rate) / 10).toFixed(1)} %`;

// What the verdicts of all lists say together, and are worth: nothing where none was asked for.
export function verdictsInWords(lists) {
  const [{ operating_point: point }] = lists;
  if (!point) return [];
  const found = lists.map(({ results }) => results.filter(({ match }) => match));
  const matches = new Set(found.flat().map(({ id }) => id)).size; // One that is in both lists is one picture.
  const places = lists.filter((_, at) => found[at].length > 0).map(({ where }) => where);
  const isTwice = lists.length > 1;
  const where = !isTwice ? "" : matches ? `, ${places.join(" and ").replace(" and found", " and")}` : ", neither as it is nor after trimming the border";
  const rates = [
    `${share(point.recall)} of ${plural(point.positives, "copy", "copies")} were called a match`,
    `so were ${share(point.false_positive_rate)} of ${plural(point.negatives, "query", "queries")} without a copy here (at most ${atMost(point.false_positive_upper)} with 95 % confidence)`,
  ];
  const second = isTwice ? " That was with one look: a second look gives a picture without a copy a second chance to be called one." : "";
  const [{ query, trimmed }] = lists;
  const hint = matches || trimmed || !query.width ? "" : " A copy inside a frame or bars may need “Look inside plain borders too”, under Options.";
  const old = point.stale ? " Stale: the index has changed since." : "";
  return [
    el("p", { class: "judged" },
      el("span", { class: "strong" }, `${plural(matches, "match", "matches")} by “${point.name}”${where}. `),
      el("span", { class: "quiet" }, `As measured here: ${rates.join("; ")}.${second}${old}${hint}`)),
  ];
}
