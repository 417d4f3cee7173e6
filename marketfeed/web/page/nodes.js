/* The engines of a cluster, as /v1/nodes lists them; nothing without a cluster. */
import { h, setAttribute, setText } from "./dom.js";
import { count, NONE } from "./format.js";

const TONES = { ready: "live", stale: "bad", "not ready": "bad", starting: "idle", draining: "warn" };
const COLUMNS = ["Engine", "Site", "Sessions", "Capacity", "State"];

export class NodesPanel {
  constructor() {
    this._rows = [];
    this._body = h("tbody");
    this.element = h(
      "section",
      { class: "panel", id: "nodes", "aria-label": "Engines", hidden: true },
      h("header", {}, h("h3", { text: "Engines of the cluster" })),
      h(
        "div",
        { class: "table-scroll", tabindex: "0", role: "group", "aria-label": "Table of the engines" },
        h(
          "table",
          { class: "figures" },
          h("thead", {}, h("tr", {}, ...COLUMNS.map((text) => h("th", { scope: "col", text })))),
          this._body,
        ),
      ),
    );
  }

  /** Show the rows of /v1/nodes; `node` is the one of this page's engine. */
  paint({ nodes, node }) {
    this.element.hidden = nodes.length < 2;
    const key = nodes.map(({ url }) => url).join(" ");
    if (key !== this._key) {
      this._key = key;
      this._rows = nodes.map((one) => new NodeRow(one, one === node));
      this._body.replaceChildren(...this._rows.map((row) => row.element));
    }
    nodes.forEach((one, index) => this._rows[index].paint(one));
  }
}

class NodeRow {
  constructor({ url }, own) {
    const address = own
      ? h("span", { text: `${url} (this page)` })
      : h("a", { href: /^https?:/.test(url) ? url : null, text: url });
    this._cells = ["site", "sessions", "capacity", "state"].map(() => h("td"));
    this.element = h("tr", {}, h("th", { scope: "row" }, address), ...this._cells);
  }

  paint({ site, sessions, capacity, state }) {
    [site || NONE, count(sessions), count(capacity), state].forEach((text, index) =>
      setText(this._cells[index], text),
    );
    setAttribute(this._cells.at(-1), "data-tone", TONES[state] ?? null);
  }
}
