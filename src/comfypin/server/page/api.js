// Asks the server's public API. Addresses are relative to the page, so that it works below any path prefix.
const base = new URL(".", document.baseURI);
let whenSignedOut = () => {};

export class ApiError extends Error {
  constructor(status, message, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

export const onSignedOut = (callback) => { whenSignedOut = callback; };

export function address(path, query) {
  const url = new URL(path.replace(/^\//, ""), base);
  for (const [name, value] of Object.entries(query || {})) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url.href;
}

async function ask(method, path, { query, body, signal, type } = {}) {
  const isJson = body !== undefined && type === undefined;
  let response;
  try {
    response = await fetch(address(path, query), {
      method,
      signal,
      credentials: "same-origin",
      headers: { Accept: "application/json", ...(body !== undefined && { "Content-Type": type || "application/json" }) },
      body: isJson ? JSON.stringify(body) : body,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "", null);
  }
  const text = await response.text();
  let answer = null;
  try { answer = text ? JSON.parse(text) : null; } catch { answer = text; }
  if (response.ok) return answer;
  if (response.status === 401) whenSignedOut();
  const told = answer && answer.error;
  throw new ApiError(response.status, (told && told.message) || told || response.statusText, answer);
}

export const get = (path, query, options) => ask("GET", path, { query, ...options });
export const post = (path, body = {}, options) => ask("POST", path, { body, ...options });
export const remove = (path) => ask("DELETE", path);
