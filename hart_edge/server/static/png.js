// How a PNG was drawn: the JSON in its iTXt chunk "hart-edge". docs/cli.md has the keys.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

// The note of a file, with `seed` as a string, since it may be beyond what a number of JavaScript holds exactly.
// null where the file has none.
export function readNote(buffer) {
  const bytes = new Uint8Array(buffer), view = new DataView(buffer);
  if (SIGNATURE.some((byte, at) => bytes[at] !== byte)) return null;
  for (let at = 8; at + 12 <= bytes.length;) {
    const size = view.getUint32(at), kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (kind === "iTXt" && at + 8 + size <= bytes.length) {
      const note = noteIn(bytes.subarray(at + 8, at + 8 + size));
      if (note) return note;
    }
    at += 12 + size;
  }
  return null;
}

function noteIn(chunk) {
  const keyword = chunk.indexOf(0);
  if (new TextDecoder("latin1").decode(chunk.subarray(0, keyword)) !== "hart-edge") return null;
  if (chunk[keyword + 1] !== 0) return null; // compressed; hart-edge writes none so
  const language = chunk.indexOf(0, keyword + 3), translated = chunk.indexOf(0, language + 1);
  const text = new TextDecoder().decode(chunk.subarray(translated + 1));
  try {
    const note = JSON.parse(text), seed = /"seed":\s*(\d+)/.exec(text.replace(/^.*?"prompt":\s*("(?:[^"\\]|\\.)*"|null)/s, ""));
    return note.settings && seed ? { ...note, seed: seed[1] } : null;
  } catch {
    return null;
  }
}
