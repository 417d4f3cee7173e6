/** @type {import("./types.js").Nodes} */
export const nodes: import("./types.js").Nodes;
