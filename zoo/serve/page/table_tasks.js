// Tasks of models of series, items and tables: forecast, recommend, rows with given cells.

import { post } from "./api.js";
import { Form, number, option, seed, select, text } from "./controls.js";
import { button, download, h, plural, announce } from "./dom.js";
import { fan } from "./fan.js";
import { csvOf, show, table } from "./items.js";
import { Sketch } from "./sketch.js";

/** Lines of numbers with commas; a heading is left out, and an empty field is a missing value. */
export function readSeries(written) {
  const lines = written.split(/\r?\n/).filter((line) => line.trim());
  const rows = lines.map((line) => line.split(/[,;\t]/).map((cell) => cell.trim()));
  const isNumber = (cell) => cell === "" || Number.isFinite(Number(cell));
  if (rows.length && !rows[0].every(isNumber)) rows.shift();
  const bad = rows.flat().find((cell) => !isNumber(cell));
  if (bad !== undefined) throw new Error(`Series: ${bad} is not a number. Write one step a line, with commas between columns.`);
  return rows.map((row) => row.map((cell) => (cell === "" ? null : Number(cell))));
}

export const forecast = {
  id: "forecast",
  label: "Forecast",
  action: "Forecast",
  applies: (details) => details.space.space === "series" && "forecast" in details.abilities && details.condition?.space !== "series",
  form(details) {
    const { columns, length, horizon } = details.space;
    const series = text("series", "Series (CSV)", { rows: 6, placeholder: columns.join(","), help: `one step a line: ${columns.join(", ")}; the last ${length - horizon} steps are read` });
    series.get = () => readSeries(series.input.value);
    const steps = number("horizon", "Steps", { value: horizon, min: 1, max: Math.min(1000, 10 * horizon) });
    const n = number("n", "Samples", { value: 200, min: 2, max: 1000 });
    const form = new Form([series, steps, seed()], [n]);
    const upload = h("input", { type: "file", accept: ".csv,text/csv,text/plain", className: "hidden", on: { change: async () => {
      if (upload.files[0]) series.set(await upload.files[0].text());
    } } });
    series.element.append(h("p", { className: "actions" }, h("label", { className: "button" }, "Upload CSV", upload)));
    const sketch = new Sketch(length - horizon, (values) => series.set(values.map((v) => columns.map(() => v.toFixed(3)).join(",")).join("\n")));
    form.elements.unshift(sketch.element);
    return form;
  },
  async run(pane, form, context, signal) {
    const { details } = pane;
    const history = form.get("series");
    if (!history.length) throw new Error("Series: empty. Draw one, or write one step a line.");
    const body = { model: details.id, history, horizon: form.get("horizon"), n: form.get("n"), seed: form.get("seed") };
    const found = await post("/api/forecast", body, signal);
    const heading = ["step", ...found.columns.flatMap((name) => [name, ...found.quantiles.map((q) => `${name}_${q.level}`)])];
    const rows = found.mean.map((mean, t) => [t + 1, ...mean.flatMap((value, d) => [value, ...found.quantiles.map((q) => q.values[t][d])])]);
    const save = button("Download CSV", () => download(`${details.id}-forecast.csv`, csvOf([heading, ...rows]), "text/csv"), { className: "quiet" });
    const read = history.slice(-(details.space.length - details.space.horizon));
    pane.show(h("div", { className: "shown" }, found.columns.map((name, d) => fan(name, read.map((row) => row[d]), found, d)), table(heading, rows, { most: 50 }), h("p", { className: "actions" }, save)));
    announce(`${details.id}: ${plural(rows.length, "step")}`);
    return { request: body, answer: "" };
  },
};

export const recommend = {
  id: "recommend",
  label: "Recommend",
  action: "Recommend",
  applies: (details) => "recommend" in details.abilities,
  form(details) {
    const names = details.space.names ?? [];
    const items = text("items", "Items", { rows: 5, placeholder: "One item a line", help: "that the user has chosen, one a line" });
    items.get = () => items.input.value.split("\n").map((line) => line.trim()).filter(Boolean);
    const list = h("datalist", { id: "item-names" }, names.map((name) => h("option", { value: name })));
    const add = h("input", { type: "text", "aria-label": "Add an item", placeholder: "Add an item", autocomplete: "off", list: "item-names" });
    add.addEventListener("change", () => {
      if (!names.includes(add.value)) return;
      items.set([...items.get(), add.value].join("\n"));
      add.value = "";
    });
    if (names.length) items.element.append(h("div", { className: "adder" }, add, list));
    return new Form([items, number("k", "Recommendations", { value: Math.min(10, details.space.n_items - 1), min: 1, max: Math.min(100, details.space.n_items) })]);
  },
  async run(pane, form, context, signal) {
    const { details } = pane;
    const items = form.get("items");
    if (!items.length) throw new Error("Items: none. Write at least one.");
    const body = { model: details.id, items, k: form.get("k") };
    const found = (await post("/api/recommend", body, signal)).items;
    const rows = found.map((each, i) => h("tr", {}, h("td", {}, String(i + 1)), h("th", { scope: "row" }, each.item), h("td", {}, each.score.toFixed(4))));
    const head = h("tr", {}, ["Rank", "Item", "Score"].map((name) => h("th", { scope: "col" }, name)));
    pane.show(h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Recommendations" }, h("table", { className: "recommended" }, h("thead", {}, head), h("tbody", {}, rows))));
    announce(`${details.id}: ${plural(found.length, "item")}`);
    return { request: body, answer: found.map((each) => each.item).join("\n") };
  },
};

const DRAWN = "(drawn)";

export const impute = {
  id: "impute",
  label: "Given cells",
  action: "Draw",
  applies: (details) => details.space.space === "table" && "inpaint" in details.abilities,
  form(details) {
    const learned = details.space.columns.filter((column) => column.kind !== "key");
    const fields = learned.map(({ name, kind, categories }) => {
      const made = kind === "category" ? select(`cell-${name}`, name, [DRAWN, ...categories]) : text(`cell-${name}`, name, { placeholder: DRAWN, help: kind === "date" ? "a date as in the data" : "" });
      made.get = () => (made.input.value === DRAWN ? "" : made.input.value.trim());
      return made;
    });
    const form = new Form([number("n", "Rows", { value: 20, min: 1, max: 64 }), seed(), ...fields], details.options.inpaint.map(option));
    form.row = () => Object.fromEntries(learned.map(({ name }, i) => [name, fields[i].get()]).filter(([, value]) => value !== ""));
    return form;
  },
  async run(pane, form, context, signal) {
    const { details } = pane;
    const body = { model: details.id, row: form.row(), n: form.get("n"), seed: form.get("seed"), options: form.options(details.options.inpaint) };
    const { samples } = await post("/api/impute", body, signal);
    pane.show(show(details, samples, { file: `${details.id}-${body.seed}` }));
    announce(`${details.id}: ${plural(samples.length, "row")}`);
    return { request: body, answer: "" };
  },
};
