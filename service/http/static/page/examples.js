// Pictures to try, as the operator offers them.

import { el } from "./dom.js";
import { showBlob } from "./pictures.js";

const MOST = 6;

// "astronaut-cropped.jpg" was made of the astronaut: its name says how.
const inWords = (name) => name.replace(/\.\w+$/, "").replaceAll("-", " ");

export function createExamples(api, names, onChoose) {
  const buttons = new Map();
  const row = el("ul", { class: "examples" });
  for (const name of names.slice(0, MOST)) {
    const image = el("img", { alt: "", width: 64, height: 64 });
    api.picture(`v1/examples/${encodeURIComponent(name)}`).then((blob) => showBlob(image, blob), () => {});
    const button = el("button", { type: "button", onclick: () => onChoose(name) }, image, el("span", {}, inWords(name)));
    buttons.set(name, button);
    row.append(el("li", {}, button));
  }
  const node = el("div", {}, names.length > 0 && [el("h3", {}, "Or try an edited copy"), row]);
  return {
    node,
    mark(chosen) {
      for (const [name, button] of buttons) button.setAttribute("aria-pressed", name === chosen);
    },
  };
}
