/* Alerts as people follow them: one entry per episode, which a `raised` begins and a `cleared` ends; a notice is one too.
 *
 * Alerts may come more than once, from the log, live and to a consumer, and are known by `id`.
 */

export const SEVERITIES = ["critical", "warning", "info"];
const KEPT = 1000;

export class Episodes {
  constructor() {
    this.byKey = new Map();
    this.version = 0;
    this._ids = new Set();
  }

  /** Take an alert. */
  add(alert) {
    this.version += 1;
    const one = this._entry(alert);
    if (alert.ack) this._deliver(one, alert);
    if (this._ids.has(alert.id)) return;
    this._ids.add(alert.id);
    const at = alert.r / 1000;
    one.latest = Math.max(one.latest, at);
    if (alert.state === "cleared") {
      one.cleared = at;
      if (one.began === 0) one.message = alert.msg;
    } else {
      one.began = at;
      one.message = alert.msg;
    }
    one.suppressed += alert.suppressed ?? 0;
    if (this.byKey.size > KEPT) this._forget();
  }

  _entry(alert) {
    const found = this.byKey.get(alert.key);
    if (found) return found;
    const one = {
      key: alert.key,
      rule: alert.rule,
      symbol: alert.S,
      severity: alert.sev,
      notice: alert.state === "notice",
      message: "",
      began: 0,
      cleared: 0,
      latest: 0,
      suppressed: 0,
      tries: 0,
      due: new Set(),
      acknowledged: 0,
    };
    this.byKey.set(alert.key, one);
    return one;
  }

  /** A durable consumer got it: it comes again until it is acknowledged. */
  _deliver(one, alert) {
    one.due.add(alert.id);
    one.tries = Math.max(one.tries, alert.try);
  }

  /** The engine has settled `ids` on disk. */
  settle(ids) {
    this.version += 1;
    const settled = new Set(ids);
    for (const one of this.byKey.values()) {
      for (const id of one.due) {
        if (!settled.has(id)) continue;
        one.due.delete(id);
        one.acknowledged += 1;
      }
    }
  }

  /** Nothing is due any more to this page: it is no consumer now. */
  release() {
    this.version += 1;
    for (const one of this.byKey.values()) one.due.clear();
  }

  /** Drop the tenth that is least of interest: the oldest that have ended and are not due. */
  _forget() {
    const ended = [...this.byKey.values()].sort((a, b) => a.latest - b.latest);
    const rank = (one) => (one.due.size > 0 ? 2 : isOpen(one) ? 1 : 0);
    ended.sort((a, b) => rank(a) - rank(b));
    for (const one of ended.slice(0, KEPT / 10)) this.byKey.delete(one.key);
    this._ids = new Set();
  }

  /** Those that `keep` selects, the newest first, by severity. */
  bySeverity(keep) {
    const found = { critical: [], warning: [], info: [] };
    for (const one of this.byKey.values()) if (keep(one)) found[one.severity]?.push(one);
    for (const list of Object.values(found))
      list.sort((a, b) => b.began - a.began || (a.key < b.key ? 1 : -1));
    return found;
  }

  /** How many are open. */
  get open() {
    let open = 0;
    for (const one of this.byKey.values()) if (isOpen(one)) open += 1;
    return open;
  }

  /** Ids that wait for an acknowledgement, of all or of the episodes given. */
  due(some = this.byKey.values()) {
    return [...some].flatMap((one) => [...one.due]);
  }
}

export const isOpen = (one) => !one.notice && one.cleared === 0;
