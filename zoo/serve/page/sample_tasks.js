// Tasks of models that draw samples: sample, denoising, numbers of steps, latents, interpolate, edit.

import { post } from "./api.js";
import { choice, classes, Form, number, option, prompt, seed, text } from "./controls.js";
import { button, h, latest, plural, announce } from "./dom.js";
import { pictures, show } from "./items.js";
import { Paint } from "./paint.js";

const MOST = 64; // samples of one request
const SLIDERS = 16; // latents on one page
const isImage = (details) => details.space.space === "image";
const isSeen = (details) => isImage(details) || details.space.space === "video";
const isVideo = (details) => details.space.space === "video";
const isTable = (details) => details.space.space === "table";
const isVector = (details) => details.space.shape.length === 1 && details.space.space === "vector";

/** The class, or the text, if the form has it and the model takes it. */
function conditioned(details, form) {
  const [label, prompt] = [form.get("label"), form.get("prompt")];
  if (details.prompt && prompt !== undefined) return { prompt };
  return details.conditional && label !== undefined ? { label } : {};
}

/** The class of each of some samples; here there is one. */
function labelled(details, form) {
  const label = form.get("label");
  return details.conditional && label !== undefined ? { labels: [label] } : {};
}

/** Buttons that go on with picked samples. */
function pickBar(pane, context) {
  const bar = h("p", { className: "actions picks" });
  const draw = () => {
    const n = context.picks.of(pane.details).length;
    const next = n === 0 ? [] : context.tasks.filter((task) => task.begins?.(pane.details) === n); // 0: a task that does not apply
    const hint = n === 0 ? "Pick one or two samples to go on with them." : `${n} picked.`;
    bar.replaceChildren(h("span", { className: "hint" }, hint), ...next.map((task) => button(task.label, () => context.go(task.id, pane.details.id))));
  };
  const useful = context.tasks.some((task) => task.begins?.(pane.details));
  context.picks.listeners.add(draw);
  draw();
  return useful ? bar : null;
}

export const sample = {
  id: "sample",
  label: "Sample",
  action: "Sample",
  auto: true,
  applies: (details) => "sample" in details.abilities && !("generate" in details.abilities),
  form(details) {
    const n = isVector(details) || isTable(details)
      ? number("n", "Samples", { value: isTable(details) ? 50 : 256, min: 1, max: 512 })
      : number("n", "Samples", { value: isSeen(details) ? 16 : 4, min: 1, max: MOST });
    return new Form([prompt(details), classes(details), n, seed()], details.options.sample.map(option));
  },
  async run(pane, form, context, signal) {
    const { details } = pane;
    const body = { model: details.id, seed: form.get("seed"), options: form.options(details.options.sample), ...conditioned(details, form) };
    const items = [];
    for (let left = form.get("n"), seed = body.seed; left > 0; left -= MOST, seed++) {
      items.push(...(await post("/api/sample", { ...body, seed, n: Math.min(left, MOST) }, signal)).samples);
    }
    const bar = pickBar(pane, context);
    pane.show(show(details, items, { picks: bar && context.picks, file: `${details.id}-${body.seed}` }), bar);
    announce(`${details.id}: ${items.length} samples`);
    return { request: { ...body, n: form.get("n") }, answer: "" };
  },
};

export const denoising = {
  id: "denoising",
  label: "Denoising",
  action: "Show",
  auto: true,
  applies: (details) => "denoising" in details.abilities && (isSeen(details) || isVector(details)),
  form: (details) => new Form([prompt(details), classes(details), number("n", "Rows", { value: 4, min: 1, max: 8 }), number("frames", "Frames", { value: 8, min: 2, max: 24 }), seed()], details.options.denoising.map(option)),
  async run(pane, form, context, signal) {
    const { details } = pane;
    const body = { model: details.id, n: form.get("n"), frames: form.get("frames"), seed: form.get("seed"), options: form.options(details.options.denoising), ...conditioned(details, form) };
    const { walks } = await post("/api/denoising", body, signal);
    const lines = walks.map((walk, i) => walk.map((_, j) => i * body.frames + j));
    const note = h("p", { className: "note" }, "From left to right: what the model expects the sample to be, as the noise goes.");
    pane.show(show(details, walks.flat(), { columns: body.frames, lines, name: "Frame", file: `${details.id}-denoising` }), note);
    announce(`${details.id}: ${walks.length} samples in ${body.frames} frames`);
    return { request: body, answer: "" };
  },
};

export const steps = {
  id: "steps",
  label: "Numbers of steps",
  action: "Show",
  auto: true,
  applies: (details) => isSeen(details) && (details.options.sample ?? []).some((each) => each.name === "steps"),
  form(details) {
    const list = text("list", "Numbers of steps", { value: "1, 2, 4, 8, 16, 32", help: "of the sampler, from the same noise" });
    list.get = () => list.input.value.split(/[\s,]+/).map(Number).filter((n) => Number.isInteger(n) && n > 0).slice(0, 12);
    const rows = number("rows", "Rows", { value: 4, min: 1, max: 8 });
    return new Form([prompt(details), classes(details), list, rows, seed()], details.options.sample.filter((each) => each.name !== "steps").map(option));
  },
  async run(pane, form, context, signal) {
    const { details } = pane;
    const list = form.get("list");
    if (!list.length) throw new Error("Numbers of steps: none. Write some, such as 1, 4, 16.");
    const others = form.options(details.options.sample.filter((each) => each.name !== "steps"));
    const body = { model: details.id, n: form.get("rows"), seed: form.get("seed"), ...conditioned(details, form) };
    const columns = [];
    for (const n of list) {
      columns.push((await post("/api/sample", { ...body, options: { ...others, steps: n } }, signal)).samples);
      const items = columns[0].flatMap((_, row) => columns.map((column) => column[row]));
      const head = h("div", { className: "grid row head" }, list.slice(0, columns.length).map((k) => h("span", {}, String(k))));
      head.style.setProperty("--columns", columns.length);
      pane.show(head, show(details, items, { columns: columns.length, file: `${details.id}-steps` }));
    }
    announce(`${details.id}: ${list.length} numbers of steps`);
    return { request: { ...body, options: others, steps: list }, answer: "" };
  },
};

/** The picked sample, or one from the model. */
async function start(pane, form, context, signal) {
  const [picked] = context.picks.of(pane.details);
  if (picked) return picked;
  const body = { model: pane.details.id, seed: form.get("seed"), ...conditioned(pane.details, form) };
  return (await post("/api/sample", body, signal)).samples[0];
}

export const latents = {
  id: "latents",
  label: "Latents",
  action: "Encode",
  auto: true,
  begins: (details) => (latents.applies(details) ? 1 : 0),
  applies: (details) => ["latents", "sample"].every((name) => name in details.abilities) && (isImage(details) || isVector(details)),
  form: (details) => new Form([classes(details, true), seed()]),
  async run(pane, form, context, signal) {
    const { details } = pane;
    const item = await start(pane, form, context, signal);
    const labels = labelled(details, form);
    const [z] = (await post("/api/encode", { model: details.id, items: [item], ...labels }, signal)).latents;
    const current = [...z];
    const large = h("div", { className: "large" });
    const decode = latest(async () => {
      try {
        const { samples } = await post("/api/decode", { model: details.id, latents: [current], ...labels });
        large.replaceChildren(isImage(details) ? pictures(details, samples, { name: "Decoded sample" }) : show(details, samples));
      } catch (error) {
        announce(error.message, "failed");
      }
    });
    const board = h("div", { className: "sliders", role: "group", "aria-label": "Latents" });
    let page = 0;
    const pages = Math.ceil(z.length / SLIDERS);
    const draw = () => {
      const visible = current.slice(page * SLIDERS, (page + 1) * SLIDERS);
      board.replaceChildren(...visible.map((value, k) => slider(page * SLIDERS + k, value, z, current, decode)));
    };
    const reset = button("Reset", () => {
      current.splice(0, current.length, ...z);
      draw();
      decode();
    });
    const turn = button("More latents", () => {
      page = (page + 1) % pages;
      draw();
    });
    draw();
    await decode();
    pane.show(h("div", { className: "explore" }, large, h("div", {}, board, h("p", { className: "actions" }, reset, pages > 1 ? turn : null))));
    announce(`${details.id}: ${z.length} latents`);
    return { request: { model: details.id, items: [item], ...labels }, answer: "" };
  },
};

const shown = (value) => value.toFixed(2).replace(/^-(0\.00)$/, "$1");

function slider(i, value, z, current, decode) {
  const range = Math.max(3, Math.ceil(Math.abs(z[i]) * 1.5));
  const output = h("output", {}, shown(value));
  const input = h("input", { type: "range", min: -range, max: range, step: 0.05, value, "aria-label": `Latent ${i + 1}` });
  input.addEventListener("input", () => {
    current[i] = Number(input.value);
    output.textContent = shown(current[i]);
    decode();
  });
  return h("div", { className: "slider" }, h("span", {}, String(i + 1)), input, output);
}

export const interpolate = {
  id: "interpolate",
  label: "Interpolate",
  action: "Interpolate",
  auto: true,
  begins: (details) => (interpolate.applies(details) && details.takes.interpolate.includes("between") ? 2 : 0),
  applies: (details) => "interpolate" in details.abilities && (isSeen(details) || isVector(details)),
  form(details, context) {
    const given = details.takes.interpolate.includes("condition") ? [prompt(details), classes(details)] : [];
    const made = new Form([...given, number("steps", "Steps", { value: 8, min: 2, max: 24 }), number("n", "Walks", { value: 4, min: 1, max: 8 }), seed()], details.options.interpolate.map(option));
    const ends = h("div", { className: "ends" });
    const draw = () => {
      const items = interpolate.begins(details) ? context.picks.of(details) : [];
      const between = items.length === 2 && isSeen(details) ? pictures(details, items, { name: "End" }) : null;
      const caption = items.length === 2 ? "Between the two picked samples" : "Between random samples";
      ends.replaceChildren(h("p", { className: "hint" }, caption), ...(between ? [between] : []), ...(items.length ? [button("Clear picks", () => context.picks.clear(), { className: "quiet" })] : []));
    };
    context.picks.listeners.add(draw);
    draw();
    made.elements.unshift(ends);
    return made;
  },
  async run(pane, form, context, signal) {
    const { details } = pane;
    const picked = details.takes.interpolate.includes("between") ? context.picks.of(details) : [];
    const ends = picked.length === 2 ? { between: picked, n: 1 } : { n: form.get("n"), seed: form.get("seed") };
    const label = details.takes.interpolate.includes("condition") ? conditioned(details, form) : {};
    const body = { model: details.id, steps: form.get("steps"), options: form.options(details.options.interpolate), ...ends, ...label };
    const { walks } = await post("/api/interpolate", body, signal);
    const k = body.steps;
    const lines = walks.map((walk, i) => walk.map((_, j) => i * k + j));
    pane.show(show(details, walks.flat(), { columns: k, lines, name: "Step", file: `${details.id}-interpolation` }));
    announce(`${details.id}: ${walks.length} walks of ${k} steps`);
    return { request: body, answer: "" };
  },
};

const ACTIONS = [
  { id: "reconstruct", ability: "latents", label: "Reconstruct" },
  { id: "edit", ability: "edit", label: "Vary" },
  { id: "inpaint", ability: "inpaint", label: "Inpaint" },
  { id: "super_resolve", ability: "super_resolve", label: "Super-resolve" },
  { id: "colorize", ability: "colorize", label: "Colour" },
  { id: "likelihood", ability: "likelihood", label: "Score" },
];

const MAKING = ["edit", "inpaint", "super_resolve", "colorize"]; // actions that draw several samples

export const edit = {
  id: "edit",
  label: "Edit",
  action: "Apply",
  begins: (details) => (edit.applies(details) ? 1 : 0),
  applies: (details) => isImage(details) && ACTIONS.some((each) => each.ability in details.abilities),
  form(details, context) {
    const paint = new Paint(details.space);
    const [picked] = context.picks.of(details);
    if (picked) paint.put(picked);
    const actions = ACTIONS.filter((each) => each.ability in details.abilities);
    const action = choice("action", "Action", actions.map((each) => [each.id, each.label]), actions[0].id);
    const seen = new Set();
    const more = MAKING.flatMap((name) => details.options[name] ?? []).filter((each) => !seen.has(each.name) && seen.add(each.name));
    const form = new Form([action, prompt(details), classes(details, true), number("n", "Variations", { value: 4, min: 1, max: 16 }), seed()], more.map(option));
    const drawn = () => {
      const makes = MAKING.includes(action.get());
      for (const made of ["n", "seed", "prompt"].map((name) => form.field(name)).filter(Boolean)) made.element.hidden = !makes;
      const options = form.elements.at(-1);
      if (options) options.hidden = !makes;
    };
    action.element.addEventListener("change", drawn);
    drawn();
    form.paint = paint;
    form.elements.unshift(paint.element);
    return form;
  },
  async run(pane, form, context, signal) {
    const { details } = pane;
    const action = form.get("action");
    if (!(ACTIONS.find((each) => each.id === action).ability in details.abilities)) throw new Error(`${details.id} does not offer this action.`);
    const item = form.paint.item();
    if (action === "reconstruct" || action === "likelihood") {
      const body = { model: details.id, items: [item], ...labelled(details, form) };
      const found = await post(`/api/${action}`, body, signal);
      if (found.samples) pane.show(show(details, [item, ...found.samples], { columns: 2, name: "Picture", file: `${details.id}-reconstruction` }), h("p", { className: "note" }, "Left: the picture. Right: its reconstruction."));
      else pane.show(scores(found.likelihoods));
      announce(`${details.id}: done`);
      return { request: body, answer: "" };
    }
    const mask = action === "inpaint" ? form.paint.maskItem() : null;
    if (action === "inpaint" && !mask) throw new Error("Mask: empty. Choose the brush Mask, and paint over what to replace.");
    const body = { model: details.id, item, n: form.get("n"), seed: form.get("seed"), options: form.options(details.options[action]), ...conditioned(details, form), ...(mask ? { mask } : {}) };
    const { samples } = await post(`/api/${action}`, body, signal);
    pane.show(show(details, samples, { name: "Variation", file: `${details.id}-${action}` }));
    announce(`${details.id}: ${samples.length} variations`);
    return { request: body, answer: "" };
  },
};

/** A video from a file, in base64. */
async function videoOf(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return { video: btoa(text) };
}

export const continueVideo = {
  id: "frames",
  label: "Continue",
  action: "Continue",
  begins: (details) => (continueVideo.applies(details) ? 1 : 0),
  applies: (details) => isVideo(details) && "predict_frames" in details.abilities,
  form(details) {
    const most = details.space.frames - 1;
    const frames = number("frames", "Given frames", { value: Math.ceil(most / 2), min: 1, max: most });
    const form = new Form([prompt(details), classes(details), frames, number("n", "Results", { value: 4, min: 1, max: 16 }), seed()], details.options.predict_frames.map(option));
    const caption = h("p", { className: "hint" }, "Begins with the picked video, or a sample");
    const upload = h("input", { type: "file", accept: "image/gif,image/png,image/webp", className: "hidden", on: { change: async () => {
      const [file] = upload.files;
      if (!file) return;
      form.uploaded = await videoOf(file);
      caption.textContent = `Begins with ${file.name}`;
    } } });
    form.elements.unshift(h("div", { className: "paint" }, caption, h("p", { className: "actions" }, h("label", { className: "button" }, "Upload a video", upload))));
    return form;
  },
  async run(pane, form, context, signal) {
    const { details } = pane;
    const item = form.uploaded ?? (await start(pane, form, context, signal));
    const body = { model: details.id, item, frames: form.get("frames"), n: form.get("n"), seed: form.get("seed"), options: form.options(details.options.predict_frames), ...conditioned(details, form) };
    const { samples } = await post("/api/predict_frames", body, signal);
    pane.show(show(details, samples, { name: "Result", file: `${details.id}-continued` }), h("p", { className: "note" }, `The first ${body.frames} of ${details.space.frames} frames are given.`));
    announce(`${details.id}: ${plural(samples.length, "result")}`);
    return { request: body, answer: "" };
  },
};

/** A table of likelihoods. */
function scores(found) {
  const rows = found.map((each) => h("tr", {}, h("th", { scope: "row" }, each.name), h("td", {}, each.exact ? "exact" : "lower bound"), h("td", {}, each.kind), h("td", {}, each.log_likelihood[0]?.toFixed(2) ?? "minus infinity")));
  return h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Log-likelihood" }, h("table", {}, h("caption", {}, "Log-likelihood in nats"), h("tbody", {}, rows)));
}
