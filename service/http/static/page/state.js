// What the address holds, so that a link opens the same view again.

import { parse } from "./json.js";

const NAMES = ["view", "index", "k", "max_distance", "operating_point", "require_exact", "trim", "filter", "example", "item", "open", "noise"];

export function read() {
  const given = new URLSearchParams(location.search);
  return Object.fromEntries(NAMES.filter((name) => given.has(name)).map((name) => [name, given.get(name)]));
}

function addressWith(changes) {
  const all = { ...read(), ...changes };
  const set = Object.entries(all).filter(([, value]) => value != null && value !== "" && value !== false);
  return `?${new URLSearchParams(set)}`;
}

// A new entry of the history where `step` is true, else the present one is changed.
export function write(changes, { step = false } = {}) {
  const address = addressWith(changes);
  if (address === location.search) return;
  history[step ? "pushState" : "replaceState"](null, "", address);
}

// Those of a search that attacks and measurements of it take too.
export function asked({ index, k, max_distance, operating_point, filter }) {
  return { index, k, max_distance, operating_point, filter };
}

// No operating point is named like this: asked for no verdict, where the index has some.
export const NO_VERDICT = "-";

// The operating point that the address names; without one the strictest of the index.
export function pointAsked(points) {
  const { operating_point: named = points[0]?.name } = read();
  return named === NO_VERDICT ? null : named;
}

// What a search is asked for, of what the address holds.
export function searchOptions(points) {
  const { index, k, max_distance: distance, require_exact, trim, filter } = read();
  const number = (text) => (text ? Number(text) : null);
  return {
    index,
    k: number(k),
    max_distance: number(distance),
    operating_point: pointAsked(points),
    require_exact: require_exact ? true : null,
    trim: trim ? true : null,
    filter: parsed(filter),
  };
}

// A filter that is none is the service's to refuse, in its words.
function parsed(text) {
  try {
    return text ? parse(text) : null;
  } catch {
    return text;
  }
}
