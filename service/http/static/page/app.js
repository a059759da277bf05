// Puts the page together: the key, what the service says of itself, and the view in the address.

import { createApi, Problem } from "./api.js";
import { attackSection } from "./attack.js";
import { mountBrowse } from "./browse.js";
import { mountCompare } from "./compare.js";
import { button, el } from "./dom.js";
import { editsSection } from "./edits.js";
import { problemPanel } from "./errors.js";
import { indexLine } from "./index-line.js";
import { askKey } from "./key.js";
import { mountSearch } from "./search.js";
import { read, write } from "./state.js";

const VIEWS = { search: mountSearch, compare: mountCompare, browse: mountBrowse };
const root = document.getElementById("view");
const api = createApi(askKey);
let context = null;
let leaving = new AbortController();
let shownView = null;

async function load() {
  root.replaceChildren(el("p", { class: "quiet loading" }, "Asking the service"));
  try {
    const [info, indexes] = await Promise.all([api.info(), api.indexes()]);
    context = contextOf(info, indexes);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    root.replaceChildren(problemPanel(problem, { retry: load }));
    return;
  }
  context.showIndex();
  show();
}

function contextOf({ limits, models, examples }, indexes) {
  const service = { limits, indexes, examples, side: models[0].input_size };
  const chosen = () => indexes.find(({ name }) => name === (read().index ?? "default"));
  const place = document.getElementById("index-line");
  return {
    api,
    service,
    show,
    tools: [attackSection, editsSection],
    showIndex: () => place.replaceChildren(indexLine(chosen(), models[0])),
    // An answer of another version than the one that this page was made of.
    answered({ version }) {
      if (version === chosen()?.version) return;
      const reload = button("Reload", () => location.reload(), { class: "link" });
      place.replaceChildren(el("p", { class: "quiet", role: "status" }, `The index has a new version, ${version}. `, reload));
    },
  };
}

function show() {
  const { view = "search" } = read();
  leaving.abort();
  leaving = new AbortController();
  shownView = view in VIEWS ? view : "search";
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = link.search === `?view=${shownView}`;
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  root.className = shownView;
  root.replaceChildren();
  if (context.service.indexes.length === 0) {
    root.append(el("div", { class: "notice" },
      el("p", { class: "strong" }, "There is no index yet."),
      el("p", {}, "Make one of a folder of pictures; it is taken into service by itself:"),
      el("pre", { tabindex: 0 }, "lipsim build ~/pictures"), button("Look again", load, { class: "main" })));
    return;
  }
  VIEWS[shownView](root, context, leaving.signal);
}

document.querySelector("nav").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || !context) return;
  event.preventDefault();
  const view = new URLSearchParams(link.search).get("view");
  write({ view: view === "search" ? null : view, open: null }, { step: true });
  show();
});
window.addEventListener("popstate", () => {
  const { view = "search" } = read();
  document.querySelectorAll("dialog[open]").forEach((one) => one.close());
  if (context && view !== shownView) show();
});
document.getElementById("key").addEventListener("click", () => {
  api.forgetKey();
  askKey(false).then((key) => key && api.useKey(key)).then(load);
});
load();
