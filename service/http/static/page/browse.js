// The items of an index, a page at a time, and what is known of the index itself.

import { Problem, wasReplaced } from "./api.js";
import { button, el, plural } from "./dom.js";
import { problemPanel } from "./errors.js";
import { createFilter } from "./filter.js";
import { openItem } from "./item.js";
import { thumbnail } from "./pictures.js";
import { titleOf } from "./results.js";
import { read, write } from "./state.js";
import { atMost, share } from "./words.js";

const PAGE = 48;

function aboutIndex(index) {
  const rows = index.operating_points.map((point) =>
    el("tr", {}, [point.name, point.statistic, point.threshold.toPrecision(3), share(point.recall), share(point.false_positive_rate), atMost(point.false_positive_upper), point.stale ? "stale" : "fresh"].map((text) => el("td", {}, text))),
  );
  const heads = ["operating point", "judged by", "threshold", "finds", "wrong", "wrong, at most (95 %)", "measured"];
  return el("details", { class: "tool" },
    el("summary", {}, "About this index"),
    el("p", { class: "quiet" }, `Version ${index.version}, written ${index.created}. ${plural(index.vectors ?? index.size, "vector")} in ${plural(index.views.length || 1, "view")} of each picture.`),
    rows.length > 0
      ? el("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Operating points" }, el("table", {}, el("thead", {}, el("tr", {}, heads.map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, rows)))
      : el("p", { class: "quiet" }, "Not calibrated: it has no operating points, so nobody can ask for a verdict."));
}

export function mountBrowse(root, context) {
  const { api, service } = context;
  const name = read().index ?? "default";
  const index = service.indexes.find((one) => one.name === name);
  const list = el("ul", { class: "items" });
  const end = el("div", { class: "end" });
  const choice = el("select", { id: "browsed", onchange: () => change(choice.value) },
    service.indexes.map((one) => el("option", { value: one.name, selected: one.name === name }, one.name)));
  const filter = createFilter(api, name, again);
  root.append(
    el("div", { class: "pair" }, el("h2", {}, index?.size != null ? `${plural(index.size, "picture")} in the index` : name),
      service.indexes.length > 1 && el("label", { class: "field" }, el("span", {}, "Index"), choice)),
    ...(index?.version != null ? [aboutIndex(index)] : []), filter.node, list, end);

  function change(other) {
    write({ index: other === "default" ? null : other, filter: null, open: null }, { step: true });
    context.showIndex();
    root.replaceChildren();
    mountBrowse(root, context);
  }

  function again() {
    list.replaceChildren();
    more("");
  }

  function searchItem(id) {
    write({ view: null, item: id, example: null, open: null }, { step: true });
    context.show();
  }

  const open = (id) => openItem(context, { id, options: { index: name }, searchItem });

  async function more(after) {
    end.replaceChildren(el("p", { class: "quiet" }, "Loading"));
    try {
      const page = await api.items(name, PAGE, after, filter.value());
      context.answered(page.index);
      const shown = list.children.length;
      list.append(...page.items.map((item) =>
        el("li", {}, el("button", { type: "button", class: "result", "data-id": item.id, onclick: () => open(item.id) },
          el("span", { class: "picture" }, thumbnail(api, item.thumbnail)),
          el("span", { class: "title" }, titleOf(item))))));
      if (after) list.children[shown]?.querySelector("button").focus();
      const none = list.children.length === 0 && el("p", { class: "notice" }, filter.value() ? "No picture passes the filter." : "This index is empty.");
      end.replaceChildren(...[none, page.next && button("More", () => more(page.next), { class: "main" })].filter(Boolean));
    } catch (problem) {
      if (wasReplaced(problem)) return;
      if (!(problem instanceof Problem)) throw problem;
      end.replaceChildren(problemPanel(problem, { limits: service.limits, retry: () => more(after) }));
    }
  }

  more("");
  if (read().open) open(read().open);
}
