/* One symbol's ticks, and which of them each tier delivered and when; and the pictures of that.
 *
 * Ticks are known by `n`, which counts without holes: what one tier leaves out, another one may have shown.
 */
import { colours } from "./spark.js";

const SIZE = 16384; // ticks; a power of two
export const WINDOW_MS = 12e3;

/** The ticks of all tiers together, in a ring indexed by `n`. */
export class Ticks {
  constructor(tiers) {
    this.tiers = tiers;
    this.number = new Float64Array(SIZE);
    this.at = new Float64Array(SIZE); // receipt, ms
    this.mid = new Float64Array(SIZE);
    this.arrived = Array.from({ length: tiers }, () => new Float64Array(SIZE)); // 0: not delivered
    this.newest = 0;
  }

  /** Take a quote that tier `tier` delivered at `now`. */
  take(tier, message, now) {
    const { n } = message;
    if (n + SIZE <= this.newest) return;
    const slot = n % SIZE;
    if (this.number[slot] !== n) {
      this.number[slot] = n;
      this.at[slot] = message.r / 1000;
      this.mid[slot] = mid(message);
      for (const arrived of this.arrived) arrived[slot] = 0;
    }
    this.arrived[tier][slot] = now;
    if (n > this.newest) this.newest = n;
  }

  /** Forget all, as after a restart of the engine. */
  clear() {
    this.number.fill(0);
    this.newest = 0;
  }
}

function mid({ bp, bs, ap, as }) {
  if (bs > 0) return as > 0 ? (bp + ap) / 2 : bp;
  return as > 0 ? ap : NaN;
}

/** Draws the lane of one tier: its price over every tick's, and below which ticks came. */
export class Lane {
  constructor(canvas, tier) {
    this._canvas = canvas;
    this._tier = tier;
    this._width = 0;
  }

  resized() {
    this._width = 0;
  }

  _fit() {
    const { clientWidth: width, clientHeight: height } = this._canvas;
    const ratio = Math.min(devicePixelRatio, 2);
    this._canvas.width = Math.round(width * ratio);
    this._canvas.height = Math.round(height * ratio);
    this._context = this._canvas.getContext("2d");
    this._context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this._width = width;
    this._height = height;
    this._every = new Uint8Array(width + 1);
    this._came = new Uint8Array(width + 1);
  }

  /** `range` is the lowest and highest mid of all ticks in view. */
  draw(ticks, now, range) {
    if (this._width !== this._canvas.clientWidth) this._fit();
    if (this._width === 0) return;
    const context = this._context;
    context.clearRect(0, 0, this._width, this._height);
    const strip = 20;
    const bottom = this._height - strip - 8;
    const scale = { now, low: range.low, k: (bottom - 6) / (range.high - range.low || 1), bottom };
    this._line(ticks, ticks.at, scale, colours.faint, 1);
    this._line(ticks, ticks.arrived[this._tier], scale, colours.accent, 1.75);
    this._strip(ticks, now, this._height - strip, strip);
  }

  _x(at, now) {
    return this._width * (1 - (now - at) / WINDOW_MS);
  }

  /** A price holds until the next one, so the line has steps; `times` are when a price came, 0: never. */
  _line(ticks, times, { now, low, k, bottom }, colour, width) {
    const context = this._context;
    const from = now - WINDOW_MS;
    context.beginPath();
    let x = this._width;
    let drawn = false;
    for (let n = ticks.newest; n > 0 && n > ticks.newest - SIZE; n -= 1) {
      const slot = n % SIZE;
      if (ticks.number[slot] !== n) continue;
      const at = times[slot];
      const value = ticks.mid[slot];
      if (at === 0 || value !== value) continue;
      const y = bottom - (value - low) * k;
      if (drawn) context.lineTo(x, y);
      else context.moveTo(x, y);
      drawn = true;
      x = Math.max(0, this._x(at, now));
      context.lineTo(x, y);
      if (at < from) break;
    }
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.lineJoin = "round";
    context.stroke();
  }

  /** A mark per tick: short and pale for each one known, tall for those that this tier delivered. */
  _strip(ticks, now, top, height) {
    const { _every: every, _came: came, _context: context } = this;
    every.fill(0);
    came.fill(0);
    const arrived = ticks.arrived[this._tier];
    for (let n = ticks.newest; n > 0 && n > ticks.newest - SIZE; n -= 1) {
      const slot = n % SIZE;
      if (ticks.number[slot] !== n) continue;
      const x = Math.floor(this._x(ticks.at[slot], now));
      if (x < 0) break;
      if (x > this._width) continue;
      every[x] = 1;
      if (arrived[slot]) came[x] = 1;
    }
    context.fillStyle = colours.faint;
    for (let x = 0; x <= this._width; x += 1)
      if (every[x] && !came[x]) context.fillRect(x, top + height - 7, 1, 7);
    context.fillStyle = colours.accent;
    for (let x = 0; x <= this._width; x += 1) if (came[x]) context.fillRect(x, top, 1, height);
  }
}

/** The lowest and highest mid of the ticks that are in view. */
export function rangeOf(ticks, now) {
  let low = Infinity;
  let high = -Infinity;
  for (let n = ticks.newest; n > 0 && n > ticks.newest - SIZE; n -= 1) {
    const slot = n % SIZE;
    if (ticks.number[slot] !== n) continue;
    const value = ticks.mid[slot];
    if (value < low) low = value;
    if (value > high) high = value;
    if (ticks.at[slot] < now - WINDOW_MS) break;
  }
  return low === Infinity ? { low: 0, high: 1 } : { low, high };
}
