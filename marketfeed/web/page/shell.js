/* What frames all views: the state of the stream at the top, the banner while it is not live, and the bottom line. */
import { $, h, icon, setAttribute, setText } from "./dom.js";
import { age, clock, count, ms } from "./format.js";
import { session } from "./session.js";

const THEMES = ["auto", "light", "dark"];
const THEME_ICONS = { auto: "auto", light: "sun", dark: "moon" };

export class Shell {
  constructor() {
    this._ticks = 0;
    this._buildTop();
    this._buildFoot();
    session.on("second", (steps) => this._second(steps));
    for (const type of ["state", "engine", "access", "feed"]) session.on(type, () => this.update());
    this.update();
  }

  _buildTop() {
    this._pill = h(
      "span",
      { class: "pill", id: "state" },
      h("i", { class: "dot" }),
      h("span", { text: "Connecting" }),
    );
    this._tier = h("select", {
      id: "tier",
      "aria-label": "Tier of this page",
      on: { change: () => session.feed?.setTier(this._tier.value) },
    });
    this._theme = h("button", {
      type: "button",
      class: "icon-button",
      id: "theme",
      on: { click: () => this._nextTheme() },
    });
    this._showTheme();
    $("top-end").append(
      h("label", { class: "field tier" }, h("span", { class: "label", text: "Tier" }), this._tier),
      this._pill,
      this._theme,
    );
  }

  _nextTheme() {
    const theme = window.marketfeedTheme;
    theme.set(THEMES[(THEMES.indexOf(theme.get()) + 1) % THEMES.length]);
    this._showTheme();
  }

  _showTheme() {
    const now = window.marketfeedTheme.get();
    this._theme.replaceChildren(icon(THEME_ICONS[now]));
    this._theme.title = `Colours: ${now === "auto" ? "as the system" : now}`;
    this._theme.setAttribute("aria-label", this._theme.title);
  }

  _buildFoot() {
    const item = (id, label) => {
      const value = h("span", { class: "num", id: `foot-${id}`, text: "–" });
      $("foot").append(
        h("span", { class: `foot-item foot-${id}` }, h("span", { class: "label", text: label }), value),
      );
      return value;
    };
    this._rate = item("rate", "Ticks/s");
    this._symbols = item("symbols", "Symbols");
    this._latency = item("latency", "Latency p50 / p99");
    this._transport = item("transport", "Transport");
    this._feeds = item("feeds", "Feeds");
    this._version = item("version", "marketfeed");
  }

  _second(steps) {
    const { statistics, book, feed } = session;
    if (feed && statistics) {
      setText(this._rate, count(Math.round(Math.max(0, statistics.ticks - this._ticks) / steps)));
      this._ticks = statistics.ticks;
      const { latencyMs } = statistics;
      setText(this._latency, session.live && latencyMs?.count ? `${ms(latencyMs.p50)} / ${ms(latencyMs.p99)}` : "–");
    }
    setText(this._symbols, count(book.count));
    this.update();
  }

  update() {
    this._showState();
    this._showTiers();
    this._showBanner();
    const { engine, feed } = session;
    setText(this._transport, feed ? (TRANSPORTS[feed.transport.name] ?? feed.transport.name) : "–");
    setText(this._version, engine?.version ?? "–");
    const feeds = (session.live && engine?.feeds) || []; // what an engine that is gone said may be over
    const live = feeds.filter((one) => one.state === "live").length;
    setText(this._feeds, feeds.length ? `${live} of ${feeds.length} live` : "–");
    setAttribute(this._feeds, "data-tone", feeds.length && live < feeds.length ? "bad" : null);
  }

  _showState() {
    const [tone, text] = stateOf(session);
    this._pill.dataset.tone = tone;
    setText(this._pill.lastChild, text);
    setAttribute(document.documentElement, "data-stream", tone);
  }

  _showTiers() {
    const names = session.tiers.map((one) => one.tier);
    const key = names.join(" ");
    if (key !== this._tierKey) {
      this._tierKey = key;
      this._tier.replaceChildren(...names.map((name) => h("option", { value: name, text: name })));
    }
    this._tier.disabled = !session.live;
    const tier = session.feed?.tier ?? session.engine?.default_tier;
    if (tier && this._tier.value !== tier && document.activeElement !== this._tier) this._tier.value = tier;
  }

  _showBanner() {
    const found = bannerOf(session);
    const banner = $("banner");
    const text = found ? `${found.title} ${found.text}` : "";
    if (banner.hidden !== !found) banner.hidden = !found;
    if (!found) return;
    setAttribute(banner, "data-tone", found.tone);
    if (this._bannerText === text) return;
    this._bannerText = text;
    banner.replaceChildren(h("strong", { text: found.title }), h("span", { text: found.text }));
  }
}

export const TRANSPORTS = {
  websocket: "WebSocket",
  events: "Events",
  poll: "Long poll",
  quotes: "Short poll",
};

/** Tone and word for the state of the stream. */
export function stateOf({ state, stale, lagging, needsToken, engine, problem }) {
  if (needsToken) return ["idle", "Signed out"];
  if (!engine && problem) return ["bad", "No engine"];
  if (stale) return ["bad", "Stale"];
  if (state.state === "connected") return lagging ? ["warn", "Behind"] : ["live", "Live"];
  return state.state === "disconnected" ? ["bad", "Not live"] : ["idle", "Connecting"];
}

/** What the whole page has to say, or null while it is live. */
function bannerOf(session) {
  const { state, engine, problem, needsToken, lagging, book } = session;
  if (needsToken) return null;
  if (!engine)
    return problem
      ? {
          tone: "bad",
          title: "Not live.",
          text: "The engine does not answer; the page tries again every few seconds.",
        }
      : null;
  if (state.state !== "connected") return offlineBanner(state, book);
  if (session.stale) return staleBanner(session);
  if (lagging)
    return {
      tone: "warn",
      title: "Behind.",
      text: "This session gets only the latest quote of each symbol until it has caught up.",
    };
  const down = (engine.feeds ?? []).filter((feed) =>
    ["down", "failed", "stale", "done"].includes(feed.state),
  );
  return down.length ? feedBanner(down, engine.feeds.length, book) : null;
}

function offlineBanner(state, book) {
  if (state.state === "connecting" && book.ticks === 0) return null;
  const why = [state.code, state.reason].filter(Boolean).join(", ");
  const newest = book.newestMs;
  const from = newest ? ` Prices are from ${clock(newest - book.offsetMs, 0)}.` : "";
  const permanent = state.code >= 4500 && state.code < 5000;
  const next = permanent ? " The engine asked not to reconnect." : " Reconnecting.";
  return {
    tone: "bad",
    title: "Not live.",
    text: `The connection ${state.state === "connecting" ? "is being made again" : "was lost"}${why ? ` (${why})` : ""}.${from}${next}`,
  };
}

function staleBanner({ feed, book }) {
  const { state, t } = feed.source;
  const since = state === "stale" && t ? ` since ${clock(t / 1000 - book.offsetMs, 0)}` : "";
  return {
    tone: "bad",
    title: "Stale.",
    text: `The source of the data is silent${since}: prices are the last known.`,
  };
}

const FEED_WORDS = { down: "is down", failed: "has failed", stale: "is stale", done: "has ended" };

function feedBanner(down, total, book) {
  const [first] = down;
  const since = first.since ? ` for ${age(Math.max(0, book.now() - first.since / 1000))}` : "";
  const more =
    down.length > 1 ? ` So ${down.length === 2 ? "is" : "are"} ${down.length - 1} more of ${total}.` : "";
  const why = first.reason ? ` (${first.reason})` : "";
  const tone = down.length === total ? "bad" : "warn";
  return {
    tone,
    title: `Feed ${first.feed} ${FEED_WORDS[first.state]}${since}${why}.`,
    text: `Its rows show their last prices.${more}`,
  };
}
