/* Sparklines: the mid of the last minute, a point a second, in a canvas per visible row. */
import { SECONDS } from "./book.js";

/** Colours of canvases, read from the style sheet again when the theme changes. */
export const colours = {};

export function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of [
    "ink",
    "dim",
    "faint",
    "line",
    "up",
    "down",
    "accent",
    "warn",
    "bad",
    "paper",
    "raise",
  ]) {
    colours[name] = probe(style.getPropertyValue(`--${name}`).trim());
  }
}

/** Resolve `light-dark()`, which canvases do not know. */
function probe(value) {
  const element = document.createElement("i");
  element.style.color = value;
  document.body.append(element);
  const found = getComputedStyle(element).color;
  element.remove();
  return found;
}

export class Sparkline {
  constructor(canvas) {
    this._canvas = canvas;
    this._context = canvas.getContext("2d");
    this._width = 0;
    this._height = 0;
  }

  _fit() {
    const { clientWidth, clientHeight } = this._canvas;
    const ratio = Math.min(devicePixelRatio, 2);
    if (clientWidth === this._width && clientHeight === this._height) return;
    this._width = clientWidth;
    this._height = clientHeight;
    this._canvas.width = Math.round(clientWidth * ratio);
    this._canvas.height = Math.round(clientHeight * ratio);
    this._context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  /** Forget the canvas's size: it is measured at the next drawing. */
  resized() {
    this._width = 0;
  }

  draw(book, row, live) {
    if (this._width === 0) this._fit();
    const { _context: context, _width: width, _height: height } = this;
    if (width === 0) return;
    context.clearRect(0, 0, width, height);
    const { minute, slot } = book;
    const start = row * SECONDS;
    let low = Infinity;
    let high = -Infinity;
    for (let i = 0; i < SECONDS; i += 1) {
      const value = minute[start + i];
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low === Infinity) return;
    const scale = high > low ? (height - 5) / (high - low) : 0;
    const middle = height / 2;
    const step = (width - 4) / (SECONDS - 1);
    let x = 0;
    let y = 0;
    let drawn = 0;
    context.beginPath();
    for (let i = 1; i <= SECONDS; i += 1) {
      const value = minute[start + ((slot + i) % SECONDS)];
      if (value !== value) continue;
      x = 1 + (i - 1) * step;
      y = scale ? 2.5 + (high - value) * scale : middle;
      if (drawn) context.lineTo(x, y);
      else context.moveTo(x, y);
      drawn += 1;
    }
    const move = book.mid[row] - book.base[row];
    const colour = !live || !(move !== 0) ? colours.dim : move > 0 ? colours.up : colours.down;
    context.strokeStyle = colour;
    context.lineWidth = 1.25;
    context.lineJoin = "round";
    context.stroke();
    context.fillStyle = colour;
    context.beginPath();
    context.arc(x, y, 1.75, 0, 2 * Math.PI);
    context.fill();
  }
}
