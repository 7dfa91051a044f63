// Tasks of models that read text: continue, chat, fill in.

import { post, stream } from "./api.js";
import { Form, number, option, seed, text } from "./controls.js";
import { button, download, h, plural, announce } from "./dom.js";
import { csvOf, player, source } from "./items.js";
import { ChatOffsets, completionTokens, TokenText } from "./tokens.js";

const FIELDS = ["temperature", "top_p", "top_k", "repetition_penalty"]; // options that requests have a field for
const BOUNDS = { temperature: { ge: 0, le: 2 }, top_p: { gt: 0, le: 1 }, top_k: { ge: 0 }, repetition_penalty: { gt: 0 } };
const HELP = {
  temperature: "0 always takes the likeliest token",
  top_p: "the likeliest tokens with this much probability",
  top_k: "so many likeliest tokens; 0 keeps all",
  repetition_penalty: "above 1 avoids tokens that occurred",
};
const TOP = 5; // likeliest tokens that are shown

function sampling(details) {
  const described = details.options.generate.filter((each) => FIELDS.includes(each.name));
  const made = described
    .sort((a, b) => FIELDS.indexOf(a.name) - FIELDS.indexOf(b.name))
    .map((each) => option({ ...each, bounds: { ...BOUNDS[each.name], ...each.bounds }, help: each.help || HELP[each.name] }));
  const stop = text("stop", "Stop sequences", { rows: 2, help: "one a line, at most four" });
  stop.get = () => stop.input.value.split("\n").filter(Boolean).slice(0, 4);
  const length = number("max_tokens", "Maximum length", { value: Math.min(128, details.context ?? 128), min: 1, max: Math.min(1000, Math.max(128, 2 * (details.context ?? 64))) });
  return { main: [made.find((f) => f.name === "temperature"), length], more: [...made.filter((f) => f.name !== "temperature"), stop] };
}

/** Fields of a request that both kinds of generation have. */
function request(pane, form) {
  const described = pane.details.options.generate.filter((each) => FIELDS.includes(each.name));
  const stop = form.get("stop");
  return {
    model: pane.details.id,
    max_tokens: form.get("max_tokens"),
    seed: form.get("seed"),
    ...(stop.length ? { stop } : {}),
    ...form.options(described),
  };
}

async function generate(path, body, signal, output, tokens, onsources = () => {}) {
  const begun = performance.now();
  let n = 0;
  let reason = "";
  output.body.setAttribute("aria-busy", "true");
  try {
    for await (const event of stream(path, body, signal)) {
      if (event.zoo_sources?.length) onsources(event.zoo_sources);
      for (const choice of event.choices) {
        const infos = tokens(choice);
        n += infos.length;
        reason = choice.zoo_finish_reason ?? reason;
        output.add(choice.text ?? choice.delta?.content ?? "", infos);
      }
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    reason = "stopped";
  } finally {
    output.body.removeAttribute("aria-busy");
  }
  const seconds = (performance.now() - begun) / 1000;
  const why = { stop: "at a stop sequence", eos: "at the end of the text", length: "at the maximum length", stopped: "stopped" }[reason];
  return `${plural(n, "token")} in ${seconds.toFixed(seconds < 1 ? 2 : 1)} s${why ? `, ${why}` : ""}`;
}

export const complete = {
  id: "continue",
  label: "Continue",
  action: "Continue",
  streams: true,
  applies: (details) => "generate" in details.abilities,
  form(details) {
    const prompt = text("prompt", "Prompt", { rows: 5, placeholder: "Text to continue", spellcheck: true });
    prompt.get = () => prompt.input.value;
    const { main, more } = sampling(details);
    return new Form([prompt, ...main, seed()], more);
  },
  async run(pane, form, context, signal) {
    const body = { ...request(pane, form), prompt: form.get("prompt"), logprobs: TOP };
    const output = new TokenText("Text");
    const note = h("p", { className: "note" }, "…");
    const save = () => download(`${pane.details.id}.txt`, body.prompt + output.text, "text/plain");
    pane.show(h("div", { className: "page-text" }, body.prompt ? h("span", { className: "prompt" }, body.prompt) : null, output.element), note, h("p", { className: "actions" }, button("Download", save, { className: "quiet" })));
    note.textContent = await generate("/v1/completions", body, signal, output, completionTokens);
    const written = `${body.prompt}${output.text}`;
    if (pane.details.heard && written.trim()) pane.body.append(await listen(pane.details, written));
    announce(`${pane.details.id}: ${note.textContent}`);
    return { request: body, answer: output.text };
  },
};

/** A text of music as sound and piano roll. */
async function listen(details, text) {
  const { audio, pictures } = await post("/api/listen", { model: details.id, texts: [text] });
  const roll = h("img", { src: source(pictures[0]), alt: "Piano roll", className: "roll" });
  return h("div", { className: "shown heard" }, h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Piano roll" }, roll), player(audio[0], "Music", details.id));
}

export const similarity = {
  id: "similarity",
  label: "Similarity",
  action: "Compare",
  applies: (details) => "embed" in details.abilities && details.tokens,
  form() {
    const texts = text("texts", "Texts", { rows: 6, placeholder: "One word or text a line", help: "one a line, at most 16", spellcheck: true });
    texts.get = () => texts.input.value.split("\n").map((line) => line.trim()).filter(Boolean).slice(0, 16);
    return new Form([texts]);
  },
  async run(pane, form, context, signal) {
    const texts = form.get("texts");
    if (texts.length < 2) throw new Error("Texts: too few. Write at least two, one a line.");
    const body = { model: pane.details.id, input: texts };
    const { data } = await post("/v1/embeddings", body, signal);
    const unit = data.map(({ embedding }) => {
      const length = Math.hypot(...embedding) || 1;
      return embedding.map((value) => value / length);
    });
    const cosines = unit.map((a) => unit.map((b) => a.reduce((sum, value, i) => sum + value * b[i], 0)));
    const cell = (value) => h("td", { style: `--share: ${Math.max(0, value).toFixed(3)}` }, value.toFixed(2));
    const rows = cosines.map((row, i) => h("tr", {}, h("th", { scope: "row" }, texts[i]), row.map(cell)));
    const head = h("tr", {}, h("td", {}), texts.map((each) => h("th", { scope: "col" }, each)));
    pane.show(
      h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Cosines" }, h("table", { className: "cosines" }, h("caption", {}, "Cosine of the vectors: 1 is the same direction"), h("thead", {}, head), h("tbody", {}, rows))),
      h("p", { className: "actions" }, button("Download CSV", () => download(`${pane.details.id}.csv`, csvOf([["", ...texts], ...cosines.map((row, i) => [texts[i], ...row.map((v) => v.toFixed(6))])]), "text/csv"), { className: "quiet" })),
    );
    announce(`${pane.details.id}: ${plural(texts.length, "text")}`);
    return { request: body, answer: "" };
  },
};

export const chat = {
  id: "chat",
  label: "Chat",
  action: "Send",
  streams: true,
  applies: (details) => "generate" in details.abilities && details.chat_template !== "plain",
  form(details, context) {
    const message = text("message", "Message", { rows: 3, placeholder: "Write a message", spellcheck: true });
    message.get = () => message.input.value;
    message.changed = () => false; // not part of a link
    const system = text("system", "System message", { rows: 2 });
    const { main, more } = sampling(details);
    const form = new Form([message, ...main, seed()], [system, ...more]);
    message.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        message.input.form.requestSubmit();
      }
    });
    form.elements.push(button("New chat", () => context.panes.forEach((pane) => pane.restart()), { className: "quiet" }));
    return form;
  },
  done: (form) => (form.field("message").input.value = ""),
  async run(pane, form, context, signal) {
    const written = form.get("message").trim();
    if (!written) throw new Error("Message: empty. Write one.");
    const system = form.get("system");
    if (!pane.chat) {
      pane.chat = { messages: [], log: h("div", { className: "chat", role: "log", "aria-label": "Chat" }) };
      pane.show(pane.chat.log);
    }
    const { messages, log } = pane.chat;
    messages.push({ role: "user", content: written });
    const output = new TokenText("Answer");
    const note = h("p", { className: "note" }, "…");
    const assistant = h("div", { className: "assistant" }, output.element, note);
    log.append(h("div", { className: "user" }, written), assistant);
    const body = {
      ...request(pane, form),
      messages: [...(system ? [{ role: "system", content: system }] : []), ...messages],
      logprobs: true,
      top_logprobs: TOP,
    };
    const offsets = new ChatOffsets();
    try {
      note.textContent = await generate("/v1/chat/completions", body, signal, output, (choice) => offsets.tokens(choice), (found) => assistant.append(sources(found)));
    } catch (error) {
      messages.pop();
      note.textContent = error.message;
      throw error;
    }
    messages.push({ role: "assistant", content: output.text });
    announce(`${pane.details.id}: ${output.text}`);
    return { request: body, answer: output.text };
  },
};

/** The passages before a message: number, place, and the text. */
function sources(found) {
  const items = found.map((each) => {
    const { source = "", begin, end } = each.metadata;
    const place = begin === undefined ? source : `${source}, characters ${begin} to ${end}`;
    return h("li", { value: each.number }, h("details", {}, h("summary", {}, place || `Passage ${each.number}`), h("p", {}, each.text)));
  });
  return h("ol", { className: "sources", "aria-label": "Sources" }, items);
}

export const fill = {
  id: "fill",
  label: "Fill in",
  action: "Fill in",
  applies: (details) => "fill" in details.abilities,
  form(details) {
    const source = text("text", "Text", { rows: 5, placeholder: "A text with [MASK] in it", help: "[MASK] stands for one token", spellcheck: true });
    source.get = () => source.input.value;
    const insert = button("Insert [MASK]", () => {
      const { selectionStart: start, selectionEnd: end } = source.input;
      source.input.setRangeText("[MASK]", start, end, "end");
      source.input.focus();
    }, { className: "quiet" });
    source.element.append(insert);
    return new Form([source, seed()], details.options.fill.map(option));
  },
  async run(pane, form, context, signal) {
    const body = { model: pane.details.id, texts: [form.get("text")], seed: form.get("seed"), options: form.options(pane.details.options.fill) };
    const { texts } = await post("/api/fill", body, signal);
    pane.show(h("pre", { className: "text" }, texts[0]), h("p", { className: "actions" }, button("Download", () => download(`${pane.details.id}.txt`, texts[0], "text/plain"), { className: "quiet" })));
    return { request: body, answer: texts[0] };
  },
};
