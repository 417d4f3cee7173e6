/* What the alert log holds, the newest first, page by page. */
import { h, icon, setText } from "./dom.js";
import { api } from "./engine.js";
import { SEVERITIES } from "./episodes.js";
import { moment } from "./format.js";
import { session } from "./session.js";

const PAGE = 50;

export class AlertHistory {
  constructor() {
    this._severity = h(
      "select",
      { id: "log-severity" },
      h("option", { value: "", text: "any severity" }),
      ...SEVERITIES.map((one) =>
        h("option", { value: one, text: one === "critical" ? "critical" : `${one} and above` }),
      ),
    );
    this._rules = h("input", {
      id: "log-rules",
      placeholder: "jump, feed_*",
      autocomplete: "off",
      spellcheck: "false",
    });
    this._symbols = h("input", {
      id: "log-symbols",
      placeholder: "AAPL, BTC*",
      autocomplete: "off",
      spellcheck: "false",
    });
    this._body = h("tbody");
    this._note = h("p", { class: "muted", role: "status" });
    this._more = h("button", {
      type: "button",
      text: "Older",
      hidden: true,
      on: { click: () => this._load() },
    });
    this.element = h(
      "div",
      { class: "stack", hidden: true },
      h(
        "form",
        { class: "bar flat", on: { submit: (event) => this._search(event) } },
        h("label", { class: "field" }, h("span", { class: "label", text: "Severity" }), this._severity),
        h("label", { class: "field" }, h("span", { class: "label", text: "Rules" }), this._rules),
        h("label", { class: "field" }, h("span", { class: "label", text: "Symbols" }), this._symbols),
        h("button", { type: "submit" }, icon("search"), "Search"),
      ),
      h(
        "div",
        { class: "panel table-scroll", tabindex: "0", role: "group", "aria-label": "Alert log" },
        h(
          "table",
          { class: "figures log" },
          h("caption", { class: "sr", text: "Alerts of the log, the newest first" }),
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              ...["Time", "Severity", "State", "Rule", "Symbol", "Message"].map((text) =>
                h("th", { scope: "col", text }),
              ),
            ),
          ),
          this._body,
        ),
      ),
      h("div", { class: "bar flat" }, this._more, this._note),
    );
  }

  show() {
    this._restart();
  }

  _search(event) {
    event.preventDefault();
    this._restart();
  }

  _restart() {
    this._before = null;
    this._body.replaceChildren();
    this._more.hidden = true;
    this._load();
  }

  async _load() {
    const query = new URLSearchParams({ limit: String(PAGE) });
    if (this._before) query.set("before", this._before);
    if (this._severity.value) query.set("severity", this._severity.value);
    const list = (input) =>
      input.value
        .split(/[\s,]+/)
        .filter(Boolean)
        .join(",");
    if (list(this._rules)) query.set("alerts", list(this._rules));
    if (list(this._symbols)) query.set("symbols", list(this._symbols));
    const asked = (this._asked = Symbol("request"));
    setText(this._note, "Reading…");
    try {
      const { alerts } = await api(`/v1/alerts/log?${query}`);
      if (asked !== this._asked) return;
      this._body.append(...alerts.map(row));
      this._before = alerts.at(-1)?.id ?? this._before;
      this._more.hidden = alerts.length < PAGE;
      const shown = this._body.children.length;
      setText(
        this._note,
        shown === 0
          ? "The log has no such alert."
          : this._more.hidden
            ? `All ${shown} shown.`
            : `${shown} shown.`,
      );
    } catch (error) {
      if (asked === this._asked) setText(this._note, `The log cannot be read: ${error.message}.`);
    }
  }
}

function row(alert) {
  const at = alert.r / 1000 - session.book.offsetMs;
  return h(
    "tr",
    {},
    h("td", { class: "num", text: moment(at) }),
    h("td", { class: "log-severity", "data-severity": alert.sev }, h("i", { class: "mark" }), alert.sev),
    h("td", { text: alert.state }),
    h("td", { text: alert.rule }),
    h("td", { text: alert.S }),
    h("td", { class: "log-message", text: alert.msg }),
  );
}
