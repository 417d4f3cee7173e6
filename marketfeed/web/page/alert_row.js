/* One episode of alerts: a row of the live list. */
import { h, icon, setAttribute, setText } from "./dom.js";
import { isOpen } from "./episodes.js";
import { age, clock } from "./format.js";
import { session } from "./session.js";

/** `view` has `acknowledge(episode)` and `silence(episode)`. */
export class AlertRow {
  constructor(one, view) {
    this._one = one;
    this._state = h("span", { class: "alert-state num" });
    this._message = h("p", { class: "alert-message" });
    this._tries = h("span", { class: "muted num" });
    this._ack = h(
      "button",
      { type: "button", class: "ack", on: { click: () => view.acknowledge(one) } },
      icon("check"),
      "Acknowledge",
    );
    this._acked = h("span", { class: "acked muted" }, icon("check"), "acknowledged");
    const symbol =
      one.symbol && session.book.rows.has(one.symbol)
        ? h("a", { href: `#watch/${encodeURIComponent(one.symbol)}`, text: one.symbol })
        : h("span", { text: one.symbol });
    this.element = h(
      "li",
      { class: "alert" },
      h("time", { class: "num", text: clock((one.began || one.cleared) - session.book.offsetMs) }),
      h("span", { class: "alert-rule", text: one.rule }),
      h("span", { class: "alert-symbol" }, symbol),
      this._message,
      this._state,
      this._tries,
      h(
        "span",
        { class: "alert-actions" },
        this._ack,
        this._acked,
        one.notice
          ? null
          : h("button", {
              type: "button",
              class: "quiet",
              text: "Silence",
              "aria-label": `Silence ${one.rule} ${one.symbol}`,
              on: { click: () => view.silence(one) },
            }),
      ),
    );
    this._ack.setAttribute("aria-label", `Acknowledge ${one.rule} ${one.symbol}`);
  }

  paint() {
    const one = this._one;
    setText(this._message, one.message);
    setText(this._state, stateText(one));
    setAttribute(this.element, "data-open", isOpen(one) ? "" : null);
    setText(this._tries, one.tries > 1 && one.due.size > 0 ? `try ${one.tries}` : "");
    this._ack.hidden = one.due.size === 0;
    this._acked.hidden = one.due.size > 0 || one.acknowledged === 0;
  }
}

function stateText(one) {
  if (one.notice) return "notice";
  if (isOpen(one)) return `open ${age(Math.max(0, session.book.now() - one.began))}`;
  return one.began ? `cleared after ${age(Math.max(0, one.cleared - one.began))}` : "cleared";
}
