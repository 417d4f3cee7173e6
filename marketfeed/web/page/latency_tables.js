/* Tables of the latency view: percentiles per hop with a picture each, and the ledger. */
import { h, setAttribute, setText } from "./dom.js";
import { change, count, NONE, ns } from "./format.js";

/** Hops in the order of a tick's way, with what they measure: docs/latency.md. */
export const HOPS = {
  venue: "venue's clock to receipt",
  ring: "receipt to the rings",
  wait: "rings to the flush",
  late: "flush behind its grid",
  encode: "flush to frames",
  send: "flush to the kernel",
  total: "receipt to the kernel",
  client: "receipt to the engine's own probe",
};
const FIGURES = [
  ["p50", "p50_ns"],
  ["p90", "p90_ns"],
  ["p99", "p99_ns"],
  ["p99.9", "p99_9_ns"],
  ["max", "max_ns"],
];
const LOW_NS = 1e4; // of the pictures' axis
const DECADES = 6;
const MARKS = [
  ["10 µs", 0],
  ["1 ms", 2],
  ["100 ms", 4],
  ["10 s", 6],
];
export const PARTS = ["delivered", "conflated", "lost", "pending", "abandoned"];

/** A table of the rows of HopRows. */
export function hopTable(rows, caption) {
  const marks = MARKS.map(([text, decade]) =>
    h("span", { text, style: { left: `${(100 * decade) / DECADES}%` } }),
  );
  return h(
    "table",
    { class: "figures hops" },
    h("caption", { class: "sr", text: caption }),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col", text: "Hop" }),
        h("th", { scope: "col", class: "f-count", text: "Count" }),
        ...FIGURES.map(([name]) =>
          h("th", { scope: "col", class: `f-${name.replace(".", "-")}`, text: name }),
        ),
        h(
          "th",
          { class: "f-picture", scope: "col" },
          h("span", { class: "sr", text: "Picture" }),
          h("div", { class: "axis", "aria-hidden": "true" }, ...marks),
        ),
      ),
    ),
    h("tbody", {}, ...rows),
  );
}

/** Where a value lies on the logarithmic axis, in percent. */
function place(value) {
  return Math.max(0, Math.min(100, (100 * Math.log10(Math.max(value, 1) / LOW_NS)) / DECADES));
}

/** One hop: its percentiles, and a bar from p50 to the maximum. */
export class HopRow {
  constructor(name, means) {
    this._count = h("td", { class: "f-count", text: NONE });
    this._cells = FIGURES.map(([figure]) => h("td", { class: `f-${figure.replace(".", "-")}`, text: NONE }));
    this._bars = ["wide", "middle", "thin"].map((part) => h("i", { class: `span-${part}` }));
    this._dot = h("i", { class: "span-max" });
    this._picture = h("div", { class: "picture", "aria-hidden": "true" }, ...this._bars, this._dot);
    this.element = h(
      "tr",
      {},
      h(
        "th",
        { scope: "row" },
        h("span", { class: "hop", text: name }),
        h("span", { class: "muted", text: means }),
      ),
      this._count,
      ...this._cells,
      h("td", { class: "f-picture" }, this._picture),
    );
  }

  paint(figures) {
    const none = !figures || figures.count === 0;
    setText(this._count, figures ? count(figures.count) : NONE);
    FIGURES.forEach(([, field], index) =>
      setText(this._cells[index], none || figures[field] === null ? NONE : ns(figures[field])),
    );
    this._picture.hidden = none;
    if (none) return;
    const at = [figures.p50_ns, figures.p90_ns, figures.p99_ns, figures.p99_9_ns ?? figures.p99_ns].map(
      place,
    );
    this._bars.forEach((bar, index) => {
      bar.style.left = `${at[index]}%`;
      bar.style.width = `${at[index + 1] - at[index]}%`;
    });
    this._dot.style.left = `${place(figures.max_ns)}%`;
  }
}

/** One tier's ledger, and whether it adds up. */
export class LedgerRow {
  constructor(name) {
    this._cells = ["matched", ...PARTS].map(() => h("td", { text: NONE }));
    this._check = h("td", { text: NONE });
    this.element = h("tr", {}, h("th", { scope: "row", text: name }), ...this._cells, this._check);
  }

  paint(ledger) {
    ["matched", ...PARTS].forEach((part, index) => setText(this._cells[index], count(ledger[part])));
    const sum = PARTS.reduce((total, part) => total + ledger[part], 0);
    const off = ledger.matched - sum;
    setText(this._check, off === 0 ? "adds up" : `differs by ${change(off, 0)}`);
    setAttribute(this._check, "data-tone", off === 0 ? "live" : "bad");
    setAttribute(this._cells[3], "data-tone", ledger.lost > 0 ? "warn" : null);
  }
}
