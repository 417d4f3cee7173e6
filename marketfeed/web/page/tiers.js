/* Tiers side by side: one connection per configured tier, the same symbol on each. */
import { connect } from "/marketfeed.js";
import { announce, h, setAttribute, setText } from "./dom.js";
import { credentials } from "./engine.js";
import { age, count, digitsOf, figure, price } from "./format.js";
import { Lane, rangeOf, Ticks, WINDOW_MS } from "./lanes.js";
import { onPaint } from "./paint.js";
import { session } from "./session.js";

const DRAW_MS = 90;
const SUGGESTED = 200; // symbols in the list of the field
const PLEASANT = 20; // ticks a second: enough to see, few enough to tell apart

export class TiersView {
  constructor(section) {
    section.classList.add("scroll");
    this._section = section;
    this._lanes = [];
    this._symbol = null;
    this._input = h("input", {
      id: "tiers-symbol",
      list: "tiers-symbols",
      autocomplete: "off",
      spellcheck: "false",
      maxlength: 24,
      on: { change: () => this._choose(this._input.value.trim()), focus: () => this._suggest() },
    });
    this._list = h("datalist", { id: "tiers-symbols" });
    this._problem = h("p", { class: "muted", role: "status" });
    this._host = h("div", { class: "lanes" });
    section.append(
      h(
        "div",
        { class: "page" },
        h(
          "div",
          { class: "page-head with-actions" },
          h(
            "div",
            { class: "grow" },
            h("h2", { text: "Tiers side by side" }),
            h("p", {
              class: "muted lead",
              text: "The same symbol over one connection per tier; n tells how many ticks the latest leaves out.",
            }),
          ),
          h(
            "form",
            { class: "bar flat", on: { submit: (event) => this._submit(event) } },
            h(
              "label",
              { class: "field", for: "tiers-symbol" },
              h("span", { class: "label", text: "Symbol" }),
              this._input,
            ),
            this._list,
            h("button", { type: "submit", text: "Compare" }),
          ),
        ),
        this._problem,
        this._host,
        h(
          "p",
          { class: "legend muted" },
          h("span", { class: "key key-line", text: "price as the tier shows it" }),
          h("span", { class: "key key-pale", text: "price at every tick" }),
          h("span", { class: "key key-bar", text: "tick delivered" }),
          h("span", { class: "key key-stub", text: "tick conflated" }),
          h("span", { text: `last ${WINDOW_MS / 1000} s, now at the right` }),
        ),
      ),
    );
    session.on("engine", () => this._changed());
    session.on("feed", () => this._end());
  }

  _submit(event) {
    event.preventDefault();
    this._choose(this._input.value.trim());
  }

  _suggest() {
    const { book } = session;
    const rows = Array.from({ length: book.count }, (_, row) => row).sort(
      (a, b) => book.rate[b] - book.rate[a],
    );
    this._list.replaceChildren(
      ...rows.slice(0, SUGGESTED).map((row) => h("option", { value: book.names[row] })),
    );
  }

  _choose(symbol) {
    if (!symbol || symbol === this._symbol) return;
    const known = session.book.rows.has(symbol);
    this._problem.hidden = known;
    setText(this._problem, known ? "" : `No tick of ${symbol} yet; it appears with its first one.`);
    this._symbol = symbol;
    this._input.value = symbol;
    this._begin();
    announce(`Comparing tiers for ${symbol}`);
  }

  /** The symbol whose activity is the most instructive. */
  _suggested() {
    const { book } = session;
    let best = -1;
    for (let row = 0; row < book.count; row += 1) {
      if (best < 0 || Math.abs(book.rate[row] - PLEASANT) < Math.abs(book.rate[best] - PLEASANT)) best = row;
    }
    return best < 0 || book.elapsed < 3 ? null : book.names[best];
  }

  show(symbol) {
    this._shown = true;
    if (symbol) this._choose(symbol);
    else if (this._symbol) this._begin();
    this._changed();
    this._stop ??= onPaint((now) => this._paint(now));
  }

  hide() {
    this._shown = false;
    this._end();
    this._stop?.();
    this._stop = undefined;
  }

  _changed() {
    if (!this._shown) return;
    const names = session.tiers.map((one) => one.tier).join(" ");
    if (!this._symbol) {
      const found = session.tiers.length ? this._suggested() : null;
      if (found) this._choose(found);
      else if (!this._host.firstChild)
        this._host.append(h("p", { class: "empty", text: "Waiting for ticks…" }));
      else setTimeout(() => this._changed(), 500);
    } else if (this._lanes.length === 0 || names !== this._names) this._begin();
  }

  _begin() {
    this._end();
    const { tiers } = session;
    if (!this._shown || !this._symbol || tiers.length === 0) return;
    this._names = tiers.map((one) => one.tier).join(" ");
    this._ticks = new Ticks(tiers.length);
    this._lanes = tiers.map((tier, index) => new TierLane(tier, index, this._ticks, this._symbol));
    this._host.replaceChildren(...this._lanes.map((lane) => lane.element));
  }

  _end() {
    for (const lane of this._lanes) lane.close();
    this._lanes = [];
    this._names = null;
  }

  _paint(now) {
    if (now - (this._painted ?? 0) < DRAW_MS || this._lanes.length === 0) return;
    this._painted = now;
    const time = session.book.now();
    const range = rangeOf(this._ticks, time);
    for (const lane of this._lanes) lane.paint(time, range);
  }

  recolour() {
    this._painted = 0;
  }
}

/** One tier's connection, its figures and its lane. */
class TierLane {
  constructor(tier, index, ticks, symbol) {
    this._tier = tier;
    this._index = index;
    this._ticks = ticks;
    this._clear();
    const canvas = h("canvas", {
      class: "lane-canvas",
      role: "img",
      "aria-label": `Ticks of ${symbol} on ${tier.tier}`,
    });
    this._lane = new Lane(canvas, index);
    this._values = {};
    const fact = (name, title) => {
      this._values[name] = h("dd", { class: "num", id: `tier-${tier.tier}-${name}`, text: "–" });
      return h("div", {}, h("dt", { text: title }), this._values[name]);
    };
    this._state = h("span", { class: "lane-state muted" }, h("i", { class: "dot" }), h("span"));
    this.element = h(
      "article",
      { class: "lane", "aria-label": `Tier ${tier.tier}`, id: `tier-${tier.tier}` },
      h(
        "header",
        {},
        h("h3", { text: tier.tier }),
        h("span", { class: "muted", text: described(tier) }),
        this._state,
      ),
      h(
        "dl",
        { class: "facts lane-facts" },
        fact("bid", "Bid"),
        fact("ask", "Ask"),
        fact("received", "Received"),
        fact("conflated", "Conflated"),
        fact("share", "Delivered"),
        fact("rate", "Received/s"),
      ),
      h("div", { class: "lane-box" }, canvas),
    );
    this._feed = connect("/", {
      ...credentials(),
      tier: tier.tier,
      share: false,
      encoding: "binary",
      slowWhenHidden: false,
      slowWhenWeak: false,
    });
    for (const type of ["state", "source"]) this._feed.on(type, () => this._showState());
    this._feed.subscribe({ quotes: [symbol] }, (message) => this._take(message));
    this._showState();
  }

  _clear() {
    this.received = 0;
    this.first = 0; // n from which ticks are counted
    this.newest = 0;
    this._bid = this._ask = NaN;
    this._recent = []; // counts a second
  }

  _take(message) {
    if (message.T === "reset") {
      this._clear();
      this._ticks.clear();
    }
    if (message.T !== "q") return;
    const { n } = message;
    if (this.first === 0) this.first = n;
    if (n > this.newest) this.newest = n;
    this.received += 1;
    this._bid = message.bs > 0 ? message.bp : NaN;
    this._ask = message.as > 0 ? message.ap : NaN;
    this._digits = digitsOf(message.ap ?? 0, digitsOf(message.bp ?? 0, this._digits ?? 2));
    this._seen = message.r / 1000;
    this._ticks.take(this._index, message, session.book.now());
  }

  /** Ticks since the first one that were never sent: exactly the holes in `n`. */
  get conflated() {
    return this.received === 0 ? 0 : this.newest - this.first + 1 - this.received;
  }

  paint(now, range) {
    const { _values: values } = this;
    const digits = this._digits ?? 2;
    setText(values.bid, price(this._bid, digits));
    setText(values.ask, price(this._ask, digits));
    setText(values.received, count(this.received));
    setText(values.conflated, count(this.conflated));
    setText(
      values.share,
      this.received ? `${figure((100 * this.received) / (this.received + this.conflated))} %` : "–",
    );
    setText(values.rate, figure(this._rate(now)));
    this._lane.draw(this._ticks, now, range);
  }

  /** Received a second, over up to the last five seconds. */
  _rate(now) {
    const last = this._recent.at(-1);
    if (!last || now - last.at >= 1000) {
      this._recent.push({ at: now, received: this.received });
      if (this._recent.length > 6) this._recent.shift();
    }
    const [oldest] = this._recent;
    return now > oldest.at ? ((this.received - oldest.received) * 1000) / (now - oldest.at) : NaN;
  }

  _showState() {
    const { state, code, reason } = this._feed.state;
    const why = [code, reason].filter(Boolean).join(", ");
    const [tone, text] = {
      connected: this._feed.source.state === "stale" ? ["bad", "stale"] : ["live", "live"],
      connecting: ["idle", "connecting"],
      disconnected: ["bad", `not live${why ? `: ${why}` : ""}`],
    }[state];
    setAttribute(this._state, "data-tone", tone);
    setText(this._state.lastChild, text);
  }

  close() {
    this._feed.close();
  }
}

function described({ interval_ms: interval, delivery }) {
  if (interval === 0) return delivery === "every" ? "every tick, at once" : "the latest, at once";
  const each = interval < 1000 ? `${interval} ms` : age(interval);
  return delivery === "every" ? `every tick, each ${each}` : `the latest, each ${each}`;
}
