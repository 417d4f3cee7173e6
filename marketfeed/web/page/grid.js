/* A grid of any number of rows that holds elements for the visible ones only.
 *
 * Rows have one height. Element k shows the rows whose index is k modulo the number of elements, so scrolling
 * by one row rebinds one element. The element that scrolls is the grid itself, with its header sticky, so that
 * header and rows are always aligned. One row is active; it is known by what it shows, not by its place, and
 * stays active when the order changes. `aria-activedescendant` tells it to screen readers.
 */
import { h, setAttribute } from "./dom.js";
import { onPaint } from "./paint.js";

const OVERSCAN = 4; // rows beyond the visible ones, above and below

export class Grid {
  /**
   * `makeRow(id)` returns {element, bind(item), paint(item, now)}. `headers` are elements of role columnheader.
   * `open(item)` is called for a click or Enter.
   */
  constructor({ label, headers, makeRow, open, onActive }) {
    this._makeRow = makeRow;
    this._open = open;
    this._onActive = onActive ?? (() => {});
    this._rows = [];
    this._order = new Int32Array(0);
    this._length = 0;
    this._rowHeight = 28;
    this.active = -1;
    this._head = h("div", { class: "grid-head", role: "row", "aria-rowindex": 1 }, ...headers);
    this._body = h("div", { class: "grid-body", role: "rowgroup" });
    this.element = h(
      "div",
      {
        class: "grid",
        role: "grid",
        tabindex: 0,
        "aria-label": label,
        "aria-colcount": headers.length,
        on: {
          scroll: () => this._place(),
          keydown: (event) => this._key(event),
          click: (event) => this._click(event),
          focus: () => this._focused(),
        },
      },
      this._head,
      this._body,
    );
    this._resize = new ResizeObserver(() => this._measure());
    this._resize.observe(this.element);
  }

  /** Show the items of `order` up to `length`. */
  setOrder(order, length) {
    this._order = order;
    if (length !== this._length) {
      this._length = length;
      this._body.style.height = `${length * this._rowHeight}px`;
      this.element.setAttribute("aria-rowcount", length + 1);
    }
    this._place();
  }

  /** Paint until `stop`. */
  start() {
    this._stop ??= onPaint((now) => this._paint(now));
    this._measure();
  }

  stop() {
    this._stop?.();
    this._stop = undefined;
  }

  /** Forget what is painted, as after a change of colours. */
  repaint() {
    for (const slot of this._rows) slot.item = -1;
    this._place();
  }

  _measure() {
    const height = this.element.clientHeight;
    if (height === 0) return;
    this._rowHeight = Number.parseFloat(getComputedStyle(this.element).getPropertyValue("--row")) || 28;
    this._body.style.height = `${this._length * this._rowHeight}px`;
    const wanted = Math.ceil(height / this._rowHeight) + 2 * OVERSCAN;
    if (wanted !== this._rows.length) {
      for (const slot of this._rows.splice(wanted)) slot.row.element.remove();
      while (this._rows.length < wanted) {
        const row = this._makeRow(`row-${this._rows.length}`);
        row.element.hidden = true;
        this._body.append(row.element);
        this._rows.push({ row, index: -1, item: -1 });
      }
    }
    for (const slot of this._rows) slot.index = -1;
    this._place();
  }

  /** Bind elements to the rows that are visible now. */
  _place() {
    const size = this._rows.length;
    if (size === 0) return;
    const first = Math.max(0, Math.floor(this.element.scrollTop / this._rowHeight) - OVERSCAN);
    for (let index = first; index < first + size; index += 1) {
      const slot = this._rows[index % size];
      const item = index < this._length ? this._order[index] : -1;
      if (slot.index === index && slot.item === item) continue;
      const { element } = slot.row;
      if (item < 0) element.hidden = true;
      else {
        if (slot.index !== index || element.hidden) {
          element.style.transform = `translateY(${index * this._rowHeight}px)`;
          element.setAttribute("aria-rowindex", index + 2);
        }
        element.hidden = false;
        slot.row.bind(item);
        slot.row.paint(item, performance.now());
      }
      slot.index = index;
      slot.item = item;
    }
    this._mark();
  }

  _paint(now) {
    for (const slot of this._rows) if (slot.item >= 0) slot.row.paint(slot.item, now);
  }

  /** Show which row is active. */
  _mark() {
    let found = null;
    for (const slot of this._rows) {
      const active = slot.item >= 0 && slot.item === this.active;
      setAttribute(slot.row.element, "aria-selected", active ? "true" : "false");
      if (active) found = slot.row.element.id;
    }
    setAttribute(this.element, "aria-activedescendant", found);
  }

  /** Make `item` active, without moving the view. */
  activate(item) {
    if (this.active === item) return;
    this.active = item;
    this._mark();
    this._onActive(item);
  }

  _indexOfActive() {
    return this.active < 0 ? -1 : this._order.subarray(0, this._length).indexOf(this.active);
  }

  _focused() {
    if (this._indexOfActive() < 0 && this._length > 0) {
      this._go(Math.ceil(this.element.scrollTop / this._rowHeight));
    }
  }

  _go(index) {
    const wanted = Math.max(0, Math.min(this._length - 1, index));
    if (this._length === 0) return;
    const top = wanted * this._rowHeight;
    const room = this.element.clientHeight - this._head.offsetHeight;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top + this._rowHeight > this.element.scrollTop + room) {
      this.element.scrollTop = top + this._rowHeight - room;
    }
    this._place();
    this.activate(this._order[wanted]);
  }

  _key(event) {
    if (event.target !== this.element || event.altKey || event.ctrlKey || event.metaKey) return;
    const at = this._indexOfActive();
    const page = Math.max(
      1,
      Math.floor((this.element.clientHeight - this._head.offsetHeight) / this._rowHeight) - 1,
    );
    const steps = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: this._length - 1,
    };
    if (event.key in steps) this._go(steps[event.key]);
    else if (event.key === "Enter" && at >= 0) this._open(this.active);
    else return;
    event.preventDefault();
  }

  _click(event) {
    const element = event.target.closest(".row");
    const slot = this._rows.find((one) => one.row.element === element);
    if (!slot || slot.item < 0) return;
    this.activate(slot.item);
    this._open(slot.item);
  }
}
