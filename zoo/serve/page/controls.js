// Form fields, drawn from the options that a model describes.

import { button, h } from "./dom.js";

let count = 0;
const fresh = () => `f${++count}`;
export const words = (name) => {
  const text = name.replaceAll("_", " ").replace(/^top ([kp])$/, "top-$1");
  return text[0].toUpperCase() + text.slice(1);
};

/** A field: its element, `get` a JSON value (undefined leaves it out), and `set` from text of a link. */
function field(name, label, input, { help = "", get, set, kind = "" } = {}) {
  const id = fresh();
  input.id = id;
  input.name = name;
  const hint = help ? h("small", { id: `${id}-help`, className: "hint" }, help[0].toUpperCase() + help.slice(1)) : null;
  if (hint) input.setAttribute("aria-describedby", hint.id);
  const caption = h("label", { htmlFor: id }, label);
  const element = h("div", { className: `field ${kind}` }, ...(kind === "check" ? [input, caption] : [caption, input]), hint);
  const initial = input.type === "checkbox" ? String(input.checked) : input.value;
  return {
    name,
    element,
    input,
    get: get ?? (() => (input.value === "" ? undefined : input.value)),
    set: set ?? ((text) => (input.value = text)),
    text: () => (input.type === "checkbox" ? String(input.checked) : input.value),
    changed() {
      return this.text() !== initial;
    },
  };
}

export function number(name, label, { value = "", min, max, step = 1, help, required = false } = {}) {
  const bounded = min !== undefined && max !== undefined && value !== "" && max - min <= 1000;
  const set = { min: min ?? "", max: max ?? "", step, value: value ?? "", required };
  if (!bounded) {
    const input = h("input", { type: "number", inputMode: "decimal", ...set });
    return field(name, label, input, { help, get: () => (input.value === "" ? undefined : Number(input.value)) });
  }
  const input = h("input", { type: "range", ...set });
  const made = field(name, label, input, { help, get: () => Number(input.value), kind: "range" });
  const output = h("output", { htmlFor: input.id }, input.value);
  input.addEventListener("input", () => (output.textContent = input.value));
  made.element.firstChild.append(output);
  made.set = (text) => {
    input.value = text;
    output.textContent = input.value;
  };
  return made;
}

export function text(name, label, { value = "", rows = 0, help, placeholder = "", get, spellcheck = false } = {}) {
  const input = h(rows ? "textarea" : "input", { value, placeholder, spellcheck, autocomplete: "off", ...(rows ? { rows } : { type: "text" }) });
  return field(name, label, input, { help, get });
}

export function check(name, label, { value = false, help } = {}) {
  const input = h("input", { type: "checkbox", checked: value });
  return field(name, label, input, { help, kind: "check", get: () => input.checked, set: (given) => (input.checked = given === "true") });
}

export function select(name, label, choices, { value, help } = {}) {
  const input = h("select", {}, choices.map((c) => h("option", { value: c, selected: c === value }, String(c))));
  return field(name, label, input, { help });
}

/** One of several values, as buttons; `undefined` is a value too. */
export function choice(name, label, choices, value) {
  const group = fresh();
  const radios = choices.map(([given, caption]) => {
    const input = h("input", { type: "radio", name: group, id: fresh(), checked: given === value });
    input.given = given;
    return [input, h("label", { htmlFor: input.id }, caption)];
  });
  const element = h("fieldset", { className: "choice", "data-name": name }, h("legend", {}, label), h("div", {}, radios.flat()));
  const found = () => radios.find(([input]) => input.checked)?.[0].given;
  return {
    name,
    element,
    get: found,
    text: () => String(found() ?? ""),
    changed: () => found() !== value,
    set: (given) => radios.forEach(([input]) => (input.checked = String(input.given ?? "") === given)),
  };
}

/** The class of a conditional model, or null for other models. */
export function classes(details, required = false) {
  if (!details.conditional || !details.condition?.n_classes) return null;
  const n = details.condition.n_classes;
  if (n > 24) return number("label", "Class", { min: 0, max: n - 1, value: required ? 0 : "", help: `from 0 to ${n - 1}` });
  const all = Array.from({ length: n }, (_, i) => [i, String(i)]);
  return choice("label", "Class", required ? all : [[undefined, "Any"], ...all], required ? 0 : undefined);
}

/** The text that samples are conditioned on, or null for models without it. */
export function prompt(details) {
  if (!details.prompt) return null;
  const made = text("prompt", "Prompt", { rows: 2, placeholder: "Describe the sample", help: `at most ${details.prompt} tokens; empty leaves it to the model`, spellcheck: true });
  made.get = () => made.input.value.trim() || undefined;
  return made;
}

/** A field for an option of a model's method. */
export function option(given) {
  const { name, type, default: value, bounds, choices, help } = given;
  const label = words(name);
  const kinds = type.split("|").map((part) => part.trim());
  if (choices.length) return select(name, label, choices, { value, help });
  if (kinds.includes("bool")) return check(name, label, { value: value === true, help });
  if (kinds.some((kind) => kind === "int" || kind === "float")) {
    const whole = !kinds.includes("float");
    const min = bounds.ge ?? (bounds.gt === undefined ? undefined : whole ? bounds.gt + 1 : bounds.gt + 0.01);
    const max = bounds.le ?? (bounds.lt === undefined ? undefined : whole ? bounds.lt - 1 : bounds.lt - 0.01);
    return number(name, label, { value: value ?? "", min, max, step: whole ? 1 : max - min <= 2 ? 0.01 : "any", help });
  }
  const parse = (given) => (given === "" ? undefined : /^-?\d+(\.\d+)?$/.test(given) ? Number(given) : given);
  const made = text(name, label, { value: value === null || Array.isArray(value) ? "" : String(value), help, placeholder: "default" });
  made.get = () => parse(made.input.value.trim());
  return made;
}

/** The seed, and whether the next run keeps it. */
export function seed() {
  const made = number("seed", "Seed", { value: Math.floor(Math.random() * 1e6), min: 0, required: true });
  const keep = h("input", { type: "checkbox", id: fresh(), name: "keep" });
  const shuffle = () => (made.input.value = Math.floor(Math.random() * 1e6));
  made.element.append(h("span", { className: "keep" }, keep, h("label", { htmlFor: keep.id }, "Keep for the next run")));
  made.changed = () => true;
  const set = made.set;
  made.set = (given) => {
    set(given);
    keep.checked = true; // a link shows the same samples again
  };
  made.used = false;
  made.next = () => {
    if (made.used && !keep.checked) shuffle();
    made.used = true;
  };
  return made;
}

/** Fields together; those of `more` are in a part that opens. */
export class Form {
  constructor(fields, more = []) {
    this.fields = [...fields, ...more].filter(Boolean);
    this.more = more.filter(Boolean);
    const open = this.more.length ? h("details", {}, h("summary", {}, "More options"), this.more.map((f) => f.element)) : null;
    this.elements = [...fields.filter(Boolean).map((f) => f.element), open];
  }

  field(name) {
    return this.fields.find((f) => f.name === name);
  }

  get(name) {
    return this.field(name)?.get();
  }

  /** Values of the options that a model has, if they differ from the default. */
  options(described = []) {
    const known = new Set(described.map((each) => each.name));
    const given = this.fields.filter((f) => known.has(f.name) && f.changed() && f.get() !== undefined);
    return Object.fromEntries(given.map((f) => [f.name, f.get()]));
  }

  restore(parameters) {
    for (const f of this.fields) if (parameters.has(f.name)) f.set(parameters.get(f.name));
    const opened = this.more.some((f) => parameters.has(f.name));
    if (opened) this.elements.at(-1).open = true;
  }

  link(parameters) {
    for (const f of this.fields) if (f.changed() && f.text().length < 2000) parameters.set(f.name, f.text());
  }
}

export const runButton = (label) => h("button", { className: "primary run" }, label);
export const stopButton = (stop) => button("Stop", stop, { className: "stop", hidden: true });
