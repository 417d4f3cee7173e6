// Other engines of a cluster for marketfeed.js: the option `nodes` of `connect`. docs/protocol.md, "Nodes" and "Close codes".
//
// Before each connection, in this order: the engine that the last one named in `closing.url`; the engine of the last
// connection, if that led to a session; the caller's URL, if another one failed; else one of /v1/nodes.

const MOST_DIRECTED = 3; // times that a feed follows `closing.url` within DIRECTED_MS
const DIRECTED_MS = 60_000;
const ANSWER_MS = 5000; // for /v1/nodes

/** What is known to one feed: `failed` since its last session, `rows` of the last answer of /v1/nodes. */
class Cluster {
	/** @param {{ base: string, json(path: string, request?: { signal?: AbortSignal }): Promise<any> }} api */
	constructor(api) {
		this.api = api;
		this.home = api.base;
		this.failed = new Set();
		/** @type {any[]} */
		this.rows = [];
		/** @type {number[]} */
		this.followedAt = [];
	}

	/** Return the base of the engine at a URL that an engine gave, "" unless it is as secure as the caller's. @param {unknown} url */
	base(url) {
		if (typeof url !== "string") return "";
		try {
			const { protocol, origin, pathname, username, password } = new URL(url);
			if (protocol !== new URL(this.home).protocol || username || password) return "";
			return origin + pathname.replace(/(\/|\/v1\/stream)?$/, "/");
		} catch {
			return "";
		}
	}

	/** Return the base of `closing.url`; "" for one that may not be followed. @param {unknown} url */
	directed(url) {
		const base = this.base(url), now = performance.now();
		this.followedAt = this.followedAt.filter((at) => now - at < DIRECTED_MS);
		if (!base || this.followedAt.length >= MOST_DIRECTED) return "";
		this.followedAt.push(now);
		return base;
	}

	/** Return the engine with the most room of those that have not failed, "" if none is known. Asks the caller's. */
	async roomiest() {
		const signal = AbortSignal.timeout(ANSWER_MS);
		const rows = await this.api.json("v1/nodes", { signal }).catch(() => null);
		if (Array.isArray(rows)) this.rows = rows;
		const free = this.rows
			.filter((row) => row?.state === "ready")
			.map((row) => ({ base: this.base(row.url), load: loadOf(row), lot: Math.random() }))
			.filter(({ base }) => base && !this.failed.has(base))
			.sort((a, b) => a.load - b.load || a.lot - b.lot);
		if (!free.length) this.failed.clear();
		return free[0]?.base ?? "";
	}

	/** Set the engine of the next connection. @param {unknown} url @param {boolean} [good] */
	async move(url, good) {
		const { api, home, failed } = this;
		if (good) failed.clear();
		else if (good === false) failed.add(api.base);
		const directed = url === undefined ? "" : this.directed(url);
		if (directed) api.base = directed;
		else if (!good && api.base !== home) api.base = home;
		else if (!good) api.base = (await this.roomiest()) || home;
	}
}

/** @param {{ sessions?: unknown, capacity?: unknown }} row */
const loadOf = ({ sessions, capacity }) => {
	const load = Number(sessions) / Number(capacity);
	return load >= 0 && load < Infinity ? load : 1;
};

/** @type {WeakMap<object, Cluster>} */
const clusters = new WeakMap();

/** @type {import("./types.js").Nodes} */
export const nodes = async (api, closing, good) => {
	const known = clusters.get(api);
	if (known && good === undefined) return; // the stream of an alert consumer begins, which has the feed's engine
	const cluster = known ?? new Cluster(api);
	clusters.set(api, cluster);
	await cluster.move(closing?.url, good);
};
