// The same picture elsewhere: as a command, as Python, as curl. `changed`: the settings that are not the bundle's own.

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const python = (text) => JSON.stringify(text); // its escapes are Python's

const option = ([name, value]) => {
  const word = name.replaceAll("_", "-");
  return typeof value === "boolean" ? `--${value ? "" : "no-"}${word}` : `--${word} ${value}`;
};
const keyword = ([name, value]) => `${name}=${typeof value === "boolean" ? (value ? "True" : "False") : value}`;

export function command({ prompt, seed, changed, bundle }) {
  const words = Object.entries(changed).map(option);
  return ["hart-edge generate", shell(prompt), `--bundle bundles/${bundle}`, `--seed ${seed}`, ...words, "--out picture.png"].join(" ");
}

export function asPython({ prompt, seed, changed, bundle }) {
  const words = [`bundle="bundles/${bundle}"`, `seed=${seed}`, ...Object.entries(changed).map(keyword)].join(", ");
  return `import hart_edge\n\nhart_edge.generate(${python(prompt)}, ${words}).save("picture.png")\n`;
}

export function curl({ prompt, seed, changed, bundle }) {
  const body = JSON.stringify({ model: bundle, prompt, seed: 0, ...changed }).replace('"seed":0', `"seed":${seed}`);
  return `curl -s ${location.origin}/v1/images/generations -H 'content-type: application/json' \\\n  -d ${shell(body)} \\\n  | python3 -c 'import base64, json, sys; sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)["data"][0]["b64_json"]))' > picture.png`;
}
