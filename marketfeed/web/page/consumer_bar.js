/* Who acknowledges alerts: a durable consumer that a person names, and how many wait for it. */
import { alertFeed } from "./alert_feed.js";
import { announce, h, icon, setText } from "./dom.js";
import { count } from "./format.js";

export class ConsumerBar {
  /** `changed()` is called when there is something to show. */
  constructor(changed) {
    this._changed = changed;
    this._build();
  }

  _build() {
    this._name = h("input", {
      id: "consumer",
      maxlength: 64,
      pattern: "[!-~]+",
      required: true,
      placeholder: "desk-1",
      autocomplete: "off",
      spellcheck: "false",
    });
    this._start = h(
      "select",
      { id: "consumer-start" },
      h("option", { value: "now", text: "from now on" }),
      h("option", { value: "all", text: "all in the log" }),
    );
    this._begin = h(
      "form",
      { class: "consumer", on: { submit: (event) => this._become(event) } },
      h(
        "label",
        { class: "field" },
        h("span", { class: "label", text: "Acknowledge as consumer" }),
        this._name,
      ),
      h("label", { class: "field" }, h("span", { class: "label", text: "If it is new" }), this._start),
      h("button", { type: "submit", text: "Take alerts" }),
      h("p", {
        class: "muted hint",
        text: "A consumer keeps every alert until it is acknowledged, over reconnects and restarts.",
      }),
    );
    this._as = h("strong", { id: "acting-as" });
    this._due = h("span", { class: "num", id: "due" });
    this._all = h(
      "button",
      { type: "button", id: "ack-all", on: { click: () => this.acknowledge(alertFeed.episodes.due()) } },
      icon("check"),
      "Acknowledge all",
    );
    this._active = h(
      "div",
      { class: "consumer", hidden: true },
      h("span", {}, "Acknowledging as ", this._as),
      this._due,
      this._all,
      h("button", { type: "button", class: "quiet", text: "Stop", on: { click: () => this._leave() } }),
    );
    this._fault = h("p", { class: "notice", role: "status", hidden: true });
    this.element = h("div", { class: "panel consumer-bar" }, this._begin, this._active, this._fault);
  }

  _become(event) {
    event.preventDefault();
    alertFeed.become(this._name.value.trim(), this._start.value, () => this.update());
    announce(`Acknowledging as ${this._name.value}`);
  }

  _leave() {
    alertFeed.leave();
    this.update();
  }

  /** Show who acknowledges now. */
  update() {
    const { consumer } = alertFeed;
    this._begin.hidden = consumer !== null;
    this._active.hidden = consumer === null;
    this._fault.hidden = !consumer?.problem;
    if (consumer) setText(this._as, consumer.name);
    setText(this._fault, consumer?.problem ?? "");
    this._changed();
  }

  /** Acknowledge alerts, or say why that failed. */
  async acknowledge(ids) {
    if (ids.length === 0) return;
    try {
      await alertFeed.acknowledge(ids);
      announce(`${ids.length} acknowledged`);
      this._fault.hidden = true;
    } catch (error) {
      this._fault.hidden = false;
      setText(this._fault, `Not acknowledged: ${error.message}. They stay due.`);
    }
    this._changed();
  }

  /** Show how many alerts wait. */
  paint() {
    const due = alertFeed.episodes.due().length;
    setText(this._due, `${count(due)} unacknowledged`);
    this._all.disabled = due === 0;
  }
}
