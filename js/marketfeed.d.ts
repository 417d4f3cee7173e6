/** @import * as I from "./internal.js" */
export const VERSION: "0.1.0";
/** @type {import("./types.js").Connect} */
export const connect: import("./types.js").Connect;
