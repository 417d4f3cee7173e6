/* Access: sign in where the engine asks for it, and what the key or token entitles to. */
import { announce, h, setText } from "./dom.js";
import { count, moment } from "./format.js";
import { session } from "./session.js";

export class AccessView {
  constructor(section) {
    section.classList.add("scroll");
    this._host = h("div", { class: "stack narrow" });
    section.append(
      h("div", { class: "page" }, h("div", { class: "page-head" }, h("h2", { text: "Access" })), this._host),
    );
    for (const type of ["engine", "access"]) session.on(type, () => this._update());
    session.on("second", () => this._expiry && setText(this._expiry, expiryText(session.engine?.access)));
  }

  show() {
    this._shownKey = undefined;
    this._update();
  }

  hide() {}

  _update() {
    const { engine, signedOut } = session;
    const key = JSON.stringify([
      engine?.auth,
      engine?.access,
      session.needsToken,
      signedOut,
      !engine && session.problem?.message,
    ]);
    if (key === this._shownKey) return;
    this._shownKey = key;
    this._expiry = null;
    this._host.replaceChildren(...this._content(engine));
  }

  _content(engine) {
    if (!engine)
      return [
        h(
          "div",
          { class: "panel empty" },
          h("p", {
            class: "empty-title",
            text: session.problem ? "The engine does not answer" : "Asking the engine…",
          }),
        ),
      ];
    if (engine.auth === "none") {
      return [this._open(engine)];
    }
    return session.needsToken ? [this._form(engine)] : [this._granted(engine)];
  }

  _open({ tiers, default_tier: first, alerts }) {
    return h(
      "section",
      { class: "panel", "aria-label": "Open" },
      h("header", {}, h("h3", { text: "Open to everybody who can reach it" })),
      h(
        "p",
        { class: "verdict" },
        "This engine runs without access control (",
        h("code", { text: 'auth.mode = "none"' }),
        "), so there is nothing to sign in to. ",
        h("code", { text: "docs/access.md" }),
        " shows how to ask for keys or tokens.",
      ),
      h(
        "dl",
        { class: "grants ruled" },
        fact("Tiers", tiers.map((one) => one.tier).join(", ")),
        fact("Without a choice", first),
        fact("Symbols", "all"),
        fact("Alerts", alerts ? "visible" : "off"),
      ),
    );
  }

  _form(engine) {
    const input = h("input", {
      id: "token",
      type: "password",
      required: true,
      autocomplete: "off",
      spellcheck: "false",
      "aria-describedby": "token-help token-problem",
    });
    const problem = h("p", {
      class: "notice",
      id: "token-problem",
      role: "alert",
      hidden: !session.signedOut,
      text: session.signedOut ? `Signed out: ${session.signedOut}.` : "",
    });
    const button = h("button", { type: "submit", class: "primary", text: "Sign in" });
    const submit = async (event) => {
      event.preventDefault();
      button.disabled = true;
      try {
        await session.signIn(input.value.trim());
        announce("Signed in");
        location.hash = "watch";
      } catch (error) {
        problem.hidden = false;
        setText(
          problem,
          error.status === 401 ? `Not accepted: ${error.message}.` : `Not signed in: ${error.message}.`,
        );
        button.disabled = false;
        input.select();
      }
    };
    return h(
      "form",
      { class: "panel prose sign-in", on: { submit } },
      h("h3", { text: engine.auth === "keys" ? "Sign in with a key" : "Sign in with a token" }),
      h(
        "label",
        { class: "field stack", for: "token" },
        h("span", { class: "label", text: engine.auth === "keys" ? "Key" : "Token" }),
        input,
      ),
      problem,
      button,
      h("p", {
        class: "muted",
        id: "token-help",
        text: `It stays in this tab until you close it or sign out, and is sent to this engine alone. ${engine.auth === "keys" ? "marketfeed keys add makes a key." : "marketfeed token makes a token; so does your identity provider."}`,
      }),
    );
  }

  _granted({ access, alerts }) {
    const more = access.more ? ` and ${count(access.more)} more` : "";
    const list = (names, none = "none") => (names.length ? names.join(", ") : none);
    this._expiry = h("dd", { class: "num", text: expiryText(access) });
    return h(
      "section",
      { class: "panel", "aria-label": "Signed in" },
      h(
        "header",
        {},
        h("h3", { text: `Signed in as ${access.sub}` }),
        h("button", {
          type: "button",
          class: "end",
          id: "sign-out",
          text: "Sign out",
          on: { click: () => this._signOut() },
        }),
      ),
      h(
        "dl",
        { class: "grants" },
        fact("Tenant", access.tenant || "none"),
        fact("Tiers", list(access.tiers)),
        fact("Channels", list(access.channels)),
        fact("Symbols", `${access.symbols.includes("*") ? "all" : list(access.symbols)}${more}`),
        fact(
          "Names in a subscription",
          access.max_symbols === null ? "no limit of its own" : count(access.max_symbols),
        ),
        fact("Consumers of alerts", access.consumers.includes("*") ? "any" : list(access.consumers)),
        fact(
          "May publish to",
          access.publish.includes("*") ? "everybody; may silence" : list(access.publish, "nobody"),
        ),
        fact("Alerts", alerts ? "visible" : "off, or not entitled"),
        fact("Expires", this._expiry),
      ),
    );
  }

  _signOut() {
    session.signOut();
    announce("Signed out");
  }
}

const fact = (name, value) =>
  h("div", {}, h("dt", { text: name }), typeof value === "string" ? h("dd", { text: value }) : value);

function expiryText(access) {
  if (!access) return "";
  if (access.expires === null) return "never";
  const left = access.expires / 1000 - session.book.now();
  if (left <= 0) return "now";
  const minutes = Math.floor(left / 60e3);
  const rest =
    minutes >= 60
      ? `${Math.floor(minutes / 60)} h ${minutes % 60} min`
      : `${minutes} min ${Math.floor(left / 1000) % 60} s`;
  return `${moment(access.expires / 1000 - session.book.offsetMs)}, in ${rest}`;
}
