/* Silences: alerts that nobody should be told of for a while. */
import { announce, h, setText } from "./dom.js";
import { api } from "./engine.js";
import { moment } from "./format.js";
import { session } from "./session.js";

const LENGTHS = [
  ["15 minutes", 15],
  ["1 hour", 60],
  ["4 hours", 240],
  ["1 day", 1440],
  ["1 week", 10080],
];

export class Silences {
  constructor() {
    const input = (id, placeholder, required) =>
      h("input", { id, placeholder, required, autocomplete: "off", maxlength: 200 });
    this._rules = input("silence-rules", "all rules", false);
    this._symbols = input("silence-symbols", "all symbols", false);
    this._by = input("silence-by", "ann", true);
    this._comment = input("silence-comment", "venue upgrade", true);
    this._length = h(
      "select",
      { id: "silence-length" },
      ...LENGTHS.map(([text, minutes]) => h("option", { value: minutes, text })),
    );
    this._note = h("p", { class: "muted", role: "status" });
    this._body = h("tbody");
    const field = (text, control) =>
      h("label", { class: "field stack" }, h("span", { class: "label", text }), control);
    this.element = h(
      "div",
      { class: "stack", hidden: true },
      h(
        "form",
        { class: "panel form-row", on: { submit: (event) => this._create(event) } },
        field("Rules", this._rules),
        field("Symbols", this._symbols),
        field("For", this._length),
        field("By", this._by),
        field("Comment", this._comment),
        h("button", { type: "submit", class: "primary", text: "Silence" }),
      ),
      this._note,
      h(
        "div",
        { class: "panel table-scroll", tabindex: "0", role: "group", "aria-label": "Silences" },
        h(
          "table",
          { class: "figures log" },
          h("caption", { class: "sr", text: "Silences" }),
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              ...["State", "Rules", "Symbols", "From", "Until", "By", "Comment"].map((text) =>
                h("th", { scope: "col", text }),
              ),
              h("td"),
            ),
          ),
          this._body,
        ),
      ),
    );
  }

  /** Fill in what an alert is about. */
  prefill(rule, symbol) {
    this._rules.value = rule;
    this._symbols.value = symbol;
  }

  async show() {
    try {
      const { silences } = await api("/v1/alerts/silences");
      this._body.replaceChildren(...silences.map((one) => this._row(one)));
      setText(
        this._note,
        silences.length
          ? ""
          : "No silence. Names and prefixes such as BTC* may be given, separated by commas.",
      );
    } catch (error) {
      setText(this._note, `Silences cannot be read: ${error.message}.`);
    }
  }

  _row(one) {
    const end =
      one.state === "expired"
        ? null
        : h("button", {
            type: "button",
            class: "danger",
            text: "End",
            "aria-label": `End the silence of ${one.rules.join(", ")} by ${one.by}`,
            on: { click: () => this._end(one) },
          });
    const at = (us) => h("td", { class: "num", text: moment(us / 1000 - session.book.offsetMs) });
    return h(
      "tr",
      { "data-state": one.state },
      h("td", { text: one.state }),
      h("td", { text: one.rules.join(", ") }),
      h("td", { text: one.symbols.join(", ") }),
      at(one.starts),
      at(one.ends),
      h("td", { text: one.by }),
      h("td", { class: "log-message", text: one.comment }),
      h("td", {}, end),
    );
  }

  async _create(event) {
    event.preventDefault();
    const list = (input) => input.value.split(/[\s,]+/).filter(Boolean);
    const body = {
      ends: Math.round((session.book.now() + this._length.value * 60e3) * 1000),
      by: this._by.value,
      comment: this._comment.value,
    };
    if (list(this._rules).length) body.rules = list(this._rules);
    if (list(this._symbols).length) body.symbols = list(this._symbols);
    await this._do(() => api("/v1/alerts/silences", { method: "POST", body }), "Silenced");
  }

  async _end(one) {
    const by = this._by.value || one.by;
    await this._do(
      () => api(`/v1/alerts/silences?${new URLSearchParams({ id: one.id, by })}`, { method: "DELETE" }),
      "The silence has ended",
    );
  }

  async _do(work, done) {
    try {
      await work();
      announce(done);
      await this.show();
    } catch (error) {
      setText(this._note, `Refused: ${error.message}.`);
    }
  }
}
