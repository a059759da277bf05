// What an edit looks like, as this browser makes it; what is proved is measured by the service.

import { el } from "./dom.js";
import { unitNoise, withNoise } from "./noise.js";
import { pixelsOf } from "./pictures.js";

function mapped(pixels, change) {
  const table = Uint8ClampedArray.from({ length: 256 }, (_, value) => change(value));
  const edited = new ImageData(pixels.width, pixels.height);
  for (let at = 0; at < pixels.data.length; at += 1) {
    edited.data[at] = at % 4 === 3 ? 255 : table[pixels.data[at]];
  }
  return edited;
}

function canvasOf(pixels) {
  const canvas = el("canvas", { width: pixels.width, height: pixels.height });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

async function compressed(pixels, quality) {
  const blob = await new Promise((resolve) => canvasOf(pixels).toBlob(resolve, "image/jpeg", quality / 100));
  return (await pixelsOf(blob, Infinity)) ?? pixels;
}

function scaled(pixels, share) {
  const [width, height] = [pixels.width, pixels.height].map((side) => Math.max(1, Math.round(side * share)));
  const small = el("canvas", { width, height });
  small.getContext("2d").drawImage(canvasOf(pixels), 0, 0, width, height);
  const context = el("canvas", { width: pixels.width, height: pixels.height }).getContext("2d");
  context.drawImage(small, 0, 0, pixels.width, pixels.height);
  return context.getImageData(0, 0, pixels.width, pixels.height);
}

// `width`: of the picture that was sent, of which `pixels` are a smaller drawing.
export async function applyEdit(name, parameter, pixels, width) {
  if (name === "brightness") return mapped(pixels, (value) => parameter * value);
  if (name === "contrast") return mapped(pixels, (value) => 128 + parameter * (value - 128));
  if (name === "gamma") return mapped(pixels, (value) => 255 * (value / 255) ** parameter);
  if (name === "noise") return withNoise(pixels, unitNoise(pixels), parameter);
  if (name === "jpeg") return compressed(pixels, parameter);
  return scaled(pixels, parameter / width);
}
