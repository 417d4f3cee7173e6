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
  /** "consumer": this program was too slow, and its own buffer conflated */
  cause?: "consumer";
}

/** The session fell behind (`on`), or has caught up. */
export interface Lag {
  T: "lag";
  on: boolean;
  conflated?: number;
}

/** What was missed for these names is unknown; a snapshot follows. */
export interface Reset {
  T: "reset";
  symbols: string[];
  /** "epoch": the engine restarted; "overrun": too much was missed; "cursor": the engine refused the cursor */
  cause: "epoch" | "overrun" | "cursor";
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
  /** whether each tick is sent, and not only the latest */
  every: boolean;
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
  /** received, before decompression is undone by nothing: characters of JSON, bytes of binary frames */
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

export interface Options {
  /** key or token, or a function that returns one; null from it: unauthorised, stop; if it throws: try again */
  token?: Token;
  tier?: string;
  encoding?: "json" | "binary";
  transport?: "auto" | TransportName;
  /** one stream for all tabs of this origin with the same token; a string: with the same string */
  share?: boolean | string;
  slowWhenHidden?: boolean;
  slowWhenWeak?: boolean;
  /** bounds of the delay between attempts */
  retryMs?: [number, number];
  WebSocket?: any;
  fetch?: typeof fetch;
  EventSource?: any;
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
  resumed: Resumed;
  disconnected: Disconnected;
  heartbeat: Other;
  error: Refusal;
  alert: Alert;
  message: Message;
}

// Between the parts of the module.

/** A message, or one of this module's own. */
export type Wire = any;
export type Raw = string | ArrayBuffer;

/** What one Feed wants of a Hub. */
export interface Want {
  quotes: string[];
  trades: string[];
  tiers: (string | undefined)[];
  forced?: string;
  alerts: AlertWant[];
  visible: boolean;
}

export interface AlertWant {
  consumer: string;
  patterns: string[];
  start?: string;
}

/** Position of a stream, from which another one can go on. */
export interface Saved {
  quotes: string[];
  trades: string[];
  cursor: string;
  epoch: string;
}

/** From a Hub to a Feed. */
export interface Batch {
  messages?: Wire[];
  raw?: Raw;
  saved?: Saved;
  cursor?: string;
  /** whose alerts: a consumer, or "" for the live view */
  key?: string;
  names?: string[];
  ask?: string;
}

/** From a Feed to a Hub. */
export interface Call {
  want?: Want;
  saved?: Saved;
  cut?: 1;
  use?: string;
  bye?: 1;
  alive?: 1;
  token?: string | null;
  failed?: string;
}
