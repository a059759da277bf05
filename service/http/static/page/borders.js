// With `trim` a search answers twice: for the picture as it is, and without its plain borders.

import { levelsOf, shown } from "./scale.js";

export const AS_IT_IS = { heading: "Your picture as it is", where: "found in your picture as it is" };
export const TRIMMED = { heading: "After trimming the border", where: "found after trimming the border" };

const hasMatch = ({ results }) => results.some(({ match }) => match);
const nearest = ({ results }) => Number((results[0]?.distance ?? Infinity).toFixed(3));
const radius = ({ results }) => (results[0] ? (results[0].certified_radius ?? Infinity) : -1);

// Where nothing can take a result's place, that holds for as long as there is a second list: no farther than the trim itself.
function withinTrim({ trimmed, query }) {
  const { trim_radius: end, results, certificate } = trimmed;
  if (end === null) return trimmed;
  const ended = { certified_radius: end, certified_rms_8bit: levelsOf(end, query) };
  return {
    results: results.map((result) => (result.certified_radius === null ? { ...result, ...ended } : result)),
    certificate: Object.fromEntries(Object.entries(certificate).map(([name, value]) => [name, value ?? end])),
  };
}

// The lists of an answer, each as an answer of its own, the better evidence first. A verdict was measured on this gallery, so
// it decides where one was asked for. Else the nearer first result does: both distances are of one network and one index,
// whereas the radii of a trimmed list end where the trim does, however good the copy. Only between distances that
// are shown as the same does the larger radius decide, so that what can be proved is not hidden behind rounding.
export function listsOf(answer) {
  const asItIs = { ...answer, ...AS_IT_IS };
  if (!answer.trimmed?.results) return [asItIs];
  const trimmed = { ...answer, ...withinTrim(answer), ...TRIMMED };
  const better =
    hasMatch(trimmed) - hasMatch(asItIs) || nearest(asItIs) - nearest(trimmed) || radius(trimmed) - radius(asItIs);
  return better > 0 ? [trimmed, asItIs] : [asItIs, trimmed];
}

// The proof of the first result in the other list, where that one holds further than `first`: in one of the two lists the result
// stays as long as either proof holds. Not of the trimmed list's: where the trim moves, there may be no second list.
export function otherProof([first, other]) {
  if (first.where !== TRIMMED.where || first.results.length === 0) return null;
  const same = other.results.find(({ id }) => id === first.results[0].id);
  return same && radius({ results: [same] }) > radius(first) ? same : null;
}

export function trimInWords({ trimmed: { box, trim_radius: radius }, query }) {
  const left = `${box.right - box.left} x ${box.bottom - box.top} of ${query.width} x ${query.height} pixels are left.`;
  if (radius === null) return `${left} No noise moves the trim.`;
  if (radius === 0) return `${left} Any noise may move the trim: nothing is proved here.`;
  return `${left} No noise below ${shown(levelsOf(radius, query))} of 255 levels moves the trim; the proofs here end there.`;
}
