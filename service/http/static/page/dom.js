// Elements, and what is said to those who listen. Text is always a text node, never HTML.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export const button = (text, onclick, attributes = {}) =>
  el("button", { type: "button", onclick, ...attributes }, text);

export function say(text) {
  document.getElementById("said").textContent = text;
}

// A modal dialog with a heading and a way out; gone, not hidden, once it is closed.
export function dialog(title, attributes, ...children) {
  const heading = el("h2", { id: "dialog-title" }, title);
  const close = button("Close", () => node.close(), { class: "link" });
  const node = el(
    "dialog",
    { "aria-labelledby": "dialog-title", ...attributes },
    el("div", { class: "head" }, heading, close),
    ...children,
  );
  node.addEventListener("click", (event) => event.target === node && node.close());
  node.addEventListener("close", () => node.remove());
  document.body.append(node);
  node.showModal();
  return node;
}

// Calls `once` with a node when it comes near the window.
export function whenNear(node, once) {
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      once(node);
    },
    { rootMargin: "300px" },
  );
  observer.observe(node);
}

export const plural = (number, one, many = `${one}s`) =>
  `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
