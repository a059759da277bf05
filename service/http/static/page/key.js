// Asks for a key. It is kept for this tab alone.

import { el, dialog } from "./dom.js";

export function askKey(wasRefused) {
  return new Promise((resolve) => {
    const input = el("input", { type: "password", id: "key-input", autocomplete: "off", spellcheck: "false", required: true });
    const form = el(
      "form",
      {
        onsubmit: (event) => {
          event.preventDefault();
          resolve(input.value.trim());
          shown.close();
        },
      },
      wasRefused && el("p", { class: "refused", role: "alert" }, "This key was not accepted: it is unknown or has expired."),
      el("label", { for: "key-input" }, "Key"),
      input,
      el("p", { class: "quiet" }, "Kept for this tab only, and sent to this service alone."),
      el("button", { class: "main" }, "Use this key"),
    );
    const shown = dialog("This service asks for a key", { class: "small" }, form);
    shown.addEventListener("close", () => resolve(null));
    input.focus();
  });
}
