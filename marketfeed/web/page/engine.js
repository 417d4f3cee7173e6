/* Requests to the engine with this tab's key or token, and where that is kept: in sessionStorage, which ends with
 * the tab; in memory where storage is denied. Never in a URL, a cookie or localStorage. */

const KEY = "marketfeed.token";
let token = null;
try {
  token = sessionStorage.getItem(KEY);
} catch {
  /* storage is denied */
}

export const getToken = () => token;

/** Keep a token for this tab; null forgets it. */
export function setToken(value) {
  token = value;
  try {
    if (value === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, value);
  } catch {
    /* storage is denied: the variable has it */
  }
}

/** The option `token` of connect(): absent without one, as null would mean that there will be none. */
export const credentials = () => (token === null ? {} : { token: () => token });

/** An answer other than 2xx, with its `status`; 0 if none came. */
export class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Request JSON from the engine; null for an answer without body. Raises RequestError. */
export async function api(path, { method = "GET", body, bearer = token, signal } = {}) {
  const headers = bearer ? { Authorization: `Bearer ${bearer}` } : {};
  let answer;
  let text;
  try {
    answer = await fetch(path, {
      method,
      headers,
      body: body && JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
    });
    text = await answer.text();
  } catch (error) {
    throw new RequestError(0, error.name === "AbortError" ? "aborted" : "the engine does not answer");
  }
  let parsed = null;
  try {
    parsed = text ? JSON.parse(text) : null;
  } catch {
    /* such as a proxy's page */
  }
  if (!answer.ok) throw new RequestError(answer.status, parsed?.error?.msg ?? `status ${answer.status}`);
  return parsed;
}
