// The page: what is asked for, the picture that forms, its scales, and the pictures of this visit.

import { KeyNeeded, blobOf, capabilities, draw, useKey } from "./drawing.js";
import { readNote } from "./png.js";
import { Settings } from "./settings.js";
import { asPython, command, curl } from "./snippets.js";

const $ = (id) => document.getElementById(id);
const SEEDS = 2 ** 32, MOST = 60; // pictures in the gallery
const still = matchMedia("(prefers-reduced-motion: reduce)");

let bundles = [], shown = null, running = null, pace = 0;
const entries = [];
const settings = new Settings($("settings"), () => {
  const count = Object.keys(settings.values()).length;
  $("changed").textContent = count ? `${count} changed` : "";
});

// What the server has.

async function begin() {
  try {
    const told = await capabilities();
    bundles = told.bundles;
    $("bundle").replaceChildren(...bundles.map((each) => new Option(each.name)));
    $("bundle-choice").hidden = bundles.length < 2;
    useBundle();
    say("");
  } catch (error) {
    if (error instanceof KeyNeeded) askForKey();
    else say(error.message, true);
  }
}

const bundle = () => bundles.find((each) => each.name === $("bundle").value) || bundles[0];

function useBundle() {
  const { name, sizes, scales, styles, examples, context_tokens: words } = bundle();
  $("facts").textContent = `${name} · ${sizes[0].replace("x", " × ")} pixels · ${scales.length} steps`;
  settings.show(bundle().settings);
  const home = $("styles");
  home.hidden = !styles.length;
  home.querySelectorAll("label").forEach((each) => each.remove());
  for (const style of ["", ...styles]) {
    const label = document.createElement("label"), input = document.createElement("input"), text = document.createElement("span");
    Object.assign(input, { type: "radio", name: "style", value: style, checked: !style });
    text.textContent = style || "any";
    label.append(input, text);
    home.append(label);
  }
  offer(examples);
  $("hint").textContent = `Up to about ${Math.round(words * 0.75)} words.`;
  $("scrubber").style.setProperty("--n", scales.length);
  if (!shown) outline(scales);
}

// Prompts that the bundle's card names: a click draws one.
function offer(examples) {
  const home = $("examples");
  home.hidden = !examples.length;
  home.querySelectorAll("button").forEach((each) => each.remove());
  for (const prompt of examples) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = prompt;
    button.addEventListener("click", () => {
      if (running) return;
      $("prompt").value = prompt;
      $("form").requestSubmit();
    });
    home.append(button);
  }
}

function askForKey() {
  $("key-dialog").showModal();
}

$("key-form").addEventListener("submit", () => {
  useKey($("key").value.trim());
  $("key").value = "";
  begin();
});
$("bundle").addEventListener("change", useBundle);

// What is asked for.

const chosenStyle = () => document.querySelector("input[name=style]:checked")?.value || "";
const dice = () => String(crypto.getRandomValues(new Uint32Array(1))[0] % SEEDS);
const locked = () => $("lock").getAttribute("aria-pressed") === "true";

function lockSeed(on) {
  $("lock").setAttribute("aria-pressed", String(on));
  $("shackle").setAttribute("d", on ? "M8 11V8a4 4 0 0 1 8 0v3" : "M8 11V8a4 4 0 0 1 7.6-1.7");
}

$("dice").addEventListener("click", () => { $("seed").value = dice(); });
$("lock").addEventListener("click", () => lockSeed(!locked()));
$("seed").addEventListener("input", () => lockSeed($("seed").value !== ""));
$("reset").addEventListener("click", () => settings.reset());
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = $("prompt").value.trim(), style = chosenStyle();
  if (!locked() || !$("seed").value) $("seed").value = dice();
  start({ prompt: style && !words.endsWith(`, ${style}`) ? `${words}, ${style}` : words, seed: $("seed").value, changed: settings.values() });
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
});
$("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) running.abort();
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName);
  if (event.key === "/" && !typing) {
    event.preventDefault();
    $("prompt").focus();
  }
});

// A picture forms.

async function start(asked) {
  if (!bundles.length || running) return;
  clearInterval(pace);
  const entry = { ...asked, bundle: bundle().name, sides: bundle().scales, scales: [], picture: null };
  running = new AbortController();
  busy(true);
  shown = entry;
  show(entry, -1);
  say("Asking ...");
  try {
    const body = { prompt: entry.prompt, seed: entry.seed, bundle: entry.bundle, ...entry.changed };
    await draw(body, running.signal, (name, data) => heard(entry, name, data));
    entries.unshift(entry);
    while (entries.length > MOST) forget(entries.pop());
    gallery();
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else if (error instanceof KeyNeeded) askForKey();
    else say(error.message, true);
    if (!entry.picture) {
      shown = entries[0] || null;
      forget(entry);
      show(shown, shown ? shown.scales.length - 1 : -1);
    }
  } finally {
    running = null;
    busy(false);
  }
}

function heard(entry, name, data) {
  if (name === "job") {
    entry.used = data.settings;
    entry.sha256 = data.bundle_sha256;
    say(data.warnings.join(" ") || "Drawing ...");
  } else if (name === "queue") {
    say(data.position ? `Waiting: ${data.position} before this one.` : "Waiting: this one is next.");
  } else if (name === "scale") {
    const url = URL.createObjectURL(blobOf(data.preview, data.media_type));
    entry.scales.push({ ...data, preview: undefined, url });
    if (shown === entry) show(entry, data.scale);
  } else if (name === "done") {
    entry.picture = blobOf(data.image, data.media_type);
    entry.url = URL.createObjectURL(entry.picture);
    entry.seconds = data.seconds;
    if ($("status").textContent.endsWith("...") || $("status").textContent.startsWith("Waiting")) say(`Done in ${data.seconds.toFixed(2)} s.`);
    if (shown === entry) show(entry, entry.scales.length - 1);
  }
}

function busy(on) {
  $("draw").hidden = on;
  $("stop").hidden = !on;
  for (const id of ["another", "same"]) $(id).disabled = on;
  $("frame").classList.toggle("waiting", on && !shown?.scales.length);
}

function say(words, wrong = false) {
  $("status").textContent = words;
  $("status").classList.toggle("wrong", wrong);
}

// What is shown: an entry as of one of its scales.

function show(entry, at) {
  const scale = entry?.scales[at], done = Boolean(entry?.picture) && at === entry.scales.length - 1;
  $("empty").hidden = Boolean(entry);
  $("frame").classList.toggle("done", done);
  $("frame").classList.toggle("waiting", Boolean(running) && !scale);
  $("play").hidden = !entry?.picture;
  $("grid").hidden = !scale;
  $("scrubber").hidden = !bundles.length;
  $("after").hidden = !entry?.picture;
  thumbs(entry, at);
  if (!scale) {
    for (const id of ["picture", "below"]) $(id).hidden = true;
    $("caption").textContent = entry ? entry.prompt : "Each step has more detail than the one before.";
    return;
  }
  layer(done ? entry.url : scale.url, `${entry.prompt}, step ${at + 1} of ${entry.sides.length}`);
  $("grid").style.setProperty("--cells", scale.side);
  const total = entry.sides.length, cells = scale.side ** 2;
  const part = scale.tokens < cells ? `, ${scale.tokens} of ${cells} cells` : "";
  $("caption").textContent = `Step ${at + 1} of ${total} · ${scale.side} × ${scale.side} grid${part} · ${scale.seconds.toFixed(2)} s`;
  if (entry.picture) about(entry);
}

// The new picture fades in over the last one.
function layer(url, words) {
  const [picture, below] = [$("picture"), $("below")];
  if (picture.src === url && !picture.hidden) return;
  if (!picture.hidden) {
    below.src = picture.src;
    below.hidden = false;
  }
  picture.src = url;
  picture.alt = words;
  picture.hidden = false;
  picture.classList.remove("fresh");
  void picture.offsetWidth; // starts the animation anew
  picture.classList.add("fresh");
}

function outline(sides) {
  $("scrubber").hidden = false;
  thumbs({ sides, scales: [] }, -1);
}

function thumbs(entry, at) {
  const sides = entry?.sides || bundle()?.scales || [];
  $("scrubber").style.setProperty("--n", Math.max(1, sides.length));
  $("thumbs").replaceChildren(...sides.map((side, number) => {
    const cell = document.createElement("div"), there = entry?.scales[number];
    const picture = document.createElement(there ? "img" : "i");
    picture.style.setProperty("--cells", side);
    if (there) Object.assign(picture, { src: there.url, alt: "" });
    cell.append(picture, `${side}×${side}`);
    cell.classList.toggle("now", number === at);
    return cell;
  }));
  const range = $("scale"), count = entry?.scales.length || 0;
  range.disabled = !count;
  range.style.visibility = count ? "visible" : "hidden";
  range.max = Math.max(0, sides.length - 1);
  range.value = Math.max(0, at);
  range.setAttribute("aria-valuetext", at < 0 ? "none yet" : `${at + 1} of ${sides.length}, a grid of ${sides[at]} by ${sides[at]}`);
}

$("scale").addEventListener("input", () => {
  clearInterval(pace);
  if (!shown?.scales.length) return;
  show(shown, Math.min(Number($("scale").value), shown.scales.length - 1));
});

$("play").addEventListener("click", () => {
  clearInterval(pace);
  const entry = shown;
  let at = 0;
  show(entry, 0);
  pace = setInterval(() => {
    at += 1;
    if (shown !== entry || at >= entry.scales.length) clearInterval(pace);
    else show(entry, at);
  }, still.matches ? 700 : 380);
});

function about(entry) {
  const told = $("told"), name = document.createElement("b");
  name.textContent = entry.prompt;
  const used = Object.entries(entry.used || {}).map(([key, value]) => `${key} ${Array.isArray(value) ? value.join(" ") : value}`);
  told.replaceChildren(name, ` · seed ${entry.seed} · ${used.join(" · ")} · ${entry.bundle} ${(entry.sha256 || "").slice(0, 10)} · ${entry.seconds.toFixed(2)} s`);
  $("download").href = entry.url;
  $("download").download = `hart-edge-${entry.seed}.png`;
}

$("another").addEventListener("click", () => again(shown, dice()));
$("same").addEventListener("click", () => again(shown, shown.seed));

function again(entry, seed) {
  $("seed").value = seed;
  start({ prompt: entry.prompt, seed, changed: entry.changed });
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = { command, python: asPython, curl }[button.dataset.copy](shown);
    try {
      await navigator.clipboard.writeText(text);
      say("Copied.");
    } catch {
      say(`The browser does not let this page copy. Here it is: ${text}`);
    }
  });
}

// The pictures of this visit, and those of earlier ones.

function gallery() {
  $("none").hidden = entries.length > 0;
  $("gallery").replaceChildren(...entries.map((entry) => {
    const item = document.createElement("li"), button = document.createElement("button"), image = document.createElement("img");
    const name = document.createElement("b"), small = document.createElement("small");
    Object.assign(image, { src: entry.url, alt: "", loading: "lazy" });
    name.textContent = entry.prompt;
    small.textContent = `seed ${entry.seed}`;
    button.type = "button";
    button.setAttribute("aria-label", `${entry.prompt}, seed ${entry.seed}`);
    button.title = Object.entries(entry.used || {}).map(([key, value]) => `${key} ${value}`).join(", ");
    button.setAttribute("aria-current", String(entry === shown));
    button.append(image, name, small);
    button.addEventListener("click", () => {
      if (running) return;
      clearInterval(pace);
      shown = entry;
      take(entry.prompt, entry.seed, entry.used);
      show(entry, entry.scales.length - 1);
      gallery();
      $("figure").scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });
    });
    item.append(button);
    return item;
  }));
}

function forget(entry) {
  for (const { url } of entry.scales) URL.revokeObjectURL(url);
  if (entry.url) URL.revokeObjectURL(entry.url);
}

// Fill the form with what a picture was drawn from.
function take(prompt, seed, used) {
  const style = bundle().styles.find((each) => prompt.endsWith(`, ${each}`)) || "";
  $("prompt").value = style ? prompt.slice(0, -style.length - 2) : prompt;
  for (const input of document.querySelectorAll("input[name=style]")) input.checked = input.value === style;
  $("seed").value = seed;
  lockSeed(true);
  if (used) settings.take(used);
}

async function read(file) {
  const note = file && readNote(await file.arrayBuffer());
  if (!note || note.prompt === null) {
    say("This file does not say how it was drawn. PNG files that hart-edge wrote do, as long as no other program saved them.", true);
    return;
  }
  const theirs = bundles.find((each) => each.name === note.bundle);
  if (theirs && theirs !== bundle()) {
    $("bundle").value = theirs.name;
    useBundle();
  }
  take(note.prompt, note.seed, note.settings);
  const other = note.bundle_sha256 !== bundle().sha256;
  say(other ? `Read. It was drawn by another bundle, ${note.bundle}, so the picture will be another one.` : "Read. Draw gives the same picture again.");
}

$("open").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  read($("file").files[0]);
  $("file").value = "";
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) read(event.dataTransfer.files[0]);
  });
}

begin();
