// The page: what arrives goes to its place, and what is touched acts at once.

import { drawHistogram, drawSpark, drawStages, time } from "./charts.js";
import { Link } from "./link.js";
import { Targets } from "./targets.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const view = new View($("view"));
const targets = new Targets($("targets"), view);
const palettes = {};
const HELD_MS = 900, LIST_MS = 120;

let about = null, state = null, connected = false, stopped = false;
let threshold = NaN, touched = 0, listed = 0;
let gain = { mode: "full", low: 0, high: 255 };

const link = new Link({
  hello(message) {
    about = message;
    connected = true;
    stopped = false;
    const { model, source } = message;
    $("model").textContent = model.file;
    $("backend").textContent = [model.detector, model.precision, model.size?.join("×"), `${model.backend} ${model.device}`].filter(Boolean).join(" · ");
    $("source").textContent = source.name;
    $("source").title = source.name;
    document.title = `${model.detector} · irforge live`;
    $("contract-mark").style.left = `calc(var(--thumb) / 2 + (100% - var(--thumb)) * ${share(model.threshold)})`;
    for (const [name, text] of Object.entries(message.palettes)) palettes[name] = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    offerPalettes();
    setGain(kept("gain") === "manual" ? "auto" : (kept("gain") ?? (message.depth > 8 ? "auto" : "full")));
  },

  state(message) {
    state = message;
    if (performance.now() - touched > HELD_MS && message.threshold !== threshold) setThreshold(message.threshold);
    $("fps").textContent = message.fps.toFixed(1);
    for (const name of ["p50", "p99"]) $(name).replaceChildren(...figure(time(message[name])));
    $("dropped").textContent = message.dropped.toLocaleString("en");
    $("dropped").title = `${message.dropped} of ${message.read} frames read`;
    drawSpark($("spark"), message);
    drawStages($("stages"), message.stages);
    if (message.histogram) drawLevels();
    tellStatus();
  },

  async frame(header, blob) {
    await view.show(header, blob);
    if (gain.mode !== "manual") Object.assign(gain, { low: header.low, high: header.high });
    $("where").textContent = [
      `frame ${header.index}`,
      header.seconds == null ? "" : clock(header.seconds),
      `${header.width}×${header.height}`,
      header.shutter ? "shutter closed" : "",
    ].filter(Boolean).join("  ·  ");
    filter();
  },

  down(wasStopped) {
    connected = false;
    stopped ||= wasStopped;
    tellStatus();
  },
});

// What is shown of what was found: the threshold acts here at once, and in the detector with the next frame.
function filter() {
  if (!view.header) return;
  const found = view.header.detections.filter(({ score }) => score > threshold);
  view.targets = found;
  view.draw();
  $("count").textContent = found.length === 1 ? "1 target" : `${found.length} targets`;
  $("found").textContent = found.length;
  $("none").hidden = found.length > 0;
  if (performance.now() - listed > LIST_MS) {
    listed = performance.now();
    targets.draw(found);
  } else {
    clearTimeout(filter.later);
    filter.later = setTimeout(() => targets.draw(view.targets), LIST_MS);
  }
}

function tellStatus() {
  const stalled = state && !state.paused && state.still > Math.max(3, (4 * (state.p50 ?? 0)) / 1000);
  let kind = "live", word = about?.source.camera ? "Live" : "Playing", title = "", note = "";
  if (!connected) {
    [kind, word] = stopped ? ["stopped", "Stopped"] : ["lost", "No connection"];
    title = stopped ? "irforge has stopped" : "No connection to irforge";
    note = stopped && state?.status === "stopped" && state.note ? state.note : "This page goes on by itself when it is back.";
  } else if (!state || state.status === "starting") {
    [kind, word, title] = ["connecting", "Starting", "Waiting for the first frame"];
  } else if (state.status === "stopped") {
    [kind, word, title, note] = ["stopped", "Stopped", "The detector has stopped", state.note];
  } else if (state.status === "lost") {
    [kind, word, title] = ["lost", "Source lost", "Source lost"];
    note = state.note + (state.still == null ? "" : ` · last frame ${Math.round(state.still)} s ago`);
  } else if (state.status === "ended") {
    [kind, word, title, note] = ["ended", "Ended", "The source has ended", "Start plays it again."];
  } else if (state.paused) {
    [kind, word] = ["paused", "Paused"];
  } else if (stalled) {
    [kind, word, title, note] = ["lost", "No frames", `No frames for ${Math.round(state.still)} s`, ""];
  }
  $("status").dataset.state = kind;
  $("status").lastElementChild.textContent = word + (state?.viewers > 1 ? ` · ${state.viewers} viewers` : "");
  $("stage").classList.toggle("dim", kind === "lost" || kind === "stopped");
  $("banner").hidden = !title;
  $("banner").dataset.state = kind;
  $("banner").children[0].textContent = title;
  $("banner").children[1].textContent = note;
  const held = Boolean(state?.paused) || state?.status === "ended";
  $("play").setAttribute("aria-label", held ? "Start" : "Pause");
  $("play").querySelector("use").setAttribute("href", held ? "#i-play" : "#i-pause");
  $("play").querySelector("span").textContent = held ? "Start" : "Pause";
  $("step").disabled = !state?.paused;
}

function figure([value, unit]) {
  return [value, Object.assign(document.createElement("small"), { textContent: unit })];
}

// Settings.

function share(value) {
  const { min, max } = $("threshold");
  return (value - min) / (max - min);
}

function setThreshold(value, send = false) {
  threshold = Math.min(Math.max(value, 0), 1);
  $("threshold").value = threshold;
  $("threshold").style.setProperty("--share", Math.min(Math.max(share(threshold), 0), 1));
  $("threshold-value").textContent = threshold.toFixed(2);
  const chosen = about.model.threshold, same = Math.abs(threshold - chosen) < 0.005;
  $("reset-threshold").disabled = same;
  $("reset-threshold").textContent = same ? "The contract's" : `Back to ${chosen.toFixed(2)}`;
  filter();
  if (send) {
    touched = performance.now();
    link.send({ kind: "threshold", value: threshold });
  }
}

function setGain(mode, low = gain.low, high = gain.high) {
  gain = { mode, low: Math.round(low), high: Math.max(Math.round(high), Math.round(low) + 1) };
  keep("gain", mode);
  document.querySelector(`#modes [value=${mode}]`).checked = true;
  link.send({ kind: "gain", ...gain });
  drawLevels();
}

function drawLevels() {
  if (!state?.histogram) return;
  const { low, high } = state.histogram;
  $("histogram").classList.add("ready");
  for (const id of ["low", "high"]) {
    const input = $(id);
    Object.assign(input, { min: low, max: high, step: 1 });
    input.value = gain[id];
    $(`${id}-value`).textContent = gain[id].toLocaleString("en");
  }
  drawHistogram($("histogram"), state.histogram, gain);
}

function offerPalettes() {
  if ($("palettes").childElementCount) return;
  for (const [name, rgb] of Object.entries(palettes)) {
    const label = $("palettes").appendChild(document.createElement("label"));
    const input = label.appendChild(Object.assign(document.createElement("input"), { type: "radio", name: "palette", value: name }));
    const strip = label.appendChild(document.createElement("canvas"));
    Object.assign(strip, { width: 256, height: 1 });
    const image = new ImageData(256, 1);
    for (let i = 0; i < 256; i += 1) image.data.set([...rgb.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    strip.getContext("2d").putImageData(image, 0, 0);
    label.appendChild(document.createElement("span")).textContent = name.replace("-", " ");
    input.onchange = () => setPalette(name);
  }
  setPalette(palettes[kept("palette")] ? kept("palette") : "white-hot");
}

function setPalette(name) {
  keep("palette", name);
  document.querySelector(`#palettes [value=${name}]`).checked = true;
  view.setPalette(palettes[name]);
  targets.draw(view.targets);
}

// A private window may have nowhere to keep them.
function kept(name) {
  try { return localStorage.getItem(`irforge.${name}`); } catch { return null; }
}

function keep(name, value) {
  try { localStorage.setItem(`irforge.${name}`, value); } catch { /* Then not. */ }
}

// Actions.

const pause = () => link.send({ kind: "pause", paused: !(state?.paused || state?.status === "ended") });
const chosenPalette = () => document.querySelector("#palettes :checked")?.value ?? "white-hot";

function download(name, query) {
  if (!view.header) return;
  const address = `${name}?${new URLSearchParams({ seq: view.header.seq, ...query })}`;
  Object.assign(document.createElement("a"), { href: address, download: "" }).click();
}

const snapshot = () => download("snapshot.png", { palette: chosenPalette(), ...gain });
const raw = () => download("frame.png", {});

$("play").onclick = pause;
$("step").onclick = () => link.send({ kind: "step" });
$("snapshot").onclick = snapshot;
$("raw").onclick = raw;
$("fit").onclick = () => view.whole();
view.onzoom = () => ($("fit").disabled = view.zoom <= 1);
$("threshold").oninput = ({ target }) => setThreshold(Number(target.value), true);
$("reset-threshold").onclick = () => setThreshold(about.model.threshold, true);
$("low").oninput = ({ target }) => setGain("manual", Math.min(target.value, gain.high - 1), gain.high);
$("high").oninput = ({ target }) => setGain("manual", gain.low, Math.max(target.value, gain.low + 1));
for (const input of document.querySelectorAll("#modes input")) input.onchange = () => setGain(input.value);
for (const name of ["boxes", "labels", "trails"]) {
  $(name).checked = kept(name) !== "no";
  view.marks[name] = $(name).checked;
  $(name).onchange = ({ target }) => {
    view.marks[name] = target.checked;
    keep(name, target.checked ? "yes" : "no");
    view.draw();
  };
}
$("help").onclick = () => $("keys").showModal();
$("theme").onclick = () => {
  const dark = getComputedStyle(document.documentElement).getPropertyValue("--is-dark").trim() === "1";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  keep("theme", document.documentElement.dataset.theme);
};
if (kept("theme")) document.documentElement.dataset.theme = kept("theme");

const KEYS = {
  " ": pause,
  ".": () => link.send({ kind: "step" }),
  s: snapshot,
  r: raw,
  "[": () => setThreshold(Math.max(threshold - 0.01, 0.01), true),
  "]": () => setThreshold(Math.min(threshold + 0.01, 0.99), true),
  f: () => setGain("full"),
  a: () => setGain("auto"),
  m: () => setGain("manual"),
  b: () => $("boxes").click(),
  l: () => $("labels").click(),
  t: () => $("trails").click(),
  "+": () => view.zoomBy(1.5),
  "=": () => view.zoomBy(1.5),
  "-": () => view.zoomBy(1 / 1.5),
  "0": () => view.whole(),
  "?": () => $("keys").showModal(),
};
document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  // Space presses the button that has the focus.
  if (key === " " && target.closest("button, input")) return;
  const palette = Object.keys(palettes)[Number(key) - 1];
  const act = palette ? () => setPalette(palette) : KEYS[key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
});

function clock(seconds) {
  const whole = Math.floor(seconds), two = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  return `${hours ? `${hours}:` : ""}${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}.${two(Math.floor(100 * (seconds - whole)))}`;
}
