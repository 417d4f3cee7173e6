/** @import * as I from "./internal.js" */

export const VERSION = "0.1.0";

const CHANNELS = Object({ q: "quotes", t: "trades", a: "alerts" });
const HANDSHAKE_MS = 5000;
const BEAT_MS = 10000;
const CLIMB_MS = 60000;
const WHOLE = 9e5;

const none = /** @type {any} */ (undefined);
const scope = /** @type {any} */ (globalThis);
const clock = () => performance.now();
/** @type {I.Failure} */
const failure = (code, message, retryMs) => Object.assign(new Error(message), { code, retryMs });
const wait = (ms = none) => new Promise((resolve) => setTimeout(resolve, ms));

/** @type {I.Matcher} */
const matcher = (names) => {
	const all = new Set(names), prefixes = [...all].filter((name) => name.endsWith("*"));
	return (key) => all.has(key) || prefixes.some((name) => key.startsWith(name.slice(0, -1)));
};

/** @type {I.Lists} */
const lists = (keys) => {
	const lists = Object({ quotes: [], trades: [], alerts: [] });
	for (const key of keys) lists[CHANNELS[key[0]]].push(key.slice(1));
	return lists;
};

/** @type {I.KeysOf} */
const keysOf = ({ quotes = [], trades = [] }) => [...quotes.map((name) => "q" + name), ...trades.map((name) => "t" + name)];

/** @type {I.Query} */
const query = (fields) => {
	const query = new URLSearchParams();
	for (const [name, value] of Object.entries(fields)) {
		const text = `${value ?? ""}`;
		if (text) query.set(name, encodeURIComponent(text)[2500] ? "*" : text);
	}
	return `${query}`;
};

/** @type {I.Guard} */
const guard = (listener, value) => {
	try {
		listener(value);
	} catch (error) {
		console.error(error);
	}
};

/** @type {I.Reads} */
const [low, unsigned, price, size, micros] = [
	({ view, at }, offset) => view.getUint32(at + offset, true),
	({ view, at }, offset) => Number(view.getBigUint64(at + offset, true)),
	({ view, at }, offset) => Number(view.getBigInt64(at + offset, true)) / 1e9,
	({ view, at }, offset) => view.getFloat64(at + offset, true),
	({ view, at }, offset) => Number(view.getBigUint64(at + offset, true) / 1000n),
];

class Tick {
	constructor(view = none, at = 0, S = "") {
		this.view = view;
		this.at = at;
		this.S = S;
	}
	get t() { return micros(this, 0); }
	get r() { return micros(this, 8); }
	get g() { return unsigned(this, 16); }
	get n() { return low(this, 56); }
	get snap() { return this.view.getUint8(this.at + 63) & 1 || none; }
	toJSON() {
		const all = Object();
		for (const key of "T S bp bs ap as p s d i c t r n g snap".split(" ")) if (Object(this)[key] !== none) all[key] = Object(this)[key];
		return all;
	}
	keep() {
		this.view = new DataView(this.view.buffer.slice(this.at, this.at + 64));
		this.at = 0;
	}
}

class Quote extends Tick {
	get T() { return "q"; }
	get bp() { return this.bs ? price(this, 24) : null; }
	get ap() { return this.as ? price(this, 32) : null; }
	get bs() { return size(this, 40); }
	get as() { return size(this, 48); }
}

class Trade extends Tick {
	get T() { return "t"; }
	get p() { return price(this, 24); }
	get i() { return unsigned(this, 32); }
	get s() { return size(this, 40); }
	get d() { return String.fromCharCode(this.view.getUint8(this.at + 48)); }
	get c() {
		const codes = new Uint8Array(this.view.buffer, this.at + 50, 4).filter(Boolean);
		return codes[0] && [...String.fromCharCode(...codes)];
	}
}

/** @type {I.Decode} */
const decode = (buffer, names) => {
	if (typeof buffer === "string") return JSON.parse(buffer);
	const view = new DataView(buffer), messages = [];
	for (let at = 0, end; at < buffer.byteLength; at = end) {
		if (view.getUint8(at) !== 1) throw failure(1002, "frame version");
		const kind = view.getUint8(at + 1);
		const start = at + 16;
		end = start + view.getUint32(at + 4, true);
		const json = () => JSON.parse(new TextDecoder().decode(buffer.slice(start, end)));
		if (kind === 1) for (const [name, id] of Object.entries(json())) names[id] = name;
		else if (kind === 4) messages.push(...json());
		else if (kind === 5) messages.push({ T: "heartbeat", t: micros({ view, at }, 8) });
		else if (kind < 4) {
			for (let o = start; o < end; o += 64) {
				const name = names[view.getUint16(o + 60, true)];
				if (kind === 2) messages.push(new Quote(view, o, name));
				else if (!view.getUint8(o + 49)) messages.push(new Trade(view, o, name));
			}
		}
	}
	return messages;
};

/** @type {I.MakeBook} */
const makeBook = (emit) => {
	const slots = Object({ q: new Map(), t: new Map() });
	let names = Object(lists([])), tiers = Array(), epoch = "", lagging = false, partial = true, renewed = false;

	/** @type {I.Book} */
	const book = {
		slots,
		duplicates: 0,

		take(m) {
			const { T } = m;
			if (slots[T]) return book.tick(m);
			if (T === "error" && m.id > 0) return;
			if (T === "gap" && slots[m.channel[0]]) {
				const slot = book.slot(m.channel[0], m.S, m.n - 2);
				if (((m.n - slot.n) | 0) <= 1) return;
				slot.n = m.n - 1;
			} else if (T === "lag") lagging = m.on;
			else if (T === "disconnected") lagging = false;
			else if (T === "partial") partial = true;
			else if (T === "joined") [names, lagging] = [m, m.lagging];
			else if (T === "synced") partial = renewed = false;
			else if (T === "engine") tiers = m.tiers ?? [];
			else if (T === "reset") {
				const gone = matcher(m.symbols);
				book.keep((name) => !gone(name));
			} else if (T === "epoch") {
				renewed = !!epoch && epoch !== m.epoch;
				epoch = m.epoch;
				if (renewed) book.take({ T: "reset", symbols: [...names.quotes, ...names.trades], cause: "epoch" });
			} else if (T === "subscription") {
				const before = matcher(keysOf(names)), after = matcher(keysOf(m));
				names = m;
				book.keep((S, T) => after(T + S) || !before(T + S));
				if (m.reset?.[0] && !renewed) book.take({ T: "reset", symbols: m.reset, cause: "overrun" });
			}
			emit(m);
		},

		tick(m) {
			const { T, S, n } = m;
			const slot = book.slot(T, S, m.snap || partial ? n - 1 : 0);
			const step = (n - slot.n) | 0;
			if (step <= 0) return void book.duplicates++;
			if (step > 1 && tiers.some(({ tier, delivery }) => tier === names.tier && delivery === "every") && !(lagging && T === "q")) {
				emit({ T: "gap", S, channel: CHANNELS[T], lost: step - 1, n, announced: false });
			}
			slot.n = n;
			slot.tick = m;
			emit(m, slot);
		},

		slot(T, S, n) {
			let slot = slots[T].get(S);
			if (!slot) slots[T].set(S, (slot = { n }));
			return slot;
		},

		keep(wanted) {
			for (const T in slots) for (const S of slots[T].keys()) if (!wanted(S, T)) slots[T].delete(S);
		},
	};
	return book;
};

/** @type {I.MakeApi} */
const makeApi = ({ base, token = "", fetch = scope.fetch }) => {
	const renewable = typeof token === "function";
	let held = none, refused = none;

	/** @type {I.Api} */
	const api = {
		base,

		async token(fresh) {
			if (fresh) held = none;
			held ??= Promise.resolve(refused).then(renewable ? token : () => token);
			const now = await held.catch((error = none) => failure(401, `token: ${error}`));
			if (now === "" || (typeof now === "string" && now !== refused)) return now;
			held = none;
			throw now?.message ? now : failure(401, "unauthorised", null);
		},

		async refuse(reason, used) {
			const now = await held?.catch(() => "");
			if (now && (used ?? now) === now) [refused, held] = [now, none];
			return failure(401, reason, renewable ? none : null);
		},

		async call(path, { method, body, signal } = {}) {
			const now = await api.token();
			const answer = await fetch(api.base + path, {
				method: method ?? (body ? "POST" : "GET"),
				headers: now ? { Authorization: `Bearer ${now}` } : none,
				body: body && JSON.stringify(body),
				signal,
			});
			if (answer.ok) return answer;
			const reason = /"msg":"(.*?)"}/.exec(await answer.text())?.[1] ?? `HTTP status ${answer.status}`;
			if (answer.status === 401) throw await api.refuse(reason, now);
			throw failure(answer.status, reason, Number(answer.headers.get("Retry-After")) * 1000 || none);
		},

		async json(path, request) {
			const text = await (await api.call(path, request)).text();
			return text && JSON.parse(text);
		},

		persist: (path, body, signal, ms = 500) =>
			api.json(path, { body, signal }).catch(async (error) => {
				if (signal.aborted || error.retryMs === null || /^4(?!01|29)..$/.test(error.code)) throw error;
				await wait(error.retryMs ?? ms * (0.5 + Math.random()));
				return api.persist(path, body, signal, Math.min(2 * ms, 8000));
			}),
	};
	return api;
};

/** @type {I.MakeStream} */
const makeStream = (options, api) => {
	const { WebSocket = scope.WebSocket, consumer, start, inflate, nodes } = options;
	const ways = ["websocket", "events", "poll", "quotes"].slice(WebSocket ? 0 : 1);
	const clients = new Map(), status = new Map(), open = new Map();
	const refused = new Set(), badTiers = new Set(), ids = Array(), life = new AbortController();
	let link = life, tiers = Array();
	let want = { names: new Set(), tiers: [""], visible: true };
	let live = new Set(), cursor = "", g = 0, latest = Object(lists([]));
	let asked = none, told = none;
	let usual = "", epoch = "", mode = options.transport ?? "auto", way = "", source = "live", at = 0, why = "first";
	let up = false, sure = false, down = false, lagging = false, resuming = 0, send = none, closing = none, timer = none;
	let id = 0, failures = 0, tries = 0, climbMs = CLIMB_MS, renewAt = Infinity, informMs = 2500;
	let heard = 0, pinged = 0, weakUntil = 0, climbAt = 0, informAt = 0;

	/** @type {I.Stream} */
	const self = {
		clients,

		call(client, { want, saved, cut, use, bye, alive }, post) {
			const known = clients.get(client);
			if (saved && !cursor && !up) [cursor, live] = [saved.cursor, new Set(saved.names)];
			if (want && !known) {
				post({ messages: [...status.values(), { ...latest, T: "joined", lagging }], ids, saved: self.saved() });
				if (live.size) self.greet(client, post);
			}
			if (want) clients.set(client, { ...known, want, post });
			if (bye) clients.delete(client);
			if (alive && known) post({}), (known.seen = clock());
			if (want || bye) self.wish();
			if (want && !known && !way) self.run();
			if (cut) self.end(0, "cut", 0);
			if (use) self.use(use);
		},

		greet: (client, post) =>
			self.prime([...live], (messages) => post({ messages })).catch(() => wait(2000).then(() => clients.has(client) && self.greet(client, post))),

		post(messages, raw) {
			const saved = messages.some(({ T }) => T === "synced") ? self.saved() : none;
			for (const { post } of clients.values()) post({ messages, raw, saved, cursor: self.position() });
		},

		saved: () => ({ names: [...live], cursor: self.position() }),

		say(T, fields) {
			status.set(T, { T, ...fields });
			self.post([{ T, ...fields }]);
		},

		state: (state, code = 0, reason = "", retryMs = null) =>
			self.say("state", { state, code, reason, retryMs, since: Date.now() }),

		end: (code, reason, retryMs) => link.abort(failure(code, reason, retryMs)),

		close() {
			life.abort();
			clients.clear();
			clearInterval(beats);
			self.end(1000, "closed");
		},

		async run() {
			for (let end = none; !life.signal.aborted; ) {
				const { signal } = (link = new AbortController());
				way = ways.includes(mode) ? mode : ways[at];
				if (end !== "again") {
					if (nodes) await nodes(api, closing, told?.up);
					closing = none;
					told = {};
					resuming = 0;
					self.state("connecting");
					if (clock() > informAt) self.inform();
				}
				end = await self[way](signal).catch((error = none) => error);
				self.deadline();
				if (signal.aborted) end = signal.reason;
				else link.abort(end);
				if (end === "again") await wait(100);
				else {
					const ms = await self.ended(end);
					if (ms === null) break;
					link = new AbortController();
					await self.rest(ms);
				}
			}
			way = "";
		},

		async ended({ code = 0, message, retryMs, cause }) {
			message = cause?.message || message;
			send = asked = none;
			open.clear();
			for (const key of live) if (key[0] === "a") live.delete(key);
			if (closing && code !== 1000) ({ code, msg: message, retry_ms: retryMs } = closing);
			if (code === 4004) ({ retryMs } = await api.refuse(message));
			else if ((code === 400 || code === 403) && !/^HTTP/.test(message)) {
				if (self.wanted()[0]) retryMs = 0;
				self.blame(code, message, self.wanted());
			}
			else if (retryMs) at = closing ? 0 : at;
			else if (!sure && code !== 401 && retryMs !== 0 && mode === "auto" && ++failures > 1 && (await self.inform())) {
				why = `${way}: ${message}`;
				at = (at + 1) % ways.length;
				failures = tries = 0;
				climbAt = clock() + climbMs;
			}
			const [least, most] = options.retryMs ?? [1000, 30000];
			if (retryMs === undefined) retryMs = Math.min(most, least * 2 ** tries++) * (0.5 + Math.random() / 2);
			if (code > 4499 || life.signal.aborted) retryMs = null;
			if (up) self.post([{ T: "disconnected", code, reason: message, retryMs }]);
			down = (told.up = up) || down;
			up = sure = lagging = false;
			self.state("disconnected", code, message, retryMs);
			return retryMs;
		},

		async rest(ms) {
			self.deadline(ms);
			const { signal } = link;
			if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
			self.deadline();
		},

		source(state = "live") {
			told.source = state;
			if (state !== source) self.say("source", { shard: "", state: (source = state), t: 0 });
		},

		deadline(ms) {
			clearTimeout(timer);
			if (ms !== none) timer = setTimeout(() => self.end(0, "no answer"), ms);
		},

		use(name, reason = name === "auto" ? "first" : "forced") {
			[mode, why] = [name, reason];
			at = tries = failures = 0;
			self.end(1000, `transport: ${reason}`, 0);
		},

		established(now = true) {
			if ((sure ||= now)) failures = tries = 0;
			if (up) return;
			up = true;
			self.state("connected");
			self.say("transport", { name: way, why });
			if (down) self.post([{ T: "resumed", cursor: self.position() || null }]);
			down = false;
		},

		enter(text) {
			const now = text.replace(/:[^:]*$/, "");
			if (now !== epoch) self.say("epoch", { epoch: (epoch = now) });
		},

		async inform(slow) {
			informAt = clock() + (informMs = Math.min(2 * informMs, 10 * CLIMB_MS));
			const before = clock();
			const info = await api.json("v1/engine", { signal: AbortSignal.timeout(HANDSHAKE_MS) }).catch((error) => error);
			if (info.message) return /^4/.test(info.code);
			const roundTripMs = clock() - before;
			if (!slow && roundTripMs > 2) return self.inform(true);
			tiers = info.tiers ?? [];
			usual = info.default_tier ?? "";
			self.say("engine", { ...info, at: Date.now() - roundTripMs / 2, roundTripMs });
			self.retune();
			return true;
		},

		beat() {
			const now = clock();
			send && pinged > heard ? self.deadline(1000) : self.ping();
			for (const [client, { seen }] of clients) if (now - seen > 15 * BEAT_MS) self.call(client, { bye: true }, none);
			if (up && mode === "auto" && at && now > climbAt) self.climb();
			if (now > renewAt) self.renew();
			if (up && now > informAt) self.inform();
			self.retune();
		},

		ping: () => send?.({ action: "ping", t: (pinged = clock()) }),

		climb() {
			climbAt = clock() + (climbMs = Math.min(2 * climbMs, 10 * CLIMB_MS));
			if (!WebSocket) return self.use("auto");
			const ws = self.socket();
			ws.onmessage = () => self.use("auto", "works again");
			setTimeout(() => ws.close(), HANDSHAKE_MS);
		},

		tier() {
			const { slowWhenHidden = true, slowWhenWeak = true } = options;
			const rank = (name = "") => tiers.findIndex(({ tier }) => tier === (name || usual));
			const good = (tier = "") => !badTiers.has(tier || usual);
			const [asked] = want.tiers.filter(good).sort((a, b) => rank(a) - rank(b));
			const slower = tiers.filter(({ tier, delivery }, i) => i > rank(asked) && rank(asked) >= 0 && delivery === "latest" && good(tier));
			if (slower[0] && slowWhenHidden && !want.visible) return [slower.pop()?.tier, "hidden"];
			if (slower[0] && slowWhenWeak && weakUntil > clock()) return [slower[0].tier, "weak"];
			return [asked || (good() && usual) || none, asked ? "asked" : "default"];
		},

		wish() {
			const all = [...clients.values()].map(({ want }) => want);
			const seen = all.filter(({ visible }) => visible);
			want = {
				names: new Set(all.flatMap(({ names }) => names)),
				tiers: (seen[0] ? seen : all).flatMap(({ tiers }) => tiers),
				visible: !!seen[0],
			};
			for (const key of refused) if (!want.names.has(key)) refused.delete(key);
			if (send) self.sync();
			else if (asked) link.abort("again");
		},

		retune() {
			const [tier] = self.tier();
			if (up && tier && tier !== told.tier) self.wish();
			self.compress();
		},

		compress() {
			const compress = inflate && latest.encoding === "json" && tiers.find(({ tier, interval_ms }) => tier === latest.tier && interval_ms)?.tier;
			if (compress && compress !== told.compress) send?.({ action: "subscribe", compress: true, id: ++id });
			told.compress = send && compress;
		},

		wanted: () => [...want.names].filter((key) => !refused.has(key)),

		changes() {
			const fresh = new Set(self.wanted()), gone = new Set(), sets = [live, ...open.values()];
			for (const set of sets) for (const key of set) if (!fresh.has(key) && set.delete(key)) gone.add(key);
			for (const set of sets) for (const key of set) fresh.delete(key);
			if (!live.size) cursor = "";
			return { fresh: [...fresh], gone: [...gone] };
		},

		sync() {
			const { fresh, gone } = self.changes(), { tier } = told;
			if (gone.length) send({ action: "unsubscribe", ...lists(gone) });
			for (const alerts of [true, false]) {
				const keys = fresh.filter((key) => (key[0] === "a") === alerts);
				if (keys.length) self.request(keys);
			}
			if (!fresh.length && self.settings().tier !== tier) send({ action: "subscribe", ...self.settings() });
		},

		settings() {
			[told.tier, told.why] = self.tier();
			return { tier: told.tier, encoding: options.encoding };
		},

		request(keys, after) {
			open.set(++id, new Set(after ? [] : keys));
			send({ action: "subscribe", ...lists(keys), after, consumer, start, ...self.settings(), id });
			return id;
		},

		async query(fields) {
			const { fresh } = self.changes();
			const ticks = fresh.filter((key) => key[0] !== "a");
			if (cursor && ticks.length) await self.prime(ticks);
			const { tier } = self.settings();
			asked = new Set(self.wanted());
			const names = lists(asked);
			if (!names.quotes.length && !names.trades.length) names.quotes = ["~~*"];
			return query({ ...names, tier, after: self.position(), ...fields });
		},

		async prime(keys, post = self.post) {
			post([{ T: "partial" }]);
			for (let after = "", more = true; more; ) {
				const path = query({ ...lists(keys), alerts: "", tier: told.tier, after, timeout_s: 0 });
				const text = await (await api.call(`v1/poll?${path}`, link)).text();
				const { messages = [], cursor } = JSON.parse(text || "{}");
				post(messages);
				after = cursor;
				more = text.length > WHOLE;
			}
			for (const key of keys) live.add(key);
			post([{ T: "synced", cursor: self.position() }]);
		},

		blame(code, msg, keys) {
			let bad = Array();
			if (cursor && msg.includes("cursor")) {
				self.post([{ T: "reset", symbols: [...live].map((key) => key.slice(1)), cause: "cursor" }]);
				live.clear();
			} else if (told.tier && msg.includes("tier")) badTiers.add(told.tier);
			else {
				const named = (key = "") => ` ${msg} `.includes(` ${key.slice(1)} on ${CHANNELS[key[0]]} `);
				for (const by of [named, (key = "") => key[0] === "a", () => true]) if (!bad[0]) bad = [...keys].filter(by);
				for (const key of bad) refused.add(key);
			}
			self.post([{ T: "error", code, msg, ...lists(bad) }]);
		},

		receive(messages, raw) {
			for (const m of messages) {
				if (!(m.T in CHANNELS)) self.handle(m);
				else if (send && !open.size && !m.snap && m.g > g) g = m.g;
			}
			self.post(messages, raw);
		},

		handle(m) {
			const { T } = m;
			if (m.ttl_s) renewAt = clock() + m.ttl_s * 800;
			else if (T === "subscription") {
				latest = m;
				const { tier } = m;
				if (send) told.tier = tier;
				if (status.get("tier")?.tier !== tier) self.say("tier", { tier, why: told.why });
				self.compress();
			} else if (T === "source") status.set(T, m), (told.source = source = m.state);
			else if (T === "synced") {
				if (!told.source) self.source();
				if (!open.has(m.id)) return;
				for (const key of open.get(m.id)) live.add(key);
				open.delete(m.id);
				if (m.id === resuming) resuming = 0;
				if (!resuming) [cursor, g] = [m.cursor, 0];
			} else if ((T === "lag" && (lagging = m.on)) || (T === "pong" && clock() - m.t > 1500)) {
				weakUntil = clock() + 3 * BEAT_MS;
				self.retune();
			} else if (T === "closing") closing = m;
			else if (T === "error") self.fault(m);
		},

		async fault({ code, msg, id }) {
			const keys = id === resuming ? live : open.get(id);
			if (code > 400 && code < 404) link.abort(await api.refuse(msg));
			else if (id === "auth" || (keys && (code === 429 || code === 500))) self.end(code, msg, 1000);
			else if (keys) {
				open.delete(id);
				if (keys === live) resuming = 0;
				self.blame(code, msg, keys);
				self.ping();
				self.sync();
			}
		},

		renew() {
			renewAt = Infinity;
			api.token(true).then(
				(token) => send?.({ action: "auth", token, id: "auth" }),
				(error) => {
					renewAt = 0;
					if (error.retryMs === null) link.abort(error);
				},
			);
		},

		position: () => cursor.replace(/\d+$/, (from) => `${Math.max(g, Number(from))}`),

		socket(ticket) {
			const ws = new WebSocket(`${api.base.replace(/^http/, "ws")}v1/stream?${query({ ticket })}`);
			ws.binaryType = "arraybuffer";
			ws.onerror = () => {};
			return ws;
		},

		async websocket(signal) {
			self.deadline(HANDSHAKE_MS);
			const token = await api.token();
			const { ticket } = token && (await api.json("v1/tickets", { method: "POST", signal }).catch((error) => {
				if (/400|503/.test(error.code)) return {};
				throw error;
			}));
			const ws = self.socket(ticket);
			const mine = link;
			let turn = Promise.resolve();
			ws.onmessage = ({ data }) => {
				self.deadline();
				heard = clock();
				turn = turn.then(async () => {
					const raw = inflate && new Uint8Array(data)[1] === 6 ? await inflate(data) : data;
					if (signal.aborted) return;
					const messages = decode(raw, ids);
					if (messages[0]?.msg === "connected") self.hello(ws, messages[0].epoch, !ticket && token);
					self.receive(messages, raw);
				}).catch((error) => mine.abort(failure(1002, `${error}`)));
			};
			ws.onclose = ({ code, reason }) => turn.then(() => mine.abort(failure(code, reason || "lost")));
			await self.rest(HANDSHAKE_MS);
			ws.onmessage = ws.onclose = null;
			if (ws.terminate && signal.reason.code !== 1000) ws.terminate();
			else ws.close(1000);
		},

		hello(ws, epoch, token) {
			self.established();
			self.enter(epoch);
			send = (request = none) => ws.readyState === 1 && ws.send(JSON.stringify(request));
			if (token) send({ action: "auth", token, id: "auth" });
			[cursor, g] = [self.position(), 0];
			self.changes();
			if (cursor) resuming = self.request([...live], cursor);
			self.sync();
		},

		async events(signal) {
			const path = await self.query({ consumer, start });
			const held = Array();
			self.deadline(HANDSHAKE_MS);
			const answer = await api.call(`v1/events?${path}`, { signal });
			const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
			for (let text = ""; ; ) {
				const { value, done } = await reader.read();
				if (done) throw failure(1006, "lost");
				text += value;
				const blocks = text.split("\n\n");
				text = blocks.pop() ?? "";
				for (const block of blocks) {
					self.deadline(65000);
					const [, id, data] = /(?:^id: (.*)\n)?^data: (.*)/ms.exec(block) ?? [];
					if (!data) continue;
					self.established();
					held.push(data);
					if (id && live !== asked) self.enter(id);
					if (id) live = asked;
					if (live === asked) for (const event of held.splice(0)) self.receive(JSON.parse(event), event);
					if (id) [cursor, g] = [id, 0];
				}
			}
		},

		quotes: (signal) => self.poll(signal, 0, 1000),

		async poll(signal, seconds = 25, pace = 100) {
			self.pollAlerts(signal);
			for (let first = true, more = false; ; await wait(pace)) {
				const path = await self.query({ alerts: "", timeout_s: first ? 0 : seconds });
				const after = cursor;
				self.deadline(seconds * 1000 + 2 * HANDSHAKE_MS);
				const answer = await api.call(`v1/poll?${path}`, { signal });
				const text = await answer.text();
				const now = answer.headers.get("X-Cursor").trim();
				const { messages = [], resumed, reset } = JSON.parse(text || "{}");
				const news = first || more || reset?.[0];
				self.established(!first || !seconds);
				first = false;
				more = text.length > WHOLE && (!after || more);
				self.source(answer.headers.get("X-Source") ?? none);
				self.enter(now);
				if (news) messages.unshift({ T: "subscription", ...lists(asked), tier: told.tier, encoding: "json", resumed, reset });
				if (news && !more) messages.push({ T: "synced", cursor: now });
				self.receive(messages);
				live = asked;
				[cursor, g] = [now, 0];
			}
		},

		async pollAlerts(signal) {
			while (consumer && !signal.aborted) {
				const { alerts } = lists(self.wanted());
				if (!alerts[0]) return;
				const path = `v1/alerts?${query({ consumer, start, alerts, timeout_s: 25 })}`;
				const late = setTimeout(() => self.end(0, "no answer"), CLIMB_MS);
				const answer = await api.persist(path, none, signal).catch((error) => signal.aborted || link.abort(error));
				clearTimeout(late);
				if (answer?.alerts) self.receive(answer.alerts);
			}
		},
	};
	const beats = setInterval(self.beat, BEAT_MS);
	const changed = () => {
		if (!up) self.end(0, "network changed", 0);
		else if (mode === "auto" && at) self.climb();
		else self.ping();
	};
	scope.addEventListener?.("online", changed, life);
	scope.navigator?.connection?.addEventListener?.("change", changed, life);
	return self;
};

/** @type {I.MakeSubscription} */
const makeSubscription = (listener, leave) => {
	let queue = Array(), limit = 10000, closed = false, wake = none;
	/** @type {I.Subscription} */
	const subscription = {
		push(m) {
			if (closed) return;
			if (listener) return guard(listener, m);
			wake?.();
			if (queue.push(m) <= limit) return;
			const kept = new Map(queue.map((m) => [m.g ? m.T + m.S : m, m])), lag = { T: "lag", on: true, cause: "consumer" };
			queue = [lag, ...kept.values(), { ...lag, on: false, conflated: queue.length - kept.size }];
			limit = Math.max(limit, 2 * queue.length);
		},

		unsubscribe() {
			if (closed) return;
			closed = true;
			wake?.();
			leave();
		},

		async *[Symbol.asyncIterator]() {
			try {
				while (!closed) {
					for (const m of queue.splice(0)) yield m;
					if (!queue[0] && !closed) await new Promise((resolve) => (wake = resolve));
				}
			} finally {
				subscription.unsubscribe();
			}
		},
	};
	return subscription;
};

const WORKER = `marketfeed ${VERSION}`;
/** @type {I.Remote} */
const remote = (post) => (batch) => post({ ...batch, messages: batch.raw ? none : batch.messages });

/** @type {I.Links} */
const LINKS = {
	async worker({ key, options, take }) {
		const worker = new SharedWorker(import.meta.url, { type: "module", name: WORKER }), { port } = worker;
		await new Promise((resolve, reject) => {
			worker.onerror = reject;
			port.onmessage = resolve;
			setTimeout(reject, HANDSHAKE_MS);
			port.postMessage({ key, options });
		});
		port.onmessage = ({ data }) => take(data);
		return { shared: "worker", post: (call) => port.postMessage(call), close: () => port.close() };
	},

	async locks({ key, options, api, take, rejoin, steal }) {
		const name = `${WORKER} ${new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(key)))}`;
		const channel = new BroadcastChannel(name), me = Math.random(), leaving = new AbortController();
		let stream = none;
		await navigator.locks.query();
		channel.onmessage = ({ data: { from, call, to, batch } }) => {
			if (!stream && to === me) take(batch);
			else if (!stream && to === 0) rejoin();
			else if (stream && call) stream.call(from, call, remote((batch) => channel.postMessage({ to: from, batch })));
		};
		const { signal } = leaving;
		const lead = () => {
			stream = makeStream(options, api);
			channel.postMessage({ to: 0 });
			rejoin();
			return new Promise((resolve) => signal.addEventListener("abort", resolve));
		};
		const queue = (how = Object({ signal })) =>
			navigator.locks.request(name, how, lead).catch(() => {}).then(() => {
				stream?.close();
				stream = none;
				if (signal.aborted) return;
				rejoin();
				wait(1000).then(queue);
			});
		queue(steal && { steal });
		return {
			shared: "locks",
			post: (call) => (stream ? stream.call(me, call, take) : channel.postMessage({ from: me, call })),
			close() {
				leaving.abort();
				channel.close();
			},
		};
	},

	async none({ options, api, take }) {
		const stream = makeStream(options, api);
		return { shared: "none", post: (call) => stream.call(0, call, take), close: stream.close };
	},
};

if (scope.name === WORKER) {
	const streams = new Map();
	scope.onconnect = ({ ports: [port] } = none) => {
		let of = none;
		port.onmessage = ({ data } = none) => {
			if (data.key) return (of = data), port.postMessage({});
			if (!streams.has(of.key)) streams.set(of.key, makeStream(of.options, makeApi(of.options)));
			streams.get(of.key).call(port, data, remote((batch) => port.postMessage(batch)));
			for (const [key, { clients, close }] of streams) if (!clients.size) close(streams.delete(key));
		};
	};
}

/** @type {import("./types.js").Connect} */
export const connect = (url = "/", given = {}) => {
	const { href } = new URL(url.replace(/^ws/, "http"), scope.location?.href);
	const options = { ...given, base: href.replace(/(\/|\/v1\/stream)?([?#].*)?$/, "/") };
	const { token, share = true } = options;
	const api = makeApi(options);
	const rotating = typeof token === "function";
	const ways = ["worker", "locks", "none"].slice(!share || !scope.document || options.WebSocket || options.fetch || (rotating && share === true) ? 2 : rotating || options.inflate || options.nodes ? 1 : 0);
	const keys = new Map();
	const subscriptions = new Set(), listeners = new Map();
	const life = new AbortController();
	const latencies = new Float64Array(4096);
	const figures = Object({ quotes: 0, trades: 0, messages: 0, bytes: 0, gaps: 0, lost: 0, lags: 0, resets: 0, reconnects: 0 });
	let version = 0;
	let link = none, forced = none, saved = none, roundTripMs = none;
	let heard = true, settled = false, count = 0, best = Infinity;
	let ids = Array(), now = 0, delta = (Date.now() - clock()) * 1000;

	const book = makeBook((m, slot) => {
		if (slot) self.tick(m, slot);
		else self.tell(m);
		self.fire("message", m);
	});

	/** @type {I.Parts} */
	const self = {
		async open(steal) {
			heard = true;
			link = none;
			const key = JSON.stringify({ ...options, tier: "", token: share === true ? token : "" });
			link = await LINKS[ways[0]]({ ...self, key, options, api, steal }).catch(() => {});
			if (!link) {
				ways.shift();
				return self.open();
			}
			if (life.signal.aborted) link.close();
			else self.rejoin();
		},

		rejoin: () => link?.post({ saved, want: self.want() }),

		want: () => ({
			names: [...keys.keys()],
			tiers: forced ? [forced] : [...subscriptions].map(({ tier }) => tier ?? options.tier ?? ""),
			visible: scope.document?.visibilityState !== "hidden",
		}),

		changed() {
			const now = ++version;
			queueMicrotask(() => {
				if (now === version && !life.signal.aborted) self.rejoin();
			});
		},

		beat() {
			for (const { tick } of [...book.slots.q.values(), ...book.slots.t.values()]) tick?.keep?.();
			if (!heard && link) {
				link.close();
				self.open(true);
			}
			heard = false;
			link?.post({ alive: true });
		},

		take({ messages, raw, saved: at, cursor, ids: symbols }) {
			heard = true;
			saved = at ?? saved;
			ids = symbols ?? ids;
			now = clock() * 1000;
			figures.bytes += raw?.length ?? raw?.byteLength ?? 0;
			messages ??= decode(raw ?? "[]", ids);
			for (const m of messages) book.take(m);
			if (cursor && saved) feed.cursor = saved.cursor = cursor;
		},

		tick(m, slot) {
			figures[CHANNELS[m.T]]++;
			if (settled && !m.snap) {
				delta = Math.max(delta, m.r - now);
				latencies[count++ % latencies.length] = (now + delta - m.r) / 1000;
			}
			if (slot.version !== version) {
				slot.version = version;
				slot.sinks = self.sinks(m.T + m.S);
			}
			for (const subscription of slot.sinks) subscription.push(m);
		},

		sinks(key) {
			const found = [...keys].filter(([name]) => name === key || (name.endsWith("*") && key.startsWith(name.slice(0, -1))));
			return new Set(found.flatMap(([, askers]) => [...askers]));
		},

		tell(m) {
			const { T, ...fields } = m;
			figures.messages++;
			if (/^(state|transport|source)$/.test(T)) feed[T] = fields;
			else if (T === "engine" && m.now && m.roundTripMs < best) {
				best = m.roundTripMs;
				delta = m.now - m.at * 1000 + (Date.now() - clock()) * 1000;
				count = 0;
			} else if (m.encoding) ({ tier: feed.tier, encoding: feed.encoding } = m);
			else if (T === "synced") settled = true;
			else if (T === "disconnected") settled = false;
			else if (T === "pong") roundTripMs = clock() - m.t;
			else if (T === "resumed") figures.reconnects++;
			if (`${T}s` in figures && m.on !== false) figures[`${T}s`]++;
			if (T === "gap") figures.lost += m.lost;
			self.fire(T, m);
			let to = new Set(/^(lag|reset|source|synced|disconnected|resumed|error)$/.test(T) ? subscriptions : []);
			if (T === "gap") to = self.sinks(m.channel[0] + m.S);
			if (T === "a") to = self.sinks(`a${m.rule}`);
			for (const subscription of to) subscription.push(m);
		},

		fire(type, value) {
			const found = listeners.get(type === "a" ? "alert" : type);
			if (found) for (const listener of found) guard(listener, value);
			else if (type === "error") console.error(value.msg);
		},

		attach(names, listener) {
			const subscription = makeSubscription(listener, () => {
				subscriptions.delete(subscription);
				for (const key of names) if (keys.get(key)?.delete(subscription) && !keys.get(key).size) keys.delete(key);
				self.changed();
			});
			for (const key of names) keys.set(key, (keys.get(key) ?? new Set()).add(subscription));
			self.changed();
			return subscription;
		},
	};

	/** @type {I.Own} */
	const feed = {
		state: { state: "connecting", code: 0, reason: "", retryMs: null, since: Date.now() },
		transport: { name: "", why: "" },
		source: { shard: "", state: "live", t: 0 },
		tier: "",
		encoding: "json",
		cursor: null,

		subscribe({ tier, ...lists }, listener) {
			const names = keysOf(lists);
			const bad = names.find((key) => !/^.([!#-)+.-[\]-~-]{1,24}\*?|\*)$/.test(key));
			if (bad) throw new TypeError(`invalid name: ${bad.slice(1)}`);
			const subscription = self.attach(names, listener);
			subscription.tier = tier;
			subscriptions.add(subscription);
			const matches = matcher(names);
			queueMicrotask(() => {
				for (const { tick } of [...book.slots.q.values(), ...book.slots.t.values()]) {
					if (tick && matches(tick.T + tick.S)) subscription.push({ ...(tick.toJSON?.() ?? tick), snap: 1 });
				}
			});
			return subscription;
		},

		latest: (symbol, channel = "quotes") => book.slots[channel[0]].get(symbol)?.tick,

		on(type, listener) {
			listeners.set(type, (listeners.get(type) ?? new Set()).add(listener));
			return () => listeners.get(type).delete(listener);
		},

		alerts({ patterns = ["*"], consumer, start } = {}, listener) {
			const names = patterns.map((name) => `a${name}`);
			let subscription = none;
			if (consumer) {
				const stream = makeStream({ ...options, consumer, start }, api);
				subscription = makeSubscription(listener, stream.close);
				stream.call(0, { want: { names, tiers: [], visible: true } }, ({ messages = [] }) => {
					for (const m of messages) {
						if (m.T === "a") subscription.push(m);
						if (m.T === "a" || m.T === "error") self.fire(m.T, m);
					}
				});
			} else subscription = self.attach(names, listener);
			life.signal.addEventListener("abort", subscription.unsubscribe);
			subscription.ack = (ids = none) => api.persist("v1/alerts/ack", { consumer, alerts: [ids].flat() }, life.signal);
			return subscription;
		},

		publish: (notice) => api.persist("v1/alerts", notice, life.signal),
		request: (path, request) => api.json(path.replace(/^\//, ""), request),

		setTier(tier) {
			forced = tier;
			self.changed();
		},

		use: (use) => link?.post({ use }),
		cut: () => link?.post({ cut: true }),
		now: () => Math.round(clock() * 1000 + delta),

		statistics() {
			const sorted = latencies.slice(0, count).sort();
			const [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1].map((share) => sorted[Math.ceil(share * sorted.length) - 1] ?? 0);
			return {
				...figures,
				ticks: figures.quotes + figures.trades,
				duplicates: book.duplicates,
				latencyMs: { count, p50, p90, p99, max },
				roundTripMs: roundTripMs ?? null,
				clockOffsetMs: feed.now() / 1000 - Date.now(),
				shared: link?.shared ?? "none",
			};
		},

		close() {
			life.abort();
			clearInterval(beats);
			for (const subscription of subscriptions) subscription.unsubscribe();
			link?.post({ bye: true });
			link?.close();
		},
	};
	const beats = setInterval(self.beat, BEAT_MS);
	scope.document?.addEventListener("visibilitychange", self.changed, life);
	scope.addEventListener?.("pagehide", () => link?.post({ bye: true }), life);
	self.open();
	return feed;
};
