// The small drawings: latencies over time, where the time goes, how levels are spread.

const NICE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000];
const HEIGHT = 48, WIDTH = 150;

// `latencies`: milliseconds, oldest first; all of them are in the drawing, however high.
export function drawSpark(root, { latencies, p50, p99 }) {
  const highest = Math.max(...latencies, p99 ?? 0, 1);
  const top = NICE.find((value) => value >= highest) ?? highest;
  const y = (value) => (HEIGHT - (HEIGHT - 3) * (value / top)).toFixed(2);
  const from = WIDTH - latencies.length;
  const points = latencies.map((value, i) => `${from + i + 0.5},${y(value)}`);
  const set = (name, d) => root.querySelector(`.${name}`).setAttribute("d", d);
  set("trace", points.length ? `M${points.join("L")}` : "");
  set("area", points.length ? `M${from + 0.5},${HEIGHT}L${points.join("L")}L${WIDTH - 0.5},${HEIGHT}Z` : "");
  for (const [name, value] of [["50", p50], ["99", p99]]) {
    set(`p${name}`, value == null ? "" : `M0,${y(value)}H${WIDTH}`);
    const label = root.querySelector(`.at${name}`);
    label.hidden = value == null;
    if (value != null) label.style.top = `${(100 * y(value)) / HEIGHT}%`;
  }
  // Two labels on one line would hide each other.
  root.querySelector(".at50").hidden ||= p99 != null && (p99 - p50) / top < 0.28;
  root.querySelector(".top").textContent = latencies.length ? time(top).join(" ") : "";
}

// `stages`: name -> milliseconds.
export function drawStages(root, stages) {
  const names = Object.keys(stages), total = names.reduce((sum, name) => sum + stages[name], 0);
  if (root.childElementCount !== names.length + 1 || root.dataset.names !== names.join()) {
    root.dataset.names = names.join();
    root.innerHTML = "";
    const bar = root.appendChild(document.createElement("div"));
    bar.className = "bar";
    for (const name of names) {
      bar.appendChild(document.createElement("i")).dataset.stage = name;
      const item = root.appendChild(document.createElement("span"));
      item.append(Object.assign(document.createElement("i"), { className: "key" }), `${name} `, document.createElement("b"));
      item.firstChild.dataset.stage = name;
    }
  }
  names.forEach((name, i) => {
    root.firstChild.children[i].style.flexGrow = total ? stages[name] / total : 0;
    root.children[i + 1].querySelector("b").textContent = short(stages[name]);
  });
}

// `bins`: 0..1 from level `low` to `high`; the window is what is shown between black and white.
export function drawHistogram(root, { bins, low, high }, window) {
  const step = 96 / bins.length;
  const outline = bins.map((value, i) => `L${(i * step).toFixed(2)},${(32 - 31 * value).toFixed(2)}H${((i + 1) * step).toFixed(2)}`);
  root.querySelector(".all").setAttribute("d", `M0,32${outline.join("")}V32Z`);
  const at = (level) => Math.min(Math.max((96 * (level - low)) / (high - low), 0), 96);
  const rect = root.querySelector(".window");
  rect.setAttribute("x", at(window.low));
  rect.setAttribute("width", Math.max(at(window.high) - at(window.low), 0.5));
}

export const short = (value) => (value == null ? "–" : value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en"));

// Milliseconds as a figure and its unit.
export const time = (value) => (value >= 10000 ? [(value / 1000).toFixed(1), "s"] : [short(value), value == null ? "" : "ms"]);
