// The types of marketfeed.js that are not classes of the module. Messages are those of docs/protocol.md.

export type Channel = "quotes" | "trades";
export type TransportName = "websocket" | "events" | "poll" | "quotes";
export type Tick = Quote | Trade;

/** A quote. A missing side has size 0 and price null. */
export interface Quote {
  T: "q";
  S: string;
  bp: number | null;
  bs: number;
  ap: number | null;
  as: number;
  /** the venue's time, µs since the Unix epoch; 0: none */
  t: number;
  /** time of receipt by the engine, µs since the Unix epoch */
  r: number;
  /** number of the tick of this symbol and channel */
  n: number;
  /** position among all ticks of the engine */
  g: number;
  /** 1: state as of the subscription, not an event */
  snap?: 1;
}

/** A trade. */
export interface Trade {
  T: "t";
  S: string;
  p: number;
  s: number;
  /** aggressor: "b", "s", or "-" if unknown */
  d: string;
  /** the venue's id, 0 if none */
  i: number;
  /** conditions, letters of the venue */
  c?: string[];
  t: number;
  r: number;
  n: number;
  g: number;
  snap?: 1;
}

/** An alert, or a notice. */
export interface Alert {
  T: "a";
  id: string;
  key: string;
  rule: string;
  S: string;
  sev: "info" | "warning" | "critical";
  state: "raised" | "cleared" | "notice";
  v: number | null;
  th: number | null;
  t: number;
  r: number;
  msg: string;
  try: number;
  ack: boolean;
  suppressed: number;
  to?: string;
  data?: Record<string, unknown>;
}

/** `lost` ticks are missing before number `n`. */
export interface Gap {
  T: "gap";
  S: string;
  channel: Channel;
  lost: number;
  n: number;
  /** false: the engine did not say so; the numbers of the ticks show it */
  announced?: false;
}

/** The session fell behind (`on`), or has caught up and left out `conflated` ticks. In between come the newest. */
export interface Lag {
  T: "lag";
  on: boolean;
  conflated?: number;
  /** "consumer": a loop of this program was too slow */
  cause?: "consumer";
}

/** What was missed for these names is unknown; a snapshot follows. */
export interface Reset {
  T: "reset";
  symbols: string[];
  /** "epoch": the engine restarted; "overrun": too much was missed; "cursor": the engine refused the cursor */
  cause: "epoch" | "overrun" | "cursor";
}

/** In a cluster: the engine does not hear the source of its ticks, so prices may be out of date; or it does again. */
export interface Source {
  T: "source";
  shard: string;
  state: "stale" | "live";
  /** when it got into that state, µs since the Unix epoch; 0: not known */
  t: number;
}

/** The connection is lost. No tick comes until `resumed`. */
export interface Disconnected {
  T: "disconnected";
  /** close code, HTTP status, or 0 */
  code: number;
  reason: string;
  /** delay before the next attempt; null: there is none */
  retryMs: number | null;
}

/** The stream goes on after `cursor`; null: from a snapshot. */
export interface Resumed {
  T: "resumed";
  cursor: string | null;
}

/** The engine refused a request, or its answer made no sense. */
export interface Refusal {
  T: "error";
  code: number;
  msg: string;
  quotes?: string[];
  trades?: string[];
}

/** Any other message of the protocol, of this version or of a later one. */
export interface Other {
  T: "heartbeat" | "synced" | "subscription" | "success" | "pong" | "closing" | "acked";
  [key: string]: any;
}

/** What listeners and loops receive. */
export type Message =
  | Quote
  | Trade
  | Alert
  | Gap
  | Lag
  | Reset
  | Source
  | Disconnected
  | Resumed
  | Refusal
  | Other;

export interface State {
  state: "connecting" | "connected" | "disconnected";
  /** why it is not connected: close code, HTTP status, 0 if neither */
  code: number;
  reason: string;
  /** delay before the next attempt; null: there is none */
  retryMs: number | null;
  /** ms since the Unix epoch */
  since: number;
}

export interface Transport {
  name: TransportName | "";
  why: string;
}

export interface TierChange {
  tier: string;
  /** "asked", "default", "hidden" or "weak" */
  why: string;
}

export interface TierInfo {
  tier: string;
  interval_ms: number;
  delivery: "every" | "latest";
}

/** Answer of `GET /v1/engine`. */
export interface EngineInfo {
  version: string;
  epoch?: string;
  now?: number;
  default_tier?: string;
  tiers?: TierInfo[];
  access?: { tiers?: string[]; [key: string]: any };
  [key: string]: any;
}

export interface Statistics {
  ticks: number;
  quotes: number;
  trades: number;
  messages: number;
  /** received: characters of JSON, those of compressed frames after decompression; bytes of binary frames */
  bytes: number;
  gaps: number;
  /** ticks missing by all gaps */
  lost: number;
  lags: number;
  resets: number;
  reconnects: number;
  /** ticks that came twice, or late, and were dropped */
  duplicates: number;
  /** from receipt by the engine to here, of live ticks */
  latencyMs: { count: number; p50: number; p90: number; p99: number; max: number };
  roundTripMs: number | null;
  /** the engine's clock minus this machine's */
  clockOffsetMs: number;
  shared: "worker" | "locks" | "none";
}

export type Token =
  | string
  | null
  | undefined
  | ((refused?: string) => string | null | undefined | Promise<string | null | undefined>);

/**
 * Return the text of a compressed frame, a whole message of a WebSocket; rejects if the frame is damaged, or holds
 * more than 1 MiB.
 */
export type Inflate = (frame: ArrayBuffer) => Promise<string>;

/** Connect to another engine of the cluster, as the engine or the last connection suggests. Not for programs to call. */
export type Nodes = (
  api: { base: string; json(path: string, request?: { signal?: AbortSignal }): Promise<any> },
  closing?: { url?: unknown },
  good?: boolean,
) => Promise<void>;

export interface Options {
  /** key or token, or a function that returns one; null from it: unauthorised, stop; if it throws: try again */
  token?: Token;
  tier?: string;
  encoding?: "json" | "binary";
  /** of the module inflate.js; with it, JSON on tiers with an interval may come compressed */
  inflate?: Inflate;
  /** of the module nodes.js; with it, the feed uses other engines of the cluster too */
  nodes?: Nodes;
  transport?: "auto" | TransportName;
  /** one stream for all tabs of this origin with the same token; a string: with the same string */
  share?: boolean | string;
  slowWhenHidden?: boolean;
  slowWhenWeak?: boolean;
  /** bounds of the delay between attempts */
  retryMs?: [number, number];
  WebSocket?: any;
  fetch?: typeof fetch;
}

export interface Names {
  quotes?: string[];
  trades?: string[];
  tier?: string;
}

export interface AlertNames {
  /** names of rules, or prefixes followed by `*` */
  patterns?: string[];
  /** a durable consumer; without it a live view */
  consumer?: string;
  start?: "all" | "now";
}

export interface Notice {
  key: string;
  msg: string;
  sev?: "info" | "warning" | "critical";
  S?: string;
  to?: string;
  data?: Record<string, unknown>;
}

export interface RequestOptions {
  method?: string;
  body?: unknown;
  signal?: AbortSignal;
}

export interface Events {
  state: State;
  transport: Transport;
  tier: TierChange;
  engine: EngineInfo;
  gap: Gap;
  lag: Lag;
  reset: Reset;
  source: Source;
  resumed: Resumed;
  disconnected: Disconnected;
  heartbeat: Other;
  error: Refusal;
  alert: Alert;
  message: Message;
}

/** Messages for one component of a program. Without a listener, loop over it: `for await (const message of …)`. */
export interface Subscription<M = Message> extends AsyncIterable<M> {
  /** End it; a loop over it ends. */
  unsubscribe(): void;
}

export interface AlertSubscription extends Subscription<Alert> {
  /** Acknowledge alerts as the consumer; resolves when that is on the engine's disk. Repeated until then. */
  ack(ids: string | string[]): Promise<{ alerts: string[]; unknown: string[] }>;
}

/** An error of the engine or of the connection; `code` is a close code, an HTTP status, or 0. */
export interface FeedError extends Error {
  code: number;
  /** null: the same would fail again */
  retryMs?: number | null;
}

/** What `connect` returns. */
export interface Feed {
  readonly state: State;
  readonly transport: Transport;
  /** of the engine's ticks; `stale`: prices may be out of date */
  readonly source: Omit<Source, "T">;
  /** of the session; "" before it is known */
  readonly tier: string;
  readonly encoding: string;
  /** up to where everything has been received; null before the first snapshot */
  readonly cursor: string | null;

  /**
   * Receive messages of `names`: by `listener`, or without one by a loop over what is returned. All subscriptions
   * share one session, on the fastest tier that one of them asks for. Throws TypeError for an invalid name.
   */
  subscribe(names: Names, listener?: (message: Message) => void): Subscription;

  /** Return the newest tick of a symbol that is subscribed; a quote, unless `channel` is "trades". */
  latest(symbol: string, channel?: "quotes"): Quote | undefined;
  latest(symbol: string, channel: "trades"): Trade | undefined;

  /** Call `listener` at each event of a type; returns a function that ends that. */
  on<K extends keyof Events>(type: K, listener: (event: Events[K]) => void): () => void;

  /** Receive alerts: as a durable consumer, which acknowledges them, or without `consumer` as a live view. */
  alerts(names?: AlertNames, listener?: (alert: Alert) => void): AlertSubscription;

  /** Publish a notice; resolves when it is on the engine's disk. Repeated until then, which its `key` makes safe. */
  publish(notice: Notice): Promise<{ id: string; key: string }>;

  /** Make a request with the token, and return the JSON of its answer; rejects with a FeedError for another answer than 2xx. */
  request(path: string, request?: RequestOptions): Promise<any>;

  /** Set the tier, whatever subscriptions ask for; null: as they ask. */
  setTier(tier: string | null): void;

  /** Force a transport, or choose: "auto". */
  use(name: TransportName | "auto"): void;

  /** Cut the connection, to see it resume. */
  cut(): void;

  /** The engine's clock, in µs since the Unix epoch: `feed.now() - quote.r` is the age of a quote. */
  now(): number;

  statistics(): Statistics;

  /** End everything. */
  close(): void;
}

/** Connect to the engine at `url`, such as "/" or "https://feed.example.com". */
export type Connect = (url?: string, options?: Options) => Feed;
