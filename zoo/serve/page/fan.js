// A forecast as a fan chart: the past, the mean, and the range of the quantiles.

import { h, svg } from "./dom.js";
import { ticks } from "./plot.js";

const [WIDTH, HEIGHT, LEFT, EDGE] = [560, 220, 48, 24];

export function fan(name, past, found, column) {
  const future = found.mean.map((row) => row[column]);
  const bands = found.quantiles.map((q) => q.values.map((row) => row[column]));
  const all = [...past.filter((v) => v !== null), ...future, ...bands.flat()];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const margin = (high - low) * 0.06 || 1;
  const steps = past.length + future.length - 1 || 1;
  const x = (i) => LEFT + (i / steps) * (WIDTH - LEFT - EDGE / 2);
  const y = (value) => HEIGHT - EDGE - ((value - low + margin) / (high - low + 2 * margin)) * (HEIGHT - 2 * EDGE);
  const at = (values, start) => values.map((value, i) => (value === null ? null : `${x(start + i).toFixed(1)},${y(value).toFixed(1)}`)).filter(Boolean);
  const [first, last] = [bands[0], bands.at(-1)];
  const marks = ticks(low, high, 4);
  const parts = [
    ...marks.map((mark) => svg("line", { x1: LEFT, x2: WIDTH - EDGE / 2, y1: y(mark), y2: y(mark) })),
    ...marks.map((mark) => svg("text", { x: LEFT - 6, y: y(mark) + 4, "text-anchor": "end" }, String(mark))),
    svg("text", { x: LEFT, y: 14, class: "name" }, name),
    svg("polygon", { points: [...at(first, past.length), ...at(last, past.length).reverse()].join(" "), class: "band" }),
    svg("polyline", { points: at(past, 0).join(" "), class: "past" }),
    svg("polyline", { points: at(future, past.length).join(" "), class: "mean" }),
  ];
  const range = `${found.quantiles[0].level} to ${found.quantiles.at(-1).level}`;
  return h("figure", {}, svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot fan", role: "img", "aria-label": `Forecast of ${name}, quantiles ${range}` }, ...parts));
}
