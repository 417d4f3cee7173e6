/** @type {import("./types.js").Inflate} */
export const inflate: import("./types.js").Inflate;
