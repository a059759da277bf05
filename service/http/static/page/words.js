// The answer in two sentences.

import { plural } from "./dom.js";
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
