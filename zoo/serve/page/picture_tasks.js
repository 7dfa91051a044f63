// Tasks of models that read a picture: caption, answer, translate, transfer a style.

import { post } from "./api.js";
import { Form, number, option, seed, text } from "./controls.js";
import { h, plural, announce } from "./dom.js";
import { show } from "./items.js";
import { Paint } from "./paint.js";

const isImage = (details) => details.space.space === "image";
const can = (name) => (details) => isImage(details) && name in details.abilities;

/** Put boards above the fields of a form; the picked sample is on the first one, if it has its size. */
function withBoards(form, context, details, ...boards) {
  form.boards = boards;
  const [picked] = context.picks.of(details);
  if (picked && boards[0].width === details.space.width && boards[0].height === details.space.height) boards[0].put(picked);
  form.elements.unshift(...boards.map((board) => board.element));
  return form;
}

export const caption = {
  id: "caption",
  label: "Caption",
  action: "Describe",
  applies: can("caption"),
  form(details, context) {
    const form = new Form([number("n", "Captions", { value: 1, min: 1, max: 16 }), seed()], details.options.caption.map(option));
    return withBoards(form, context, details, new Paint(details.space, { masks: false }));
  },
  async run(pane, form, context, signal) {
    const { details } = pane;
    const body = { model: details.id, item: form.boards[0].item(), n: form.get("n"), seed: form.get("seed"), options: form.options(details.options.caption) };
    const { texts } = await post("/api/caption", body, signal);
    pane.show(show(details, texts.map((each) => ({ text: each })), { file: `${details.id}-captions` }));
    announce(`${details.id}: ${texts[0]}`);
    return { request: body, answer: texts.join("\n") };
  },
};

export const answer = {
  id: "answer",
  label: "Answer",
  action: "Answer",
  applies: can("answer"),
  form(details, context) {
    const questions = text("questions", "Questions", { rows: 4, placeholder: "One question a line", help: "one a line, at most 64", spellcheck: true });
    questions.get = () => questions.input.value.split("\n").map((line) => line.trim()).filter(Boolean).slice(0, 64);
    return withBoards(new Form([questions]), context, details, new Paint(details.space, { masks: false }));
  },
  async run(pane, form, context, signal) {
    const { details } = pane;
    const questions = form.get("questions");
    if (!questions.length) throw new Error("Questions: none. Write at least one.");
    const body = { model: details.id, item: form.boards[0].item(), questions };
    const { answers } = await post("/api/answer", body, signal);
    const rows = questions.map((question, i) => h("tr", {}, h("th", { scope: "row" }, question), h("td", {}, answers[i])));
    pane.show(h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Answers" }, h("table", { className: "answers" }, h("tbody", {}, rows))));
    announce(`${details.id}: ${plural(answers.length, "answer")}`);
    return { request: body, answer: answers.join("\n") };
  },
};

/** Send pictures to a method that gives pictures. */
async function pictures(pane, form, signal, method, given) {
  const { details } = pane;
  const body = { model: details.id, ...given, n: form.get("n"), seed: form.get("seed"), options: form.options(details.options[method]) };
  const { samples } = await post(`/api/${method}`, body, signal);
  pane.show(show(details, samples, { name: "Result", file: `${details.id}-${method}` }));
  announce(`${details.id}: ${plural(samples.length, "picture")}`);
  return { request: body, answer: "" };
}

export const translate = {
  id: "translate",
  label: "Translate",
  action: "Translate",
  applies: can("translate"),
  form(details, context) {
    const form = new Form([number("n", "Results", { value: 1, min: 1, max: 16 }), seed()], details.options.translate.map(option));
    return withBoards(form, context, details, new Paint(details.source, { masks: false }));
  },
  run: (pane, form, context, signal) => pictures(pane, form, signal, "translate", { item: form.boards[0].item() }),
};

export const stylize = {
  id: "stylize",
  label: "Style",
  action: "Transfer",
  applies: can("stylize"),
  form(details, context) {
    const form = new Form([number("n", "Results", { value: 1, min: 1, max: 16 }), seed()], details.options.stylize.map(option));
    return withBoards(form, context, details, new Paint(details.space, { masks: false }), new Paint(details.space, { masks: false, name: "Style" }));
  },
  run: (pane, form, context, signal) => pictures(pane, form, signal, "stylize", { item: form.boards[0].item(), style: form.boards[1].item() }),
};
