// One item in a drawer: all its fields, and what can be tried on it.

import { Problem, wasReplaced } from "./api.js";
import { TRIMMED } from "./borders.js";
import { button, dialog, el } from "./dom.js";
import { problemPanel } from "./errors.js";
import { stringify } from "./json.js";
import { thumbnail } from "./pictures.js";
import { radiusInLevels, titleOf } from "./results.js";
import { bar, inWords } from "./scale.js";
import { itemLinks } from "./snippets.js";
import { write } from "./state.js";

const asText = (value) => (typeof value === "string" ? value : stringify(value));

// Of numbers that were proved: rounded, and never upwards.
const floored = (value) => (value == null ? value : Math.floor(1e4 * value) / 1e4);

function fields(pairs) {
  const list = el("dl", { class: "fields" });
  for (const [name, value] of pairs) {
    if (value === null || value === undefined || value === "") continue;
    list.append(el("dt", {}, name), el("dd", {}, asText(value)));
  }
  return list;
}

// In how many views each picture of the index was embedded, the whole one among them.
const viewsInWords = (views) => (views?.length ? `${views.length}: ${views.join(", ")}` : null);

function ofResult(result) {
  if (!result) return null;
  return el(
    "div",
    { class: "proof" },
    bar(radiusInLevels(result), { exact: result.exact }),
    el("p", { class: "strong" }, inWords(radiusInLevels(result))),
    fields([
      ["rank", result.rank],
      ["distance", result.distance.toFixed(4)],
      ["certified radius (l2)", floored(result.certified_radius)],
      ["perhaps more could be proved", result.exact ? "no" : "yes"],
      ["margin", floored(result.margin)],
      ["view", result.view],
      ["verdict", result.match === null ? null : result.match ? "match" : "no match"],
      ["verdict holds below (l2)", floored(result.match_radius)],
    ]),
  );
}

// `result` is null for an item that was not found but looked up; `tools` are sections of other modules.
export async function openItem(context, { id, result = null, answer = null, asked = null, options = {}, searchItem }) {
  const { api, service, tools } = context;
  const name = result?.id ?? id;
  const index = answer?.index.name ?? options.index ?? "default";
  const body = el("div", { class: "item" });
  const drawer = dialog(result ? titleOf(result) : name, { class: "drawer" }, body);
  write({ open: name });
  drawer.addEventListener("close", () => {
    write({ open: null });
    if (document.activeElement.dataset.id === name) return; // As two lists may hold it, the one it was opened from.
    [...document.querySelectorAll("[data-id]")].find((node) => node.dataset.id === name)?.focus();
  });
  async function load() {
    body.replaceChildren(el("p", { class: "quiet" }, "Loading"));
    try {
      show(await api.item(index, name));
    } catch (problem) {
      if (wasReplaced(problem)) return;
      if (!(problem instanceof Problem)) throw problem;
      body.replaceChildren(problemPanel(problem, { retry: load }));
    }
  }
  function show(item) {
    drawer.querySelector("h2").textContent = titleOf(item);
    const metadata = Object.entries(item.metadata);
    const about = service.indexes.find((one) => one.name === index);
    const search = () => {
      drawer.close();
      searchItem(item.id);
    };
    const sections = asked?.blob && result ? tools.map((tool) => tool(context, { result, answer, asked, options })) : [];
    body.replaceChildren(...[
      el("div", { class: "lead" }, thumbnail(api, item.thumbnail, { alt: "The picture" }), ofResult(result)),
      el("p", { class: "links" },
        button("Search with this picture", search, { class: "main" }),
        el("span", { class: "links" }, itemLinks(api.itemPath(index, item.id), item, api.hasKey())),
      ),
      result && answer.where === TRIMMED.where && el("p", { class: "quiet" }, "Found after trimming the border. Noise and edits are tried on what is found in your picture as it is."),
      ...sections,
      el("h3", {}, "The item"),
      fields([
        ["id", item.id],
        ["the same vector", item.duplicates.join(", ")],
        ["size", `${item.width} x ${item.height}`],
        ["format", item.format],
        ["sha256", item.sha256],
        ["views", viewsInWords(about?.views)],
        ["index version", about?.version === item.index.version ? `${about.version}, written ${about.created}` : item.index.version],
      ]),
      metadata.length > 0 && el("h3", {}, "Metadata"),
      metadata.length > 0 && fields(metadata),
    ].filter(Boolean));
  }
  await load();
}
