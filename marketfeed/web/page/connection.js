/* Connection: how this page gets its data, and what happens when the connection is cut. */
import { announce, h, icon, setAttribute, setText } from "./dom.js";
import { age, bytes, change, clock, count, ms, NONE } from "./format.js";
import { journal } from "./journal.js";
import { NodesPanel } from "./nodes.js";
import { session } from "./session.js";
import { stateOf, TRANSPORTS } from "./shell.js";

const CHOICES = [
  ["auto", "Automatic", "the first that works"],
  ["websocket", "WebSocket", "both directions, text or binary"],
  ["events", "Events", "Server-Sent Events over HTTP"],
  ["poll", "Long poll", "everything since the last answer"],
  ["quotes", "Short poll", "once a second"],
];
const FACTS = [
  "State",
  "Source",
  "Node",
  "Site",
  "Load",
  "Transport",
  "Tier",
  "Encoding",
  "Session",
  "Epoch",
  "Cursor",
  "Shared",
  "Round trip",
  "Engine's clock",
  "Received",
  "Messages",
];
const COUNTS = ["Reconnects", "Gaps", "Lost", "Lags", "Resets", "Duplicates"];
const PROOF = ["Offline", "Before the cut", "After it", "Holes", "Symbols seen again", "Ticks since"];
const PAINT_MS = 250;
const LINES = 40;

export class ConnectionView {
  constructor(section) {
    section.classList.add("scroll");
    this._facts = new Map();
    const facts = (names, more = "") =>
      h(
        "dl",
        { class: `facts wide ${more}` },
        ...names.map((name) => {
          const value = h("dd", {
            class: "num",
            id: `fact-${name.toLowerCase().replace(/[^a-z]+/g, "-")}`,
            text: NONE,
          });
          this._facts.set(name, value);
          return h("div", {}, h("dt", { text: name }), value);
        }),
      );
    this._choices = h(
      "div",
      { class: "choices", role: "group", "aria-label": "Transport" },
      ...CHOICES.map(([name, label, means]) =>
        h(
          "button",
          {
            type: "button",
            class: "choice",
            "data-transport": name,
            "aria-pressed": "false",
            on: { click: () => this._use(name, label) },
          },
          h("strong", { text: label }),
          h("span", { class: "muted", text: means }),
        ),
      ),
    );
    this._pull = h(
      "button",
      { type: "button", class: "primary", id: "pull", on: { click: () => this._cut() } },
      icon("plug"),
      "Pull the plug",
    );
    this._verdict = h("p", {
      class: "verdict",
      id: "verdict",
      role: "status",
      text: "Cuts this page's connection. It comes back by itself and continues after the last tick that it got.",
    });
    this._proof = facts(PROOF);
    this._proof.hidden = true;
    this._log = h("ol", { class: "journal num" });
    this._nodes = new NodesPanel();
    section.append(
      h(
        "div",
        { class: "page" },
        h("div", { class: "page-head" }, h("h2", { text: "Connection" })),
        h(
          "section",
          { class: "panel", "aria-label": "Now" },
          facts(FACTS),
          h("header", { class: "inner" }, h("h3", { text: "Since this page was opened" })),
          facts(COUNTS, "counts"),
        ),
        this._nodes.element,
        h(
          "section",
          { class: "panel", "aria-label": "Transport" },
          h(
            "header",
            {},
            h("h3", { text: "Transport" }),
            h("p", {
              class: "muted",
              text: "Each carries the same messages and resumes from the same cursor.",
            }),
          ),
          this._choices,
        ),
        h(
          "section",
          { class: "panel", "aria-label": "Pull the plug" },
          h(
            "header",
            {},
            h("h3", { text: "Resume without a hole" }),
            h("span", { class: "end" }, this._pull),
          ),
          this._verdict,
          this._proof,
        ),
        h(
          "section",
          { class: "panel", "aria-label": "Journal" },
          h("header", {}, h("h3", { text: "Journal" })),
          h(
            "div",
            { class: "journal-box", tabindex: "0", role: "group", "aria-label": "Journal, the newest first" },
            this._log,
          ),
        ),
      ),
    );
  }

  show() {
    clearInterval(this._timer);
    this._timer = setInterval(() => this._paint(), PAINT_MS);
    this._paint();
  }

  hide() {
    clearInterval(this._timer);
  }

  _use(name, label) {
    session.feed?.use(name);
    this._wanted = name;
    announce(`Transport: ${label}`);
    this._paint();
  }

  _cut() {
    if (!session.live) return;
    journal.pull();
    this._paint();
  }

  _set(name, text, tone = null) {
    const element = this._facts.get(name);
    setText(element, text);
    setAttribute(element, "data-tone", tone);
  }

  _paint() {
    const { feed } = session;
    this._pull.disabled = !session.live;
    for (const button of this._choices.children) {
      button.disabled = !feed;
      setAttribute(button, "aria-pressed", String(button.dataset.transport === (this._wanted ?? "auto")));
      setAttribute(button, "data-used", feed && feed.transport.name === button.dataset.transport ? "" : null);
    }
    this._paintFacts(feed);
    this._paintNode(feed);
    this._nodes.paint(session);
    this._paintProof();
    this._paintJournal();
  }

  _paintFacts(feed) {
    const { state, engine } = session;
    const [tone, word] = stateOf(session);
    const since = state.since && !session.stale ? ` for ${age(Math.max(0, Date.now() - state.since))}` : "";
    this._set("State", word + since, tone);
    this._set("Epoch", engine?.epoch ?? NONE);
    this._set("Session", journal.sessionId ?? NONE);
    if (!feed) return;
    const statistics = feed.statistics();
    const { name, why } = feed.transport;
    this._set("Transport", name ? `${TRANSPORTS[name] ?? name}: ${why}` : NONE);
    this._set("Tier", feed.tier ?? NONE);
    this._set("Encoding", name === "websocket" ? feed.encoding : "json");
    this._set("Cursor", feed.cursor ?? NONE);
    this._set("Shared", SHARED[statistics.shared] ?? statistics.shared);
    this._set("Round trip", ms(statistics.roundTripMs));
    this._set(
      "Engine's clock",
      Math.abs(statistics.clockOffsetMs) < 1 ? "as this one's" : `${change(statistics.clockOffsetMs, 0)} ms`,
    );
    this._set("Received", bytes(statistics.bytes));
    this._set("Messages", count(statistics.messages));
    for (const field of COUNTS)
      this._set(
        field,
        count(statistics[field.toLowerCase()] ?? 0),
        field === "Lost" && statistics.lost > 0 ? "warn" : null,
      );
  }

  _paintNode(feed) {
    const { stale, node } = session;
    const since = stale && feed.source.t ? ` for ${age(Math.max(0, session.book.now() - feed.source.t / 1000))}` : "";
    const word = stale ? `stale${since}` : "live";
    this._set("Source", session.live ? word : NONE, stale ? "bad" : null);
    this._set("Node", node?.url ?? location.origin);
    this._set("Site", node?.site || NONE);
    this._set("Load", node ? `${count(node.sessions)} of ${count(node.capacity)}` : NONE);
  }

  _paintProof() {
    const { cut } = journal;
    this._proof.hidden = !cut;
    if (!cut) return;
    const { book, feed } = session;
    cut.update(book);
    const resumed = cut.resumedAt > 0;
    this._set("Offline", resumed ? ms(cut.resumedAt - cut.at) : `${age(Date.now() - cut.at)} so far`);
    this._set("Before the cut", `${cut.name} n ${count(cut.before)}`);
    this._set("After it", cut.after ? `${cut.name} n ${count(cut.after)}` : "waiting");
    this._set("Holes", resumed ? count(cut.holes) : NONE, resumed && cut.holes > 0 ? "warn" : null);
    this._set("Symbols seen again", `${count(cut.symbols)} of ${count(cut.quotes.length)}`);
    this._set("Ticks since", count(cut.ticks));
    const every = session.tiers.find((one) => one.tier === feed?.tier)?.delivery === "every";
    const [text, tone] = verdictOf(cut, every);
    setText(this._verdict, text);
    setAttribute(this._verdict, "data-tone", tone);
  }

  _paintJournal() {
    if (journal.version === this._version) return;
    this._version = journal.version;
    this._log.replaceChildren(
      ...journal.entries
        .slice(0, LINES)
        .map(({ at, text, tone, times }) =>
          h(
            "li",
            { "data-tone": tone },
            h("time", { class: "muted", text: clock(at) }),
            h("span", { text: times > 1 ? `${text} (${count(times)} times)` : text }),
          ),
        ),
    );
  }
}

const SHARED = {
  worker: "one stream for all tabs, by a SharedWorker",
  locks: "one stream for all tabs, by Web Locks",
  none: "own stream",
};

function verdictOf(cut, every) {
  if (!cut.resumedAt || !cut.after) return ["The connection is cut; waiting for it to come back.", "idle"];
  if (cut.resets > 0)
    return [
      "Some symbols were reset: more was missed than the engine keeps. They continued from a snapshot.",
      "warn",
    ];
  if (!every && cut.holes > 0)
    return [
      `${count(cut.holes)} ticks are missing between the numbers: this tier leaves ticks out. On one that sends every tick there are none.`,
      "idle",
    ];
  if (cut.holes > 0) return [`${count(cut.holes)} ticks are missing.`, "bad"];
  return [
    `Nothing is missing: each of the ${count(cut.symbols)} symbols that ticked since continued with its next number.`,
    "live",
  ];
}
