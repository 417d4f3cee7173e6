/* Watch: all symbols in one grid, with search, order, and the details of the chosen one. */
import { announce, h, icon, setAttribute, setText } from "./dom.js";
import { Detail } from "./detail.js";
import { count } from "./format.js";
import { Grid } from "./grid.js";
import { Ordering, termsOf } from "./ordering.js";
import { session } from "./session.js";
import { COLUMNS, MOST_DIGITS, WatchRow } from "./watch_row.js";

// Of a price, reserved from the start, so that columns do not widen with the first thousand.
const WHOLES = 4;
const DIGITS = 2;
const ORDER_MS = 2000; // between two changes of the order
const HOLD_MS = 8000; // it is kept so long after a person has pointed at a row, or moved to it by keys

export class WatchView {
  constructor(section) {
    this.section = section;
    this.ordering = new Ordering();
    this._orderedAt = 0;
    this._usedAt = -Infinity;
    this._wanted = null;
    this._opened = -1;
    this._headers = new Map();
    this._build();
    session.on("second", () => this._second());
    session.on("feed", () => this._renew());
    session.on("state", () => this._update());
  }

  _build() {
    this._search = h("input", {
      type: "search",
      id: "search",
      placeholder: "Search: AAPL, BTC*",
      autocomplete: "off",
      autocapitalize: "characters",
      spellcheck: "false",
      "aria-describedby": "search-help",
      on: { input: () => this._filter() },
    });
    this._count = h("output", { class: "muted num", id: "shown", for: "search" });
    this._order = h(
      "select",
      { id: "order", "aria-label": "Order", on: { change: () => this._sortBy(this._order.value) } },
      h("option", { value: "activity", text: "Activity" }),
      h("option", { value: "move", text: "Move" }),
      h("option", { value: "symbol", text: "Symbol" }),
      h("option", { value: "spread", text: "Spread" }),
      h("option", { value: "age", text: "Age" }),
    );
    this._notLive = h(
      "button",
      {
        type: "button",
        class: "chip",
        id: "not-live",
        "aria-pressed": "false",
        on: { click: () => this._toggleNotLive() },
      },
      "Not live",
      h("span", { class: "count num", text: "0" }),
    );
    this._hold = h("span", { class: "muted hold", text: "" });
    const bar = h(
      "div",
      { class: "bar", role: "search", "aria-label": "Symbols" },
      h(
        "label",
        { class: "field search" },
        h("span", { class: "sr", text: "Search symbols" }),
        icon("search"),
        this._search,
      ),
      h("span", {
        class: "sr",
        id: "search-help",
        text: "Parts of names; a name that ends with an asterisk is a prefix. Several are separated by commas.",
      }),
      h("label", { class: "field order" }, h("span", { class: "label", text: "Order" }), this._order),
      this._notLive,
      this._count,
      this._hold,
    );
    this.grid = this._makeGrid();
    this._empty = h("div", { class: "empty", hidden: true });
    this._frame = h("div", { class: "grid-frame" }, this.grid.element, this._empty);
    this._detail = new Detail(() => {
      location.hash = "watch";
    });
    this._detail.element.hidden = true;
    this._body = h("div", { class: "watch-body" }, this._frame, this._detail.element);
    this.section.append(bar, this._body);
    for (const type of ["pointermove", "keydown"]) this._frame.addEventListener(type, () => this._use());
    this._frame.addEventListener("pointerleave", () => this._release());
  }

  _makeGrid() {
    const headers = COLUMNS.map((column) => this._header(column));
    return new Grid({
      label: "Symbols and their quotes",
      headers,
      makeRow: (id) => new WatchRow(id, session),
      open: (row) => {
        location.hash = `watch/${encodeURIComponent(session.book.names[row])}`;
      },
    });
  }

  _header({ id, label, sort, title }) {
    const cell = h("div", { class: `cell head c-${id}`, role: "columnheader", title });
    if (!sort) {
      cell.textContent = label;
      return cell;
    }
    const button = h(
      "button",
      { type: "button", tabindex: "-1", on: { click: () => this._sortBy(sort) } },
      label,
    );
    cell.append(button);
    this._headers.set(sort, cell);
    return cell;
  }

  /** Order by a column; by the same one again: in the other direction. */
  _sortBy(sort) {
    const { ordering } = this;
    ordering.descending = sort === ordering.sort ? !ordering.descending : sort !== "symbol";
    ordering.sort = sort;
    this._order.value = sort;
    this.grid.element.scrollTop = 0;
    this._update(true);
    announce(`Ordered by ${sort}, ${ordering.descending ? "descending" : "ascending"}`);
  }

  _filter() {
    this.ordering.terms = termsOf(this._search.value);
    this.grid.element.scrollTop = 0;
    this._update(true);
    announce(`${this.ordering.length} symbols`);
  }

  _toggleNotLive() {
    this.ordering.onlyNotLive = !this.ordering.onlyNotLive;
    this._notLive.setAttribute("aria-pressed", this.ordering.onlyNotLive);
    this._update(true);
  }

  _use() {
    this._usedAt = performance.now();
  }

  _release() {
    this._usedAt = -Infinity;
    this._showHold();
  }

  /** Whether the order has to stay: a person is about to choose a row. */
  get _keepsOrder() {
    return performance.now() - this._usedAt < HOLD_MS;
  }

  _showHold() {
    const held = this._keepsOrder && this.ordering.sort !== "symbol";
    setText(this._hold, held ? "Order held" : "");
  }

  _second() {
    if (this.section.hidden || document.hidden) return;
    if (this._wanted !== null && this._opened < 0) this._openWanted();
    const due = performance.now() - this._orderedAt >= ORDER_MS;
    if (due || session.book.membership !== this._membership) this._update(due && !this._keepsOrder);
    this._showHold();
  }

  /** Show what the search and the state select; `reorder`: sort again too. */
  _update(reorder = false) {
    if (this.section.hidden) return;
    const { book, conditions } = session;
    conditions.now = book.now();
    conditions.connected = session.live;
    conditions.stale = session.stale;
    const members = book.membership !== this._membership;
    if (reorder || members || this.ordering.length === 0) {
      this.ordering.update(book, conditions);
      this._orderedAt = performance.now();
      this._membership = book.membership;
      this.grid.setOrder(this.ordering.order, this.ordering.length);
    }
    this._showCounts();
    this._showEmpty();
    for (const [sort, cell] of this._headers) {
      const direction = this.ordering.descending ? "descending" : "ascending";
      setAttribute(cell, "aria-sort", sort === this.ordering.sort ? direction : null);
    }
    this.grid.element.style.setProperty(
      "--price-ch",
      Math.max(book.wholes, WHOLES) + 1 + Math.min(Math.max(book.maxDigits, DIGITS), MOST_DIGITS),
    );
    this.grid.element.style.setProperty("--tight-ch", book.widest);
  }

  _showCounts() {
    const { length, notLive, terms } = this.ordering;
    const total = session.book.count;
    const of = terms || this.ordering.onlyNotLive ? `${count(length)} of ${count(total)}` : count(total);
    setText(this._count, `${of} symbols`);
    setText(this._notLive.lastChild, count(notLive));
    setAttribute(this._notLive, "data-tone", notLive ? "warn" : null);
  }

  _showEmpty() {
    const { ordering } = this;
    this._empty.hidden = ordering.length > 0;
    this.grid.element.classList.toggle("is-empty", ordering.length === 0);
    if (ordering.length > 0) return;
    const [title, text] = emptyText(session, ordering);
    this._empty.replaceChildren(h("p", { class: "empty-title", text: title }), h("p", { text }));
  }

  _renew() {
    this._membership = -1;
    this.ordering.length = 0;
    this.grid.active = -1;
    this._shutDetail();
    this.grid.setOrder(this.ordering.order, 0);
    this._update();
  }

  /** Show the grid, and the details of `symbol` unless it is null. */
  show(symbol) {
    this.grid.start();
    this._update(true);
    this._wanted = symbol;
    this._openWanted();
  }

  _openWanted() {
    const row = this._wanted === null ? -1 : (session.book.rows.get(this._wanted) ?? -1);
    if (row < 0) {
      if (this._wanted === null) this._shutDetail();
      return; // a symbol that is not known yet opens with its first tick
    }
    if (this._opened === row) return;
    this._opened = row;
    this._detail.element.hidden = false;
    this._body.classList.add("with-detail");
    this.grid.activate(row);
    this._detail.open(row);
    this._detail.focus();
  }

  _shutDetail() {
    this._detail.shut();
    const open = this._opened >= 0;
    this._opened = -1;
    this._detail.element.hidden = true;
    this._body.classList.remove("with-detail");
    if (open) this.grid.element.focus({ preventScroll: true });
  }

  hide() {
    this.grid.stop();
    this._detail.shut();
    this._opened = -1;
  }

  recolour() {
    this.grid.repaint();
    this._detail.recolour();
  }
}

function emptyText({ book, engine, problem, needsToken }, { terms, onlyNotLive }) {
  if (needsToken) return ["Sign in to see quotes", "This engine asks for a key or token: see Access."];
  if (book.count > 0 && terms)
    return ["No symbol matches", "Parts of names match; BTC* matches names that begin with BTC."];
  if (book.count > 0 && onlyNotLive)
    return [
      "Every row is live",
      "Rows appear here when their data is stale, delayed, halted, quiet or disconnected.",
    ];
  if (problem && !engine) return ["The engine does not answer", "The page tries again every few seconds."];
  if (!engine) return ["Connecting…", ""];
  if (engine.feeds?.length === 0)
    return ["No feed is configured", "Add a [[feeds]] table to config.toml: docs/feeds.md lists the types."];
  return ["No symbol yet", "Symbols appear with their first tick."];
}
