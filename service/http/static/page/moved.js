// Two answers as two rows of thumbnails; a line joins what is in both.

import { el, svg } from "./dom.js";
import { thumbnail } from "./pictures.js";
import { titleOf } from "./results.js";

const MOST = 10;

export function movedRows(api, before, after, id) {
  const [was, is] = [before, after].map((answer) => answer.results.slice(0, MOST));
  const count = Math.max(was.length, is.length, 1);
  const row = (answer, results, others, title) =>
    el(
      "ol",
      { "aria-label": title },
      results.map((result) => {
        const stays = others.some((other) => other.id === result.id);
        const path = result.thumbnail ?? api.thumbnailOf(answer.index.name, result.id);
        const kind = `${stays ? "" : "alone"} ${result.id === id ? "subject" : ""}`;
        return el("li", { class: kind }, thumbnail(api, path, { alt: titleOf(result), size: 40 }));
      }),
    );
  const lines = svg("svg", { viewBox: `0 0 ${count} 1`, preserveAspectRatio: "none", "aria-hidden": "true" });
  was.forEach((result, from) => {
    const to = is.findIndex((other) => other.id === result.id);
    if (to < 0) return;
    const kind = `${from === to ? "same" : "moved"} ${result.id === id ? "subject" : ""}`;
    lines.append(svg("line", { x1: from + 0.5, y1: 0, x2: to + 0.5, y2: 1, class: kind }));
  });
  const node = el("div", { class: "moved-rows" },
    el("span", { class: "quiet" }, "before"), row(before, was, is, "Answer before"), lines,
    row(after, is, was, "Answer after"), el("span", { class: "quiet" }, "after"));
  node.style.setProperty("--count", count);
  return node;
}
