// Pictures of the index, fetched with the key (an <img> cannot send one), and those of the visitor.

import { el, whenNear } from "./dom.js";
import { wasReplaced } from "./api.js";

// Shows a blob in an <img>, and lets go of its address once it is drawn.
export function showBlob(image, blob) {
  const address = URL.createObjectURL(blob);
  const release = () => URL.revokeObjectURL(address);
  image.addEventListener("load", release, { once: true });
  image.addEventListener("error", release, { once: true });
  image.src = address;
}

// A tile that fetches its thumbnail when it comes near the window.
export function thumbnail(api, path, { alt = "", size = 96 } = {}) {
  const image = el("img", { alt, width: size, height: size, class: "thumbnail" });
  whenNear(image, async () => {
    try {
      showBlob(image, await api.picture(path));
    } catch (error) {
      if (!wasReplaced(error)) image.classList.add("missing");
    }
  });
  return image;
}

// The visitor's picture upright on white, at most `side` pixels a side; null if no browser draws it.
export async function pixelsOf(blob, side) {
  const bitmap = await createImageBitmap(blob).catch(() => null);
  if (bitmap === null) return null;
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = el("canvas", {
    width: Math.max(1, Math.round(bitmap.width * scale)),
    height: Math.max(1, Math.round(bitmap.height * scale)),
  });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}
