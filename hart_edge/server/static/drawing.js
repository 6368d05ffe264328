// The server's own API: what it has, and a picture as a stream of events.
// In: what is to be drawn. Out: events in their order; an Error whose message can be shown.

let key = sessionStorage.getItem("hart-edge-key") || "";

export function useKey(value) {
  key = value;
  sessionStorage.setItem("hart-edge-key", value);
}

export class KeyNeeded extends Error {}

async function ask(path, more = {}) {
  const headers = { ...(key && { authorization: `Bearer ${key}` }), ...more.headers };
  let answer;
  try {
    answer = await fetch(path, { ...more, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (answer.status === 401) throw new KeyNeeded("The server asks for a key.");
  if (!answer.ok) throw new Error(await wordsOf(answer));
  return answer;
}

async function wordsOf(answer) {
  try {
    return sentence((await answer.json()).error.message);
  } catch {
    return `The server answered with status ${answer.status}.`;
  }
}

function sentence(words) {
  return words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");
}

export async function capabilities() {
  return (await ask("/v1/capabilities")).json();
}

// Calls heard(name, data) for every event; returns when the stream ends. signal: of an AbortController, which also
// ends the drawing on the server, within one scale.
export async function draw(body, signal, heard) {
  const answer = await ask("/v1/scales", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", ended = false;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const name = /^event: (.*)$/m.exec(block), data = /^data: (.*)$/m.exec(block);
      if (!name || !data) continue;
      const told = JSON.parse(data[1]);
      if (name[1] === "error") throw new Error(sentence(told.error.message));
      if (name[1] === "cancelled") throw new Error("The picture was cancelled.");
      ended = ended || name[1] === "done";
      heard(name[1], told);
    }
  }
  if (!ended) throw new Error("The server ended before the picture was done. Try again.");
}

export function blobOf(base64, type) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type });
}
