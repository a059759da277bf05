// The one module that asks the service: its key, its problems, and the last request of each kind.

import { parse, stringify } from "./json.js";

const KEPT_KEY = "lipsim-key";

// What went wrong, as the service says it (RFC 9457), or `offline` and `key_needed` of our own.
export class Problem extends Error {
  constructor({ status = 0, code, title = code, detail = title, errors = [] }, retryAfter = null) {
    super(detail);
    Object.assign(this, { status, code, title, detail, errors, retryAfter });
  }
}

export const wasReplaced = (error) => error.name === "AbortError";

// Relative, so that a proxy may add a prefix; paths in answers begin at the service's root.
export const addressOf = (path) => new URL(path.replace(/^\//, ""), document.baseURI);

async function problemOf(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  const unread = { status: response.status, code: `http_${response.status}` };
  const body = await response.json().catch(() => unread);
  return new Problem(body.code ? body : { ...unread, detail: body.reason }, retryAfter);
}

// `askKey(wasRefused)` gives a key, or null where the visitor has none.
export function createApi(askKey) {
  const running = new Map();
  let key = sessionStorage.getItem(KEPT_KEY);
  let asking = null;

  function forgetKey() {
    key = null;
    sessionStorage.removeItem(KEPT_KEY);
  }

  function useKey(given) {
    key = given;
    sessionStorage.setItem(KEPT_KEY, key);
  }

  async function newKey(wasRefused) {
    const given = await askKey(wasRefused);
    if (!given) throw new Problem({ status: 401, code: wasRefused ? "key_refused" : "key_needed" });
    useKey(given);
  }

  async function send(path, { body, json, signal } = {}) {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    if (json) headers["Content-Type"] = "application/json";
    const method = body || json ? "POST" : "GET";
    try {
      const content = json ? stringify(json) : body;
      return await fetch(addressOf(path), { method, headers, body: content, signal });
    } catch (error) {
      if (wasReplaced(error)) throw error;
      throw new Problem({ code: "offline", detail: "The service cannot be reached." });
    }
  }

  // `kind`: a request of the same kind that still runs is given up.
  async function ask(path, { kind, ...options } = {}) {
    const controller = new AbortController();
    if (kind) {
      running.get(kind)?.abort();
      running.set(kind, controller);
    }
    for (;;) {
      const used = key;
      const response = await send(path, { ...options, signal: controller.signal });
      if (response.ok) return response;
      if (response.status !== 401) throw await problemOf(response);
      if (used === key) {
        // Others may be refused meanwhile: one question is enough.
        asking ??= newKey(used !== null).finally(() => (asking = null));
        await asking;
      }
      controller.signal.throwIfAborted();
    }
  }

  const get = async (path, options) => parse(await (await ask(path, options)).text());
  const inIndex = (name, rest = "") => `v1/indexes/${encodeURIComponent(name)}${rest}`;

  const itemPath = (index, id) => inIndex(index, `/item?id=${encodeURIComponent(id)}`);

  // The picture as a form field, each option that is set as another; an id goes as JSON.
  function post(path, pictures, options, kind) {
    const set = Object.fromEntries(Object.entries(options).filter(([, value]) => value != null && value !== ""));
    if (Object.values(pictures).some((picture) => typeof picture === "string")) {
      return get(path, { json: { ...pictures, ...set }, kind });
    }
    const form = new FormData();
    for (const [name, value] of Object.entries(set)) {
      form.append(name, typeof value === "object" ? stringify(value) : value);
    }
    for (const [name, picture] of Object.entries(pictures)) form.append(name, picture, picture.name ?? "picture.png");
    return get(path, { body: form, kind });
  }

  return {
    forgetKey,
    useKey,
    hasKey: () => key !== null,
    info: () => get("v1/info"),
    indexes: async () => (await get("v1/indexes")).indexes,
    example: async (name) => (await ask(`v1/examples/${encodeURIComponent(name)}`, { kind: "query" })).blob(),
    search: (picture, options, kind = "search") =>
      post("v1/search", typeof picture === "string" ? { item: picture } : { image: picture }, options, kind),
    compare: (a, b, options) => post("v1/similarity", { image_a: a, image_b: b }, options, "compare"),
    tolerance: (picture, options) => post("v1/tolerance", { image: picture }, options, "tolerance"),
    challenge: (picture, options) => post("v1/challenge", { image: picture }, options, "attack"),
    item: (index, id) => get(itemPath(index, id), { kind: "item" }),
    itemPath,
    items: (index, limit, after, filter) =>
      filter
        ? get(inIndex(index, "/items/list"), { json: { limit, after, filter }, kind: "items" })
        : get(inIndex(index, `/items?limit=${limit}&after=${encodeURIComponent(after)}`), { kind: "items" }),
    keys: (index) => get(inIndex(index, "/metadata?limit=1000"), { kind: "keys" }),
    values: (index, key, prefix) =>
      get(inIndex(index, `/metadata/values?${new URLSearchParams({ key, prefix, limit: 200 })}`), { kind: "values" }),
    picture: async (path) => (await ask(path)).blob(),
    thumbnailOf: (index, id) => inIndex(index, `/thumbnail?id=${encodeURIComponent(id)}`),
  };
}
