/* Elements without innerHTML: every text is a text node, so a symbol's name can never be markup. */

/**
 * Make an element. `props`: `class`, `text`, `on` (listeners by type), `style` (custom properties, set through
 * CSSOM, which a policy without inline styles allows), anything else is an attribute; null and false are left out.
 */
export function h(tag, props = {}, ...children) {
  const element = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("aria-"))
      element.setAttribute(name, String(value)); // "false" is a value there
    else if (value === false) continue;
    else if (name === "text") element.textContent = value;
    else if (name === "on")
      for (const type of Object.keys(value)) element.addEventListener(type, value[type]);
    else if (name === "style")
      for (const key of Object.keys(value)) element.style.setProperty(key, value[key]);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** Set the text of an element if it differs: an unchanged text costs no layout. */
export function setText(element, text) {
  const node = element.firstChild;
  if (node === null) element.textContent = text;
  else if (node.nodeValue !== text) node.nodeValue = text;
}

/** Set or remove an attribute if it differs. */
export function setAttribute(element, name, value) {
  if (value === null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

let announced = 0;

/** Have screen readers say `text`, at most once a second: what comes faster is dropped. */
export function announce(text) {
  const now = performance.now();
  if (now - announced < 1000) return;
  announced = now;
  $("live").textContent = text;
}

/** A 16 px icon, one path each, drawn in the text's colour. */
const ICONS = {
  close: "M4 4l8 8M12 4l-8 8",
  search: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zM10.8 10.8L14 14",
  sun: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1",
  moon: "M13 9.5A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 13 9.5z",
  auto: "M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12",
  plug: "M5 1.5v3.5M11 1.5v3.5M3.5 5h9v2a4.5 4.5 0 0 1-9 0zM8 11.5v3",
  pause: "M5.5 3v10M10.5 3v10",
  play: "M5 3l7.5 5L5 13z",
  check: "M3 8.5l3.2 3.2L13 4.8",
  bell: "M4 11V7a4 4 0 0 1 8 0v4l1 1.2H3zM6.7 14h2.6",
  link: "M6 3H3v10h10v-3M9 3h4v4M13 3L7.5 8.5",
};

export const icon = (name) =>
  h(
    "svg:svg",
    { viewBox: "0 0 16 16", width: 16, height: 16, class: "icon", "aria-hidden": "true" },
    h("svg:path", { d: ICONS[name] }),
  );
