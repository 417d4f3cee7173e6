// The parts of marketfeed.js and what they do. Not published: programs need types.d.ts only.
//
// Names are kept as keys: the first letter of the channel and the name, "qAAPL", "tBTC*", "awide".

import type { Connect, Feed, FeedError, Message, Options as Given, State, Subscription as Public, TransportName } from "./types.js";

export type { Connect };

/** The feed that programs see, which here is written to. */
export type Own = { -readonly [K in keyof Feed]: Feed[K] } & { [name: string]: any };

/** A message of the engine, or one of this module's own: any object with a type `T`. */
export type Wire = any;
export type KeysOf = (lists: { quotes?: string[]; trades?: string[] }) => string[];
export type Lists = (keys: Iterable<string>) => { quotes: string[]; trades: string[]; alerts: string[] };
export type Matcher = (names: Iterable<string>) => (name: string) => boolean;
/** Lists too long for a URL become all names: those that nobody asked for are passed over. */
export type Query = (fields: { [name: string]: unknown }) => string;
export type Guard = (listener: (value: any) => void, value: unknown) => void;
/** An error; with `retryMs` null the same would fail again. */
export type Failure = (code: number, message: string, retryMs?: number | null) => FeedError;
/**
 * Readers of a record's fields. `price`: below 2^53 the division is the only rounding, as in JSON. `micros`: from ns,
 * which exceed 2^53.
 */
export type Reads = [low: Read, unsigned: Read, price: Read, size: Read, micros: Read];
type Read = (record: { view: DataView; at: number }, offset: number) => number;
/** The messages of a frame; of text, which is JSON, too. */
export type Decode = (frame: Raw, names: string[]) => Wire[];
export type Raw = string | ArrayBuffer;

/** The options of `connect`, and the URL of the engine, with a slash at its end. */
export type Options = Given & { base: string };

/** Of the stream of an alert consumer, with its name. */
export type StreamOptions = Options & { consumer?: string; start?: string };

export type Tiers = { tier: string; interval_ms: number; delivery: string }[];

// The book of a feed.

/** The newest tick of a symbol on a channel. */
export interface Slot {
  /** its number; that of the tick before the next one, after a `gap` */
  n: number;
  tick?: Wire;
  /** of the feed's subscriptions, for which `sinks` was computed */
  version?: number;
  sinks: Set<Subscription>;
}

export type Slots = { [type: string]: Map<string, Slot> };

/** Gets each message that is not a duplicate; a tick with its slot. */
export type Emit = (message: Wire, slot?: Slot) => void;

/**
 * The newest ticks, and the rules of their numbers: a tick with a number that was reached before is dropped, and a hole
 * that nobody announced is told as a `gap` with `announced: false`, if the tier is due every tick. While the state is
 * `partial`, a snapshot is under way, so the first tick of a symbol has no predecessor; `renewed`: the reset of this
 * epoch has been told.
 */
export interface Book {
  slots: Slots;
  duplicates: number;
  /** Take a message, in the order of the stream. */
  take(message: Wire): void;
  tick(message: Wire): void;
  /** The slot of a symbol, made with the number `n` if there is none. */
  slot(type: string, symbol: string, n: number): Slot;
  /** Forget the symbols of which `wanted` is false. */
  keep(wanted: (symbol: string, type: string) => boolean): void;
}

export type MakeBook = (emit: Emit) => Book;

// HTTP.

export interface Request {
  method?: string;
  body?: any;
  signal?: AbortSignal;
}

/** Requests to the engine, with the token.  */
export interface Api {
  /** the URL of the engine, with a slash at its end; the option `nodes` changes it between connections */
  base: string;
  /** Return the token, "" without one; `fresh`: another than the one that is held. */
  token(fresh?: boolean): Promise<string>;
  /** Note that the engine refused the token; return the error to end with, final if there is no other token. */
  refuse(reason: string, used?: string): Promise<FeedError>;
  call(path: string, request?: Request): Promise<any>;
  json(path: string, request?: Request): Promise<any>;
  /** Make a request that is safe to repeat until the engine answers it. */
  persist(path: string, body: unknown, signal: AbortSignal, ms?: number): Promise<any>;
}

export type MakeApi = (options: Options) => Api;

// The stream.

/** What a feed wants of its stream. */
export interface Want {
  names: string[];
  /** that its subscriptions ask for; "" for the default */
  tiers: string[];
  visible: boolean;
}

/** From where another stream can go on. */
export interface Saved {
  names: string[];
  cursor: string;
}

/** From a stream to a feed; without messages, a sign of life. */
export interface Batch {
  messages?: any;
  /** the frame that held them */
  raw?: any;
  /** the position, if what is subscribed has changed */
  saved?: Saved;
  cursor?: string;
  /** symbols of binary frames, for a feed that joins */
  ids?: string[];
}

export type Way = TransportName | "auto";

/** From a feed to a stream. */
export interface Call {
  want?: Want;
  /** where to go on, if the stream is new */
  saved?: Saved;
  cut?: boolean;
  use?: Way;
  bye?: boolean;
  alive?: boolean;
}

export type MakeStream = (options: StreamOptions, api: Api) => Stream;
export type Post = (batch: Batch) => void;
export type Remote = (post: Post) => Post;

/**
 * The session with the engine, over all its connections, for any number of feeds.
 *
 * `live` is what is subscribed up to the cursor, `open` what has been asked for without a `synced` yet. After a cut, `live`
 * is resumed from the cursor and `open` asked for again. While a request is open the cursor stands still: what comes
 * twice for that is dropped by the books.
 */
export interface Stream {
  /** The feeds by what identifies them. */
  clients: Map<unknown, any>;
  /** Take the call of a feed; `post` is how it is reached. */
  call(client: unknown, call: Call, post: Post): void;
  /** Give the present state to a feed that joins, again until that works. */
  greet(client: unknown, post: Post): Promise<any>;
  post(messages: Wire[], raw?: Raw): void;
  saved(): Saved;
  /** Tell a state: to all feeds, and to those that come later. */
  say(T: string, fields: object): void;
  state(state: State["state"], code?: number, reason?: string, retryMs?: number | null): void;
  /** End the connection, or the pause before the next. */
  end(code: number, reason: string, retryMs?: number | null): void;
  close(): void;
  /** Connect again and again, until the feed is closed or the engine asks not to come again. */
  run(): Promise<void>;
  /**
   * Tell why a connection ended; return the delay before the next, null if there is none. If connections repeatedly
   * end before an answer while the engine can be reached, the next one uses the next transport.
   */
  ended(error: { code?: number; message: string; retryMs?: number | null; cause?: Error }): Promise<number | null>;
  /** Wait until the link is aborted, or for `ms`. */
  rest(ms?: number): Promise<void>;
  /** Tell whether the source of ticks is `live`, which is the default, or `stale`, if that has changed. */
  source(state?: string): void;
  /** End the connection after `ms`, unless called again before; without `ms`, do not. */
  deadline(ms?: number): void;
  /** Use a transport, or choose from the first one. */
  use(name: Way, reason?: string): void;
  /** A message of a connection has come; not `sure`, if that does not show that the transport works. */
  established(sure?: boolean): void;
  /** The epoch of the engine, or a cursor, which begins with it. */
  enter(text: string): void;
  /** Fetch tiers and clock of the engine; return whether it answers. A slow first answer, of a new connection, is
   * not used: the clock of a second one is known better. */
  inform(slow?: boolean): Promise<boolean>;
  /**
   * Every ten seconds: is the connection alive, is there a better transport, does another tier fit, who is gone?
   * Timers may run before messages that have come, so a silent connection gets one more second.
   */
  beat(): void;
  ping(): void;
  /** Try WebSocket beside the transport in use; without WebSocket, begin with the first transport again. */
  climb(): void;
  /** Return the tier to use, and why. */
  tier(): (string | undefined)[];
  /** Want what any feed wants, on the fastest tier that one of those in sight asks for. */
  wish(): void;
  /** Apply a tier that circumstances ask for, and compression. */
  retune(): void;
  /**
   * Ask for compressed frames, once for each tier with an interval. The request has nothing else in it, so if the
   * engine refuses it, the subscription stays as it is.
   */
  compress(): void;
  /** What is wanted and has not been refused. */
  wanted(): string[];
  /** Forget what is not wanted any more; return that, and what is wanted and has not been asked for. */
  changes(): { fresh: string[]; gone: string[] };
  /** Make the subscription of the WebSocket what is wanted. Alerts are asked for alone: if refused, ticks are not. */
  sync(): void;
  /** What of tier and encoding the connection has not been asked for. */
  settings(): { tier?: string; encoding?: string };
  /** Subscribe over WebSocket; return the id of the request. */
  request(keys: string[], after?: string): number;
  /** Return the query of all that is wanted, for a request over HTTP. */
  query(fields: object): Promise<string>;
  /** Give the present state of names to a feed that joins them, or to all. */
  prime(keys: string[], post?: (messages: Wire[]) => void): Promise<void>;
  /**
   * The engine refused some of `keys`: find out which, and ask for them no more, so that the others come. If it names
   * none, the alerts are refused first. After a refusal a ping is sent, as ten bad requests in a row end a session.
   */
  blame(code: number, msg: string, keys: Iterable<string>): void;
  /** Take messages of a transport. */
  receive(messages: Wire[], raw?: Raw): void;
  handle(message: Wire): void;
  /** The engine refused a request of the WebSocket. */
  fault(error: Wire): Promise<void>;
  /** Present a new token before the present one expires. */
  renew(): void;
  /** The cursor now: only its last part may be replaced. */
  position(): string;
  /** With a ticket, which engines without access control do not give: there `auth` is sent. */
  socket(ticket?: string): WebSocket & { terminate?(): void };
  /** Begin on an open WebSocket; `token`: without a ticket. */
  hello(ws: WebSocket, epoch: string, token: string | boolean): void;
  // Transports: each runs until its connection ends, and throws why.
  /** Frames are handled one after the other, and so is the close: decompression of one takes a while. */
  websocket(signal: AbortSignal): Promise<void>;
  events(signal: AbortSignal): Promise<void>;
  poll(signal: AbortSignal, seconds?: number, pace?: number): Promise<void>;
  /** Short polls: they do not wait for a tick. */
  quotes(signal: AbortSignal): Promise<void>;
  /** The alerts of a consumer, beside polls of ticks. */
  pollAlerts(signal: AbortSignal): Promise<void>;
  [way: string]: any;
}

// The feed.

export interface Subscription extends Public<any> {
  tier?: string;
  /** Too long a queue is conflated, which the two `lag` messages tell. */
  push(message: Wire): void;
}

export type MakeSubscription = (
  listener: ((message: any) => void) | undefined,
  leave: () => void,
) => Subscription;

/**
 * The way from a feed to its stream. By locks, a tab whose lock was stolen is served by the tab that stole it, and
 * waits for the lock again. The SharedWorker closes streams that no tab uses any more.
 */
export interface Link {
  shared: "worker" | "locks" | "none";
  post(call: Call): void;
  close(): void;
}

export interface LinkNeeds {
  /** of the stream: feeds with the same key share one */
  key: string;
  options: Options;
  api: Api;
  take: Post;
  /** Tell the stream, which is another one now, what is wanted. */
  rejoin(): void;
  /** the tab that leads does not answer */
  steal?: boolean;
}

export type Links = { [way: string]: (needs: LinkNeeds) => Promise<Link> };

/** What a feed does beside what programs see of it. */
export interface Parts {
  /** Open the link, by the best way that works. */
  open(steal?: boolean): Promise<void>;
  rejoin(): void;
  want(): Want;
  /** Tell the stream what is wanted, once for all changes of a task. */
  changed(): void;
  /** Every ten seconds: free frames, and find out whether the other end of the link is alive. */
  beat(): void;
  take: Post;
  tick(message: Wire, slot: Slot): void;
  /** The subscriptions that ask for a key. */
  sinks(key: string): Set<Subscription>;
  /** Take a message that is not a tick. */
  tell(message: Wire): void;
  fire(type: string, value: any): void;
  /** Register a subscription under its keys. */
  attach(keys: string[], listener?: (message: any) => void): Subscription;
}
