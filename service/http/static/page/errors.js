// Problems in words, each with its code; what can be done about it is a button or a countdown.

import { button, el } from "./dom.js";

const size = (bytes) => (bytes >= 2 ** 20 ? `${Math.floor(bytes / 2 ** 20)} MB` : `${Math.floor(bytes / 2 ** 10)} kB`);

const WORDS = {
  unsupported_image_format: (limits) =>
    ["The service does not read this kind of file.", limits && `It reads ${limits.formats.join(", ")}.`],
  image_too_large: (limits) => ["This file is too large.", limits && `At most ${size(limits.max_image_bytes)} are read.`],
  image_dimensions: (limits) =>
    ["This picture has too many pixels.", limits && `At most ${Math.floor(limits.max_image_pixels / 1e6)} million are read, and ${limits.max_image_side} a side.`],
  empty_image: () => ["This file is empty."],
  undecodable_image: () => ["This picture is cut off or damaged.", "To a moderator that is a case for a person to look at, not “no match”."],
  unembeddable_image: () => ["This picture has nothing to search by.", "It is all of one colour, or close to it."],
  quota_exceeded: () => ["You have used up your requests for now."],
  overloaded: () => ["The service is busy."],
  not_ready: () => ["The service is still starting."],
  index_unavailable: () => ["This index cannot be served."],
  index_not_found: () => ["There is no index of this name."],
  item_not_found: () => ["This picture is not in the index any more."],
  key_needed: () => ["This service asks for a key.", "Without one there is nothing to show."],
  key_refused: () => ["This key was not accepted."],
  forbidden: () => ["Your key may not do this."],
  offline: () => ["The service cannot be reached.", "Are you offline, or was it stopped?"],
  timeout: () => ["This took too long."],
  decode_timeout: () => ["This picture took too long to read."],
  invalid_parameter: () => ["The service does not accept one of the options."],
  unknown_operating_point: () => ["This index has no such operating point."],
};
WORDS.body_too_large = WORDS.image_too_large;

function countdown(seconds, retry) {
  const text = el("span");
  let left = seconds;
  const show = () => (text.textContent = left > 0 ? `Asking again in ${left} s` : "Asking again");
  const timer = setInterval(() => {
    if (!text.isConnected) return clearInterval(timer);
    left -= 1;
    show();
    if (left <= 0) {
      clearInterval(timer);
      retry();
    }
  }, 1000);
  show();
  return text;
}

export function problemPanel(problem, { limits, retry } = {}) {
  const [what, more] = (WORDS[problem.code] ?? (() => ["This did not work.", problem.title]))(limits);
  const waits = retry && problem.retryAfter !== null && [429, 503].includes(problem.status);
  return el(
    "div",
    { class: "problem", role: "alert" },
    el("p", { class: "strong" }, what),
    more && el("p", {}, more),
    ![problem.title, problem.code, what].includes(problem.detail) && el("p", { class: "quiet" }, problem.detail),
    waits && el("p", {}, countdown(problem.retryAfter, retry)),
    el("p", { class: "quiet" }, "Code ", el("code", {}, problem.code), retry && !waits && [" · ", button("Try again", retry, { class: "link" })]),
  );
}
