// JSON that keeps every digit of a whole number: one beyond 2^53, which JSON.parse would round, is a BigInt.

const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g; // Texts, so that no digits within one are taken, and numbers.
const WHOLE = /^-?[1-9]\d*$/;
// Where such a number stands until it is read or written; nobody can have written it into a text before.
const MARK = `whole-${String(Math.random()).slice(2)}-`;
const MARKED = new RegExp(`"${MARK}(-?\\d+)"`, "g");

const isRounded = (token) => WHOLE.test(token) && !Number.isSafeInteger(Number(token));

export function parse(text) {
  const marked = text.replace(TOKEN, (token) => (isRounded(token) ? `"${MARK}${token}"` : token));
  return JSON.parse(marked, (_, value) =>
    typeof value === "string" && value.startsWith(MARK) ? BigInt(value.slice(MARK.length)) : value);
}

export const stringify = (value, space) =>
  JSON.stringify(value, (_, one) => (typeof one === "bigint" ? MARK + one : one), space).replace(MARKED, "$1");
