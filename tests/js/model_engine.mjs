// A model of the engine's WebSocket, in memory: subscribe, unsubscribe, resume, snapshots, resets; cut at any moment.

export const random = (seed) => () => {
  // mulberry32
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};

const covers = (names, S) => names.some((n) => (n.endsWith("*") ? S.startsWith(n.slice(0, -1)) : n === S));
const LETTERS = { quotes: "q", trades: "t" };

export class ModelEngine {
  constructor(chance, symbols) {
    this.chance = chance;
    this.symbols = symbols;
    this.sockets = new Set();
    this.begin();
    const engine = this;
    this.WebSocket = class {
      constructor() {
        this.readyState = 0;
        this.names = { quotes: [], trades: [] };
        this.queue = []; // what was sent and has not arrived
        engine.sockets.add(this);
        this.put([{ T: "success", msg: "connected", protocol: 1, epoch: engine.epoch, session: "s" }]);
      }
      put(messages) {
        if (messages.length) this.queue.push(JSON.stringify(messages));
      }
      send(text) {
        engine.request(this, JSON.parse(text));
      }
      close() {
        this.readyState = 3;
        engine.sockets.delete(this);
      }
    };
  }

  begin() {
    this.epoch = Math.floor(this.chance() * 1e9).toString(36);
    this.g = 0;
    this.log = []; // of all ticks; `kept` says from where on the rings hold them
    this.kept = 0;
    this.counts = new Map();
  }

  restart() {
    for (const socket of [...this.sockets]) this.cut(socket);
    this.begin();
  }

  overwrite() {
    this.kept = this.log.length;
  }

  tick() {
    const channel = this.chance() < 0.7 ? "quotes" : "trades";
    const S = this.symbols[Math.floor(this.chance() * this.symbols.length)];
    const key = LETTERS[channel] + S;
    const n = (this.counts.get(key) ?? 0) + 1;
    this.counts.set(key, n);
    const tick = { T: LETTERS[channel], S, n, g: ++this.g, r: 1 };
    this.log.push(tick);
    for (const socket of this.sockets) if (covers(socket.names[channel], S)) socket.put([tick]);
  }

  request(socket, { action, id, quotes = [], trades = [], after, tier, t }) {
    if (action === "ping") return socket.put([{ T: "pong", t, id }]);
    const asked = { quotes, trades };
    const answer = { T: "subscription", tier: tier ?? "vip", encoding: "json", alerts: [], id };
    const held = structuredClone(socket.names);
    const added = [];
    for (const channel of ["quotes", "trades"]) {
      if (action === "unsubscribe") {
        socket.names[channel] = held[channel].filter((name) => !asked[channel].includes(name));
        continue;
      }
      socket.names[channel] = [...new Set([...held[channel], ...asked[channel]])];
      for (const S of this.symbols) {
        if (covers(asked[channel], S) && !covers(held[channel], S)) added.push(LETTERS[channel] + S);
      }
    }
    Object.assign(answer, socket.names);
    let ticks = [];
    if (after) {
      const [epoch, from] = [after.split(":")[0], Number(after.split(":")[1])];
      const foreign = epoch !== this.epoch || from > this.g;
      const missed = this.log.filter((m, i) => m.g > from && i < this.kept && added.includes(m.T + m.S));
      const lost = new Set(missed.map((m) => m.S));
      const known = new Set(added.map((key) => key.slice(1)).filter((S) => this.has(S)));
      const unknown = [...quotes, ...trades].filter((name) => !this.symbols.some((S) => covers([name], S) && this.has(S)));
      answer.reset = foreign ? [...new Set([...known, ...unknown])].sort() : [...lost].sort();
      answer.resumed = !answer.reset.length;
      ticks = added
        .flatMap((key) =>
          foreign || lost.has(key.slice(1))
            ? this.snapshot(key)
            : this.log.filter((m) => m.T + m.S === key && m.g > from),
        )
        .sort((a, b) => a.g - b.g);
    } else ticks = added.flatMap((key) => this.snapshot(key));
    socket.put([answer]);
    // Several frames, so that a cut may come between them.
    while (ticks.length) socket.put(ticks.splice(0, 1 + Math.floor(this.chance() * 4)));
    if (quotes.length + trades.length && action === "subscribe") {
      socket.put([{ T: "synced", cursor: `${this.epoch}:${this.g}`, id }]);
    }
  }

  has(S) {
    return this.counts.has(`q${S}`) || this.counts.has(`t${S}`);
  }

  snapshot(key) {
    const last = this.log.findLast((m) => m.T + m.S === key);
    return last ? [{ ...last, snap: 1 }] : [];
  }

  // Let `count` frames arrive at one socket.
  deliver(socket, count) {
    socket.readyState = 1;
    while (count-- > 0 && socket.queue.length && this.sockets.has(socket)) {
      socket.onmessage?.({ data: socket.queue.shift() });
    }
  }

  cut(socket) {
    this.sockets.delete(socket);
    socket.readyState = 3;
    socket.onclose?.({ code: 1006, reason: "" });
  }
}
