// Requests to the server that the page comes from.

const KEY = "zoo.key";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const setKey = (key) => sessionStorage.setItem(KEY, key);

function headers(body) {
  const key = sessionStorage.getItem(KEY);
  return { ...(body ? { "Content-Type": "application/json" } : {}), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function answer(path, body, signal) {
  const found = await fetch(path, {
    method: body ? "POST" : "GET",
    headers: headers(body),
    body: body ? JSON.stringify(body) : undefined,
    signal,
  });
  if (!found.ok) {
    const error = await found.json().catch(() => null);
    throw new Refused(found.status, error?.error?.message ?? `The server answered ${found.status}.`);
  }
  return found;
}

export const get = async (path) => (await answer(path)).json();
export const post = async (path, body, signal) => (await answer(path, body, signal)).json();

/** Yield the objects of server-sent events; an error event is thrown. */
export async function* stream(path, body, signal) {
  const found = await answer(path, { ...body, stream: true }, signal);
  const reader = found.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    const events = buffer.split("\n\n");
    buffer = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const parsed = JSON.parse(data);
      if (parsed.error) throw new Refused(500, parsed.error.message);
      yield parsed;
    }
  }
}
