// Where a picture is dropped, pasted or chosen, and shown with the noise that is asked about.

import { el } from "./dom.js";
import { unitNoise, withNoise } from "./noise.js";
import { pixelsOf } from "./pictures.js";

const TEXT = 84; // Pixels of a zone's height that its name, hint and borders take.

const pictureIn = (transfer) => [...(transfer?.files ?? [])][0];

// Takes what is dropped or pasted anywhere in `target` until `signal` says stop.
export function takePictures(target, onPicture, signal) {
  const listen = (kind, act) => target.addEventListener(kind, act, { signal });
  const over = (is) => document.documentElement.classList.toggle("dropping", is);
  listen("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  listen("dragleave", (event) => event.relatedTarget === null && over(false));
  listen("drop", (event) => {
    event.preventDefault();
    event.stopPropagation(); // What a zone takes is not for the window too.
    over(false);
    const file = pictureIn(event.dataTransfer);
    if (file) onPicture(file);
  });
  listen("paste", (event) => {
    event.stopPropagation();
    const file = pictureIn(event.clipboardData);
    if (file) onPicture(file);
  });
}

// A zone: `show(blob)` draws a picture, `noise(levels)` draws it again with that much noise.
export function createZone(label, onPicture) {
  let pixels = null;
  let unit = null;
  const input = el("input", {
    type: "file",
    accept: "image/*",
    class: "unseen",
    onchange: () => {
      const [file] = input.files;
      input.value = ""; // The same file may be chosen again.
      if (file) onPicture(file);
    },
  });
  const canvas = el("canvas", { hidden: true, role: "img", "aria-label": "Your picture" });
  const hint = el("span", { class: "hint" }, label);
  const name = el("span", { class: "name" });
  const node = el("label", { class: "zone" }, input, canvas, name, hint);

  function draw(image) {
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  return {
    node,
    async show(blob, title) {
      name.textContent = title;
      // As large as it will stand there: a browser that made it smaller would smooth the noise away.
      pixels = blob && (await pixelsOf(blob, Math.min(node.clientWidth - 24, node.clientHeight - TEXT)));
      unit = null;
      canvas.hidden = !pixels;
      node.classList.toggle("filled", Boolean(pixels));
      hint.textContent = blob ? "Drop, paste or choose another" : label;
      if (!pixels) return;
      Object.assign(canvas, { width: pixels.width, height: pixels.height });
      draw(pixels);
    },
    noise(levels) {
      if (!pixels) return;
      unit ??= unitNoise(pixels);
      draw(levels > 0 ? withNoise(pixels, unit, levels) : pixels);
    },
  };
}
