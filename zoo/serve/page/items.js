// Samples of any space: still and moving pictures in a grid, vectors as a scatter plot and a table, texts, sound.

import { button, download, h } from "./dom.js";
import { zip } from "./zip.js";
import { scatter, waveform } from "./plot.js";

export const source = (item) => (item.image ? `data:image/png;base64,${item.image}` : item.video ? `data:image/gif;base64,${item.video}` : "");
const isPicked = (picks, item) => picks.items.includes(item);

/** At most two samples that other tasks begin with. */
export class Picks {
  constructor() {
    this.items = [];
    this.space = "";
    this.listeners = new Set();
  }

  toggle(item, space) {
    if (space !== this.space) this.items = [];
    this.space = space;
    this.items = isPicked(this, item) ? this.items.filter((i) => i !== item) : [...this.items, item].slice(-2);
    this.changed();
  }

  clear() {
    this.items = [];
    this.changed();
  }

  /** The picks, if they are of a model's space. */
  of(details) {
    return JSON.stringify(details.space) === this.space ? this.items : [];
  }

  changed() {
    for (const listener of this.listeners) listener();
  }
}

/** Pictures; with `picks` each is a button that picks it. */
export function pictures(details, items, { picks = null, name = "Sample", columns = 0 } = {}) {
  const grid = h("div", { className: `grid${columns ? " row" : ""}`, role: "group", "aria-label": `${name}s` });
  const space = JSON.stringify(details.space);
  const small = Math.max(details.space.height, details.space.width) <= 96;
  if (columns) grid.style.setProperty("--columns", columns);
  items.forEach((item, i) => {
    const image = h("img", { src: source(item), alt: `${name} ${i + 1}`, className: small ? "pixels" : "", draggable: false });
    if (!picks) {
      grid.append(h("span", { className: "tile" }, image));
      return;
    }
    const tile = h("button", { type: "button", className: "tile", "aria-pressed": String(isPicked(picks, item)), on: { click: () => picks.toggle(item, space) } }, image);
    picks.listeners.add(() => tile.setAttribute("aria-pressed", String(isPicked(picks, item))));
    grid.append(tile);
  });
  return grid;
}

/** Save pictures as one PNG, in rows. */
async function savePictures(items, columns, name) {
  const images = await Promise.all(items.map(load));
  const { width, height } = images[0];
  const canvas = h("canvas", { width: columns * (width + 1) - 1, height: Math.ceil(images.length / columns) * (height + 1) - 1 });
  const context = canvas.getContext("2d");
  images.forEach((image, i) => context.drawImage(image, (i % columns) * (width + 1), Math.floor(i / columns) * (height + 1)));
  canvas.toBlob((blob) => download(`${name}.png`, blob));
}

async function load(item) {
  const image = h("img", { src: source(item) });
  await image.decode();
  return image;
}

export function table(header, rows, { most = 8, open = false, cell = (v) => Number(v).toPrecision(4) } = {}) {
  const shown = rows.slice(0, most);
  return h(
    "details",
    { className: "table", open },
    h("summary", {}, `Table of ${rows.length}`),
    h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Values" },
      h("table", {}, h("thead", {}, h("tr", {}, header.map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, shown.map((row) => h("tr", {}, row.map((v) => h("td", {}, cell(v)))))))),
  );
}

/** Rows as CSV (RFC 4180). */
export const csvOf = (rows) => rows.map((row) => row.map((v) => (/[",\r\n]/.test(v) ? `"${String(v).replaceAll('"', '""')}"` : v)).join(",")).join("\n") + "\n";

/** A sound: waveform, player, and a button that saves it. */
export function player(item, name, file) {
  const source = `data:audio/wav;base64,${item.audio}`;
  const bytes = () => Uint8Array.from(atob(item.audio), (c) => c.charCodeAt(0));
  const save = button("Download", () => download(`${file}.wav`, bytes(), "audio/wav"), { className: "quiet", "aria-label": `Download ${name}` });
  return h("figure", {}, waveform(item.audio), h("audio", { controls: true, src: source, "aria-label": name }), save);
}

/** Save one GIF, or several in one ZIP file: browsers ask before a page saves more than one file. */
function saveClips(clips, name) {
  if (clips.length === 1) download(`${name}.gif`, clips[0], "image/gif");
  else download(`${name}.zip`, zip(clips.map((bytes, i) => [`${name}-${i + 1}.gif`, bytes])));
}

/** Names of the dimensions of a vector space. */
export function dimensions(space) {
  const n = space.shape.reduce((a, b) => a * b, 1);
  return space.columns?.length === n ? space.columns.map(String) : Array.from({ length: n }, (_, i) => `x${i + 1}`);
}

/** Show samples of any space, with buttons to save them. Returns an element. */
export function show(details, items, { picks = null, name = "Sample", columns = 0, file = "samples", lines = null } = {}) {
  if (!items.length) return h("p", {}, "Nothing.");
  if (items[0].image) {
    const save = button("Download", () => savePictures(items, columns || Math.ceil(Math.sqrt(items.length)), file), { className: "quiet" });
    return h("div", { className: "shown" }, pictures(details, items, { picks, name, columns }), h("p", { className: "actions" }, save));
  }
  if (items[0].video) {
    const bytes = (item) => Uint8Array.from(atob(item.video), (c) => c.charCodeAt(0));
    const save = button("Download", () => saveClips(items.map(bytes), file), { className: "quiet" });
    return h("div", { className: "shown" }, pictures(details, items, { picks, name, columns }), h("p", { className: "actions" }, save));
  }
  if (items[0].text !== undefined) {
    const save = button("Download", () => download(`${file}.txt`, items.map((i) => i.text).join("\n\n"), "text/plain"), { className: "quiet" });
    return h("div", { className: "shown" }, items.map((item) => h("pre", { className: "text" }, item.text)), h("p", { className: "actions" }, save));
  }
  if (items[0].audio) {
    return h("div", { className: "shown" }, items.map((item, i) => player(item, `${name} ${i + 1}`, `${file}-${i + 1}`)));
  }
  if (items[0].row) {
    const header = Object.keys(items[0].row);
    const rows = items.map((item) => header.map((column) => item.row[column]));
    const save = button("Download CSV", () => download(`${file}.csv`, csvOf([header, ...rows]), "text/csv"), { className: "quiet" });
    return h("div", { className: "shown" }, table(header, rows, { most: 50, open: true, cell: (v) => v }), h("p", { className: "actions" }, save));
  }
  const header = dimensions(details.space);
  const rows = items.map((item) => item.values.flat(Infinity));
  const save = button("Download CSV", () => download(`${file}.csv`, csvOf([header, ...rows]), "text/csv"), { className: "quiet" });
  const plot = scatter(header, rows, { picks, items, space: JSON.stringify(details.space), lines });
  return h("div", { className: "shown" }, plot, table(header, rows), h("p", { className: "actions" }, save));
}
