/** The browser client of marketfeed: what the engine is, as GET /v1/engine tells it. */

/**
 * Return the engine's description.
 * @param {string} [base] URL of the engine; without it the origin of the page
 * @param {string} [token]
 * @returns {Promise<any>}
 */
export async function engine(base = "/", token = undefined) {
  const headers = token === undefined ? undefined : { Authorization: `Bearer ${token}` };
  const answer = await fetch(new URL("/v1/engine", new URL(base, globalThis.location?.href)), { headers });
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  return answer.json();
}
