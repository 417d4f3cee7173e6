/* Bid, ask and trades of one symbol over the last minutes, drawn by uPlot, which is loaded when first needed. */
import { h, setText } from "./dom.js";
import { clock, price } from "./format.js";
import { colours } from "./spark.js";

const HEIGHT = 190;
let loading = null;

/** Load uPlot, which is no module: it defines one global name. */
function load() {
  loading ??= new Promise((resolve, reject) => {
    document.head.append(
      h("link", { rel: "stylesheet", href: "/page/vendor/uplot/uPlot.min.css" }),
      h("script", {
        src: "/page/vendor/uplot/uPlot.iife.min.js",
        on: { load: () => resolve(window.uPlot), error: () => reject(new Error("uPlot was not loaded")) },
      }),
    );
  });
  loading.catch(() => {
    loading = null;
  });
  return loading;
}

export class Chart {
  constructor() {
    this._host = h("div", { class: "chart", role: "img", "aria-label": "Chart" });
    const part = (name) => h("span", { class: `key key-${name}` });
    this._time = h("span");
    this._parts = ["bid", "ask", "bought", "sold"].map(part);
    /** What the lines and dots are, with their values where the pointer is, else the newest ones. */
    this.readout = h("div", { class: "chart-readout num muted" }, this._time, ...this._parts);
    this.element = h("figure", { class: "chart-figure" }, this._host);
    this.digits = 2;
    this._resize = new ResizeObserver(() => this._fit());
    this._resize.observe(this._host);
  }

  /** Draw `data`, the columns of a History. */
  async draw(data, name) {
    this._data = data;
    this._name = name;
    if (!this._plot) await this._make();
    else this._plot.setData(this._data);
    this._describe();
  }

  async _make() {
    if (this._making) return;
    this._making = true;
    try {
      const UPlot = await load();
      if (this._host.clientWidth > 0) this._plot = new UPlot(this._options(UPlot), this._data, this._host);
    } finally {
      this._making = false;
    }
  }

  _options(UPlot) {
    const font = "11px Plex, sans-serif";
    const axis = {
      stroke: colours.dim,
      font,
      grid: { stroke: colours.line, width: 1 },
      ticks: { show: false },
    };
    const line = (stroke) => ({
      stroke,
      width: 1.25,
      points: { show: false },
      paths: UPlot.paths.stepped({ align: 1 }),
    });
    const dots = (stroke) => ({
      stroke,
      fill: stroke,
      paths: () => null,
      points: { show: true, size: 2.5, width: 0, fill: stroke },
    });
    return {
      width: this._host.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      padding: [8, 4, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      scales: { y: { range: (_, low, high) => around(low, high, this.digits) } },
      axes: [
        {
          ...axis,
          space: 80,
          size: 26,
          values: (plot, splits) => splits.map((at) => (cut(plot, at) ? "" : clock(at * 1000, 0))),
        },
        {
          ...axis,
          side: 1,
          space: 34,
          size: (_, values) => 14 + 6.4 * Math.max(4, ...(values ?? []).map((one) => one.length)),
          values: (_, splits) => splits.map((at) => price(at, this.digits)),
        },
      ],
      series: [
        {},
        line(colours.accent),
        line(colours.dim),
        dots(colours.up),
        dots(colours.down),
        { ...line(colours.faint), spanGaps: true },
      ],
      hooks: { setCursor: [(plot) => this._point(plot.cursor.idx)] },
    };
  }

  _point(index) {
    this._index = index;
    this._describe();
  }

  _describe() {
    const [times, ...columns] = this._data;
    const at = this._index ?? times.length - 1;
    if (times[at] === undefined) return;
    setText(this._time, clock(times[at] * 1000, 0));
    this._parts.forEach((part, index) => {
      const value = columns[index][at];
      const name = ["bid", "ask", "bought", "sold"][index];
      setText(part, index < 2 ? `${name} ${shown(value, this.digits)}` : name);
    });
    const [bid, ask] = columns;
    this._host.setAttribute(
      "aria-label",
      `Chart of ${this._name}: bid ${shown(bid.at(-1), this.digits)}, ask ${shown(ask.at(-1), this.digits)}`,
    );
  }

  _fit() {
    const width = this._host.clientWidth;
    if (this._plot && width > 0 && width !== this._plot.width) this._plot.setSize({ width, height: HEIGHT });
  }

  /** Drop the plot; the next `draw` makes it anew, in the colours of then. */
  clear() {
    this._plot?.destroy();
    this._plot = null;
    this._index = null;
  }
}

const shown = (value, digits) => price(value ?? NaN, digits);

/** Whether the label of a time would be cut off at the left or right end. */
function cut(plot, at) {
  const x = plot.valToPos(at, "x");
  return x < 24 || x > plot.over.clientWidth - 24;
}

/** The axis of prices: some room around them, and at least some ticks high. */
function around(low, high, digits) {
  if (low === null || low === undefined) return [0, 1];
  const least = 4 * 10 ** -digits;
  const room = Math.max((high - low) * 0.12, (least - (high - low)) / 2, 0);
  return [low - room, high + room];
}
