// A scatter plot of vectors, or a histogram of numbers, as SVG.

import { h, svg } from "./dom.js";

const [WIDTH, HEIGHT, EDGE] = [560, 400, 36];

/** Round values that divide a range. */
export function ticks(low, high, n = 5) {
  const rough = (high - low) / n || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + 1e-12; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** A linear map of values to places, with a margin. */
function scale(values, from, to) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const margin = (high - low) * 0.06 || 1;
  low -= margin;
  high += margin;
  const map = (value) => from + ((value - low) / (high - low)) * (to - from);
  return { map, marks: ticks(low, high) };
}

function axes(x, y, names) {
  const lines = svg("g", { class: "axes" });
  for (const mark of x.marks) {
    lines.append(svg("line", { x1: x.map(mark), x2: x.map(mark), y1: EDGE / 2, y2: HEIGHT - EDGE }));
    lines.append(svg("text", { x: x.map(mark), y: HEIGHT - EDGE + 16, "text-anchor": "middle" }, String(mark)));
  }
  for (const mark of y.marks) {
    lines.append(svg("line", { x1: EDGE, x2: WIDTH - EDGE / 2, y1: y.map(mark), y2: y.map(mark) }));
    lines.append(svg("text", { x: EDGE - 6, y: y.map(mark) + 4, "text-anchor": "end" }, String(mark)));
  }
  lines.append(svg("text", { x: WIDTH / 2, y: HEIGHT - 4, "text-anchor": "middle", class: "name" }, names[0]));
  lines.append(svg("text", { x: EDGE, y: 12, class: "name" }, names[1]));
  return lines;
}

function points(header, rows, [i, j], { lines, onpick, picked }) {
  const x = scale(rows.map((row) => row[i]), EDGE, WIDTH - EDGE / 2);
  const y = scale(rows.map((row) => row[j]), HEIGHT - EDGE, EDGE / 2);
  const parts = [axes(x, y, [header[i], header[j]])];
  for (const line of lines ?? []) {
    parts.push(svg("polyline", { points: line.map((k) => `${x.map(rows[k][i])},${y.map(rows[k][j])}`).join(" "), class: "walk" }));
  }
  rows.forEach((row, k) => {
    const dot = svg("circle", { cx: x.map(row[i]), cy: y.map(row[j]), r: 3.5, class: picked?.(k) ? "picked" : "" });
    if (onpick) dot.addEventListener("click", () => onpick(k));
    parts.push(dot);
  });
  return parts;
}

function histogram(header, rows) {
  const values = rows.map((row) => row[0]);
  const x = scale(values, EDGE, WIDTH - EDGE / 2);
  const bins = Math.max(1, Math.min(40, Math.ceil(Math.sqrt(values.length))));
  const counts = new Array(bins).fill(0);
  const width = (WIDTH - EDGE * 1.5) / bins;
  for (const value of values) counts[Math.min(bins - 1, Math.floor((x.map(value) - EDGE) / width))] += 1;
  const y = scale([0, ...counts], HEIGHT - EDGE, EDGE / 2);
  const bars = counts.map((n, k) => svg("rect", { x: EDGE + k * width, width: width - 1, y: y.map(n), height: y.map(0) - y.map(n) }));
  return [axes(x, y, [header[0], "count"]), ...bars];
}

/** Plot rows (N, D); two dimensions are chosen, and points may be picked. */
export function scatter(header, rows, { picks = null, items = [], space = "", lines = null } = {}) {
  const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot", role: "img", "aria-label": `Scatter plot of ${rows.length} samples` });
  if (header.length === 1) {
    plot.replaceChildren(...histogram(header, rows));
    return h("figure", {}, plot);
  }
  const chosen = [0, 1];
  const draw = () =>
    plot.replaceChildren(
      ...points(header, rows, chosen, {
        lines,
        picked: picks && ((k) => picks.items.includes(items[k])),
        onpick: picks && ((k) => picks.toggle(items[k], space)),
      }),
    );
  picks?.listeners.add(draw);
  const axis = (which, label) => {
    const change = (event) => {
      chosen[which] = event.target.selectedIndex;
      draw();
    };
    const choices = header.map((name, k) => h("option", { selected: k === chosen[which] }, name));
    return h("label", {}, `${label} `, h("select", { on: { change } }, choices));
  };
  draw();
  return h("figure", {}, plot, header.length > 2 ? h("figcaption", {}, axis(0, "Across"), axis(1, "Up")) : null);
}

/** The first channel of a WAV file of 16 bits, base64, as a line. */
export function waveform(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const [channels, start] = [view.getUint16(22, true), 44]; // of the header that the server writes
  const n = Math.floor((bytes.length - start) / 2 / channels);
  const stride = Math.max(1, Math.floor(n / 2000));
  const places = [];
  for (let i = 0; i < n; i += stride) places.push(`${((i / n) * 1000).toFixed(1)},${(50 - (view.getInt16(start + 2 * i * channels, true) / 32768) * 48).toFixed(1)}`);
  return svg("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", class: "wave", "aria-hidden": "true" }, svg("polyline", { points: places.join(" ") }));
}
