/* Numbers as text. Minus is U+2212, as wide as a digit's plus; every figure of a column has the same digits. */

const MINUS = "\u2212";
const POW = [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export const NONE = "–"; // there is no value

const signed = (text) => (text.charCodeAt(0) === 45 ? MINUS + text.slice(1) : text);

/** A price with exactly `digits` decimals. */
export const price = (value, digits) => (Number.isNaN(value) ? NONE : signed(value.toFixed(digits)));

/** The fewest decimals, at least `digits`, that show `value` exactly; prices are exact to 1e-9. */
export function digitsOf(value, digits) {
  let found = digits;
  while (found < 9) {
    const scaled = value * POW[found];
    if (Math.abs(scaled - Math.round(scaled)) <= 4e-10 * POW[found] + Math.abs(scaled) * 4e-16) break;
    found += 1;
  }
  return found;
}

/** A size: whole numbers grouped, small ones with up to five significant digits. */
export function size(value) {
  if (!(value > 0)) return NONE;
  if (value >= 1e6)
    return value < 1e9 ? `${(value / 1e6).toFixed(value < 1e7 ? 2 : 1)}\u2009M` : compact(value);
  if (Number.isInteger(value) || value >= 1e5) return GROUPED.format(value);
  return String(value >= 1 ? Number(value.toFixed(value >= 100 ? 1 : 3)) : Number(value.toPrecision(3)));
}

/** A count with a unit prefix from 10 million on: `12.3 M`. */
export function compact(value) {
  if (value < 1e7) return GROUPED.format(value);
  if (value < 1e9) return `${(value / 1e6).toFixed(1)}\u2009M`;
  return `${(value / 1e9).toFixed(2)}\u2009G`;
}

export const count = (value) => GROUPED.format(value);

/** A change with its sign: `+0.12`. Nothing that rounds to zero has a sign. */
export function change(value, digits = 2) {
  if (Number.isNaN(value)) return NONE;
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? MINUS : "+") + text;
}

/** A figure with decimals that fit its size: `0.42`, `4.2`, `42`. */
export function figure(value) {
  if (Number.isNaN(value)) return NONE;
  const least = Math.abs(value);
  return signed(least >= 1000 ? GROUPED.format(value) : value.toFixed(least >= 100 ? 0 : 1));
}

/** An age or duration in ms for people: `<1 s`, `12 s`, `3 min`, `2 h`, `5 d`. Never negative. */
export function age(ms) {
  if (Number.isNaN(ms)) return NONE;
  if (ms < 1000) return "<1 s";
  if (ms < 100e3) return `${Math.floor(ms / 1000)} s`;
  if (ms < 100 * 60e3) return `${Math.floor(ms / 60e3)} min`;
  if (ms < 48 * 3600e3) return `${Math.floor(ms / 3600e3)} h`;
  return `${Math.floor(ms / 86400e3)} d`;
}

/** A duration in ns with three digits and its unit: `412 µs`, `1.20 ms`. */
export function ns(value) {
  if (value < 1e3) return `${value} ns`;
  const [scaled, unit] =
    value < 999.5e3 ? [value / 1e3, "µs"] : value < 999.5e6 ? [value / 1e6, "ms"] : [value / 1e9, "s"];
  return `${scaled.toFixed(scaled >= 99.95 ? 0 : scaled >= 9.995 ? 1 : 2)} ${unit}`;
}

/** A duration in ms, as `ns` shows it. */
export const ms = (value) =>
  value === null || value === undefined || Number.isNaN(value) ? NONE : ns(value * 1e6);

export function bytes(value) {
  if (value < 1e4) return `${value} B`;
  if (value < 1e7) return `${(value / 1e3).toFixed(1)} kB`;
  return value < 1e10 ? `${(value / 1e6).toFixed(1)} MB` : `${(value / 1e9).toFixed(2)} GB`;
}

const two = (value) => String(value).padStart(2, "0");

/** Local time of day of `ms` since the epoch, with milliseconds. */
export function clock(ms, parts = 3) {
  const date = new Date(ms);
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return parts ? `${time}.${String(date.getMilliseconds()).padStart(3, "0")}` : time;
}

/** Local date and time of `ms` since the epoch, to the second. */
export function moment(ms) {
  const date = new Date(ms);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(ms, 0)}`;
}
