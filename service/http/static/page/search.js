// The search: a picture in, results with their proofs out.

import { Problem, wasReplaced } from "./api.js";
import { listsOf, TRIMMED, trimInWords } from "./borders.js";
import { createControls } from "./controls.js";
import { button, el, plural, say } from "./dom.js";
import { problemPanel } from "./errors.js";
import { createExamples } from "./examples.js";
import { openItem } from "./item.js";
import { resultGrid, skeleton } from "./results.js";
import { codeLinks } from "./snippets.js";
import { read, searchOptions, write } from "./state.js";
import { survivalSlider } from "./survive.js";
import { createZone, takePictures } from "./zone.js";
import { answerInWords, verdictsInWords } from "./words.js";

const SLOW_MS = 4000;

export function mountSearch(root, context, signal) {
  const { api, service } = context;
  let picture = null; // {blob, name} of the visitor, or {item, index} of the gallery.
  const area = el("div", { class: "area" });
  const zone = createZone("Drop a picture, paste one, or choose", choose);
  const asNetwork = el("div", { class: "as-network" });
  const examples = createExamples(api, service.examples, startFrom);
  const controls = el("div", {}, createControls(service, optionsChanged));
  root.append(
    el("div", { class: "ask" }, el("h2", { class: "unseen" }, "Your picture"), zone.node, asNetwork, examples.node, controls),
    el("div", { class: "answer" }, el("h2", { class: "unseen" }, "Answer"), area),
  );
  takePictures(window, choose, signal);

  // Of the index that is searched, the strictest first.
  function points() {
    return service.indexes.find(({ name }) => name === (read().index ?? "default"))?.operating_points ?? [];
  }

  function optionsChanged(name) {
    if (name === "index") {
      controls.replaceChildren(createControls(service, optionsChanged));
      context.showIndex();
      if (picture?.item) return clear();
    }
    run();
  }

  async function choose(file) {
    write({ example: null, item: null, open: null }, { step: true });
    await take({ blob: file, name: file.name || "pasted.png" });
  }

  async function take(next) {
    picture = next;
    showInput(null);
    examples.mark(next.example);
    await zone.show(next.blob ?? null, next.item ? "A picture of the index" : next.name);
    if (picture === next) await run();
  }

  async function startFrom(example) {
    write({ example, item: null, open: null }, { step: true });
    await open();
  }

  async function searchItem(id) {
    write({ example: null, item: id, open: null }, { step: true });
    await open();
  }

  // What the address asks for; without anything, the first example.
  async function open() {
    const before = picture;
    const isChosen = () => picture !== before; // Another picture, while this one was on its way.
    const { index = "default", item, example: name = service.examples[0] } = read();
    if (item) {
      const blob = await api.picture(api.thumbnailOf(index, item)).catch(() => null);
      return isChosen() ? undefined : take({ item, blob, name: item });
    }
    if (!name) return clear();
    area.replaceChildren(...skeleton(service.limits.default_k));
    try {
      const blob = await api.example(name);
      if (!isChosen() && (read().example ?? service.examples[0]) === name) await take({ blob, name, example: name });
    } catch (problem) {
      if (!isChosen()) failed(problem, open);
    }
  }

  function clear() {
    picture = null;
    area.replaceChildren(
      el("div", { class: "welcome" },
        el("p", { class: "strong" }, "Drop a picture, and see whether this index holds it."),
        el("p", {}, "Each result comes with the noise that it provably withstands: no change of your picture smaller than that, whatever its pattern, can push it out of the answer."),
      ),
    );
  }

  function failed(problem, retry) {
    if (wasReplaced(problem)) return;
    if (!(problem instanceof Problem)) throw problem;
    area.removeAttribute("aria-busy");
    showInput(null);
    area.replaceChildren(problemPanel(problem, { limits: service.limits, retry }));
  }

  async function run() {
    if (!picture) return;
    const asked = picture;
    const options = searchOptions(points());
    const slow = el("p", { class: "quiet", hidden: true }, "The service takes longer than usual.");
    area.setAttribute("aria-busy", "true");
    area.replaceChildren(...skeleton(Math.min(options.k ?? service.limits.default_k, 24), slow));
    const timer = setTimeout(() => (slow.hidden = false), SLOW_MS);
    try {
      const file = asked.item ?? new File([asked.blob], asked.name);
      const answer = await api.search(file, asked.item ? { ...options, trim: null } : { ...options, include_input: true });
      if (asked === picture) render(answer, options, asked);
    } catch (problem) {
      if (asked === picture) failed(problem, run);
    } finally {
      clearTimeout(timer);
    }
  }

  function render(answer, options, asked) {
    area.removeAttribute("aria-busy");
    context.answered(answer.index);
    const { input_png: input, ...query } = answer.query;
    const lists = listsOf(answer);
    const [first] = lists;
    const isTwice = lists.length > 1;
    const words = answerInWords(lists);
    const line = el("p", { class: "in-words" }, words, " ", codeLinks(asked, options, { ...answer, query }, api.hasKey()));
    if (options.filter) line.append(" ", unfilter());
    const verdicts = verdictsInWords(lists);
    say([lists.map(({ results, where }) => plural(results.length, "result") + (isTwice ? ` ${where}` : "")).join(", "), words, verdicts[0]?.firstChild.textContent].filter(Boolean).join(". "));
    showInput(input);
    if (lists.every(({ results }) => results.length === 0)) {
      area.replaceChildren(line, el("p", { class: "notice" }, nothingFound(answer, options)));
      return;
    }
    const slider = answer.query.width && survivalSlider(first, area, {
      start: Number(read().noise) || 0,
      of: isTwice ? first.heading : null,
      onNoise(levels, isNew) {
        zone.noise(levels);
        if (isNew) write({ noise: levels ? levels.toFixed(2) : null });
      },
    });
    const opened = lists.map((list) => openerOf(list, asked, options));
    const grids = lists.map((list, at) => [
      isTwice && el("h3", {}, list.heading),
      list.where === TRIMMED.where && el("p", { class: "quiet trim" }, trimInWords(answer)),
      list.results.length > 0 ? resultGrid(api, list, opened[at]) : el("p", { class: "notice" }, nothingFound(answer, options)),
    ]);
    const noBorder = answer.trimmed && !isTwice && el("p", { class: "quiet" }, "It has no plain borders to look inside of.");
    area.replaceChildren(...[line, ...verdicts, slider?.node, noBorder, ...grids.flat()].filter(Boolean));
    slider?.show();
    for (const [at, { results }] of lists.entries()) {
      const again = results.find(({ id }) => id === read().open);
      if (again) return opened[at](again);
    }
  }

  // What is tried on a result sends the picture as it is: a result of the trimmed one has no such tools.
  function openerOf(list, asked, options) {
    const tried = list.where === TRIMMED.where ? null : asked;
    return (result) => openItem(context, { result, answer: list, asked: tried, options, searchItem });
  }

  function unfilter() {
    const remove = () => {
      write({ filter: null });
      run();
    };
    return el("span", { class: "quiet" }, "Only pictures that pass the filter. ", button("Search all", remove, { class: "link" }));
  }

  function showInput(input) {
    asNetwork.replaceChildren();
    if (!input) return;
    const side = service.side;
    asNetwork.append(
      el("img", { src: `data:image/png;base64,${input}`, width: 48, height: 48, alt: "" }),
      el("span", { class: "quiet" }, `As the network sees it: ${side} x ${side} pixels`),
    );
  }

  function nothingFound(answer, options) {
    if (answer.index.size === 0) return "This index is empty: there is nothing to find yet.";
    if (options.filter) return "Nothing that passes the filter was found.";
    return `Nothing within distance ${options.max_distance}. The nearest picture is farther away.`;
  }

  window.addEventListener("popstate", () => read().view !== "compare" && read().view !== "browse" && open(), { signal });
  open();
}
