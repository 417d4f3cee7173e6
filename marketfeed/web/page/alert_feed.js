/* The page's alerts: a live view from the start, what the log held before, and a durable consumer if a person is one. */
import { connect } from "/marketfeed.js";
import { $, setAttribute, setText } from "./dom.js";
import { api, credentials } from "./engine.js";
import { Episodes } from "./episodes.js";
import { session } from "./session.js";

const NEWEST = 100; // alerts of the log at the start

class AlertFeed {
  constructor() {
    this.episodes = new Episodes();
    this.consumer = null; // {name, feed, alerts, problem}
    this.problem = null; // why the log cannot be read
    session.on("engine", () => this._begin());
    session.on("state", ({ state }) => this._resumed(state));
    session.on("feed", () => this._end());
    session.on("second", () => this._badge());
  }

  /** Whether the engine has alerts and this session may see them; null while that is not known. */
  get on() {
    return session.engine?.tiers ? session.engine.alerts : null;
  }

  _begin() {
    if (!this.on || this._live || !session.feed) return;
    this._live = session.feed.alerts({ patterns: ["*"] }, (alert) => this._take(alert, false));
    this._readLog();
  }

  /** Take what a subscription brings: alerts, and messages about the stream between them. */
  _take(message, ack) {
    if (message.T === "a") this.episodes.add({ ...plain(message), ack });
  }

  /** A live view gets nothing of what came while it was away, so the log is read again. */
  _resumed(state) {
    if (state === "connected" && this._away && this._live) this._readLog();
    this._away = state === "disconnected" || (this._away && state !== "connected");
  }

  async _readLog() {
    try {
      const { alerts } = await api(`/v1/alerts/log?limit=${NEWEST}`);
      for (const alert of alerts.toReversed()) this.episodes.add({ ...alert, ack: false });
      this.problem = null;
    } catch (error) {
      this.problem = error.message;
      this.episodes.version += 1;
    }
  }

  _end() {
    this._live = null;
    this.leave();
    this.episodes = new Episodes();
  }

  /** Take alerts as the durable consumer `name`, from `start` ("all" or "now") if it is new. */
  become(name, start, changed) {
    this.leave();
    const feed = connect("/", { ...credentials(), share: false });
    const consumer = { name, feed, problem: null };
    consumer.alerts = feed.alerts({ patterns: ["*"], consumer: name, start }, (alert) =>
      this._take(alert, true),
    );
    const fault = (problem) => {
      consumer.problem = problem;
      changed();
    };
    feed.on("error", (error) => fault(error.msg));
    feed.on("state", (state) =>
      fault(state.state === "disconnected" ? state.reason || `code ${state.code}` : null),
    );
    this.consumer = consumer;
    changed();
  }

  leave() {
    this.consumer?.feed.close();
    this.consumer = null;
    this.episodes.release();
  }

  /** Acknowledge; resolves when that is on the engine's disk. */
  async acknowledge(ids) {
    await this.consumer.alerts.ack(ids);
    this.episodes.settle(ids);
  }

  _badge() {
    const { open } = this.episodes;
    const badge = $("alert-count");
    setAttribute(badge, "data-none", open === 0 ? "" : null);
    setText(badge, open > 99 ? "99+" : String(open));
    badge.title = `${open} open alerts`;
  }
}

const plain = ({ id, key, rule, S, sev, state, msg, r, try: tries, suppressed }) => ({
  id,
  key,
  rule,
  S,
  sev,
  state,
  msg,
  r,
  try: tries,
  suppressed,
});

export const alertFeed = new AlertFeed();
