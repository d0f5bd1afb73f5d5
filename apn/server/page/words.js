/* What the page says, and the elements that say it. */
"use strict";
const WORDS = { generated: "Looks AI-generated", real: "Looks like a photograph", unsure: "Unsure" };
const FAILED = "Not checked";  // not "no verdict": that is what "unsure" means
const SHORT = { generated: "generated", real: "photograph", unsure: "unsure" };
const CHOSEN = { ICO: "largest", HEIF: "main one" };  // of several pictures in a file, as in apn/words.py; else the first
const ICONS = {  // one shape each, so that colour is never alone; a camera, since a tick would say "verified"
  generated: "M12 2 23 21H1ZM11 9v6h2V9ZM11 16.5v2h2v-2Z",
  real: "M12 1a11 11 0 1 0 0 22 11 11 0 0 0 0-22ZM5.5 9h3l1.4-2.2h4.2L15.5 9h3v8h-13ZM12 10.4a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5Z",
  unsure: "M12 1 23 12 12 23 1 12ZM6.5 11v2h11v-2Z",
  failed: "M3 3h18v18H3ZM7 8.4 10.6 12 7 15.6 8.4 17 12 13.4 15.6 17 17 15.6 13.4 12 17 8.4 15.6 7 12 10.6 8.4 7Z",
};
const byId = (id) => document.getElementById(id);
const percent = (part) => `${Number((100 * part).toPrecision(3))} %`;
/** Whether a sign without width makes one emoji of its neighbours, or chooses the look of one or of an ideograph. */
const shapes = (before, sign, after) => sign === "\u200d"
  ? /^[\p{So}\ufe0f\u{1f3fb}-\u{1f3ff}]$/u.test(before) && /^\p{So}$/u.test(after)
  : /^[\ufe00-\ufe0f\u{e0100}-\u{e01ef}]$/u.test(sign) && (/^[\p{So}\p{Ideographic}]$/u.test(before) || after === "\u20e3");
/** A name in which nothing is hidden, as `printable` of apn/words.py has it: what cannot be seen is spelt out. */
const printable = (name) => name.replace(/[\p{C}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\u{e0100}-\u{e01ef}]/gu, (hidden, at) => {
  if (shapes([...name.slice(0, at)].pop(), hidden, [...name.slice(at + hidden.length)][0])) return hidden;
  const code = hidden.codePointAt(0), hex = code.toString(16);
  return { "\t": "\\t", "\n": "\\n", "\r": "\\r" }[hidden] ?? (code > 0xffff ? "\\U" + hex.padStart(8, "0") : code > 0xff ? "\\u" + hex.padStart(4, "0") : "\\x" + hex.padStart(2, "0"));
});
/** A probability in words that never claim certainty by rounding, as `probability_words` there. */
const score = (probability) => probability < 0.0005 ? "<0.001" : probability >= 0.9995 ? ">0.999" : probability.toFixed(3);
const size = (bytes) => bytes >= 2 ** 20 ? `${Math.floor(bytes / 2 ** 20)} MB` : `${Math.floor(bytes / 2 ** 10)} kB`;
const exact = (threshold) => String(Number(threshold.toPrecision(threshold > 0.999 ? 6 : 3)));

/** An element with properties and children; text only ever becomes text, never markup. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

function icon(kind) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [name, value] of [["viewBox", "0 0 24 24"], ["fill", "currentColor"], ["aria-hidden", "true"]]) svg.setAttribute(name, value);
  path.setAttribute("d", ICONS[kind]);
  path.setAttribute("fill-rule", "evenodd");
  svg.append(path);
  return svg;
}

/** Says of which picture a button is, after its own words: the buttons of all cards are alike, and may be listed without them. */
function named(element, item, what) {
  element.id = `${item.id}-${what}`;
  element.setAttribute("aria-labelledby", `${element.id} ${item.id}`);
  element.setAttribute("aria-description", "");  // Chromium would describe a summary by its own words once more
  return element;
}

/** A bar of colours with the words under it, from left to right. */
function ramp(colours, words) {
  const bar = make("div", { className: "ramp" });
  bar.style.background = `linear-gradient(to right, ${colours}), #fff`;
  return make("div", {}, bar, make("div", { className: "ends quiet" }, ...words.map((word) => make("span", { textContent: word }))));
}

function table(caption, heads, rows) {
  const line = (cells, tag) => make("tr", {}, ...cells.map((cell) => make(tag, { textContent: cell })));
  const head = line(heads, "th");
  for (const cell of head.children) cell.scope = "col";
  return make("div", { className: "wide" }, make("table", {}, make("caption", { textContent: caption }), make("thead", {}, head),
    make("tbody", {}, ...rows.map((cells) => line(cells, "td")))));
}
