// Text as it arrives, token by token, with the probabilities of each.

import { h } from "./dom.js";

const percent = (logprob) => `${(Math.exp(logprob) * 100).toPrecision(3).replace(/\.?0+$/, "")} %`;
const visible = (token) => token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣") || "(empty)";

/** A text whose tokens show their probability under the pointer, or by the arrow keys. */
export class TokenText {
  constructor(label) {
    this.tip = h("div", { className: "tip", role: "tooltip", hidden: true });
    this.live = h("p", { className: "hidden", "aria-live": "polite" });
    this.body = h("div", {
      className: "tokens",
      tabIndex: 0,
      role: "textbox",
      "aria-readonly": "true",
      "aria-multiline": "true",
      "aria-label": `${label}. Arrow keys show the probability of each token.`,
      on: {
        keydown: (event) => this.key(event),
        pointerover: (event) => this.inspect(this.spans.indexOf(event.target)),
        pointerleave: () => this.hide(),
        blur: () => this.hide(),
      },
    });
    this.element = h("div", { className: "token-text" }, this.body, this.tip, this.live);
    this.spans = [];
    this.infos = [];
    this.text = "";
    this.current = -1;
  }

  /** Append text, and the tokens that have become known: {token, logprob, top: [[token, logprob]], offset}. */
  add(text, infos) {
    this.text += text;
    const characters = Array.from(this.text);
    this.infos.push(...infos);
    // A token's text is known once the next one has begun; the server may hold back text that could end in a stop sequence.
    for (const [i, info] of this.infos.entries()) {
      const part = characters.slice(info.offset, this.infos[i + 1]?.offset ?? characters.length).join("");
      let span = this.spans[i];
      if (!span) {
        span = h("span", { className: "token" });
        span.style.setProperty("--doubt", String(1 - Math.exp(info.logprob ?? 0)));
        this.spans.push(span);
        this.body.append(span);
      }
      if (span.textContent !== part) span.textContent = part;
    }
    if (!this.infos.length) this.body.textContent = this.text;
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") this.hide();
    if (!step || !this.spans.length) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(this.spans.length - 1, this.current + step));
    this.inspect(next);
    this.live.textContent = this.tip.textContent;
  }

  inspect(i) {
    const info = this.infos[i];
    if (!info) return;
    this.spans[this.current]?.classList.remove("current");
    this.current = i;
    const span = this.spans[i];
    span.classList.add("current");
    const rows = (info.top?.length ? info.top : [[info.token, info.logprob]]).map(([token, logprob]) => {
      const bar = h("i");
      bar.style.setProperty("--share", String(Math.exp(logprob)));
      const row = h("li", { className: token === info.token ? "drawn" : "" }, h("code", {}, visible(token)), bar, h("span", {}, percent(logprob)));
      return row;
    });
    if (!info.top?.some(([token]) => token === info.token) && info.top?.length) {
      rows.push(h("li", { className: "drawn" }, h("code", {}, visible(info.token)), h("i"), h("span", {}, percent(info.logprob))));
    }
    this.tip.replaceChildren(h("ol", {}, rows));
    this.tip.hidden = false;
    const box = this.tip.offsetParent.getBoundingClientRect();
    const at = span.getClientRects()[0] ?? span.getBoundingClientRect();
    this.tip.style.left = `${Math.max(0, Math.min(at.left - box.left, box.width - this.tip.offsetWidth - 2))}px`;
    this.tip.style.top = `${at.bottom - box.top + 6}px`;
  }

  hide() {
    this.spans[this.current]?.classList.remove("current");
    this.current = -1;
    this.tip.hidden = true;
  }
}

/** Tokens of a chunk of `/v1/completions`. */
export function completionTokens(choice) {
  const found = choice.logprobs;
  if (!found) return [];
  return found.tokens.map((token, i) => ({
    token,
    logprob: found.token_logprobs[i],
    offset: found.text_offset[i],
    top: Object.entries(found.top_logprobs?.[i] ?? {}).sort((a, b) => b[1] - a[1]),
  }));
}

/** Tokens of a chunk of `/v1/chat/completions`, whose offsets are counted here. */
export class ChatOffsets {
  constructor() {
    this.decoder = new TextDecoder();
    this.done = 0;
  }

  tokens(choice) {
    return (choice.logprobs?.content ?? []).map((each) => {
      const offset = this.done;
      this.done += Array.from(this.decoder.decode(new Uint8Array(each.bytes), { stream: true })).length;
      return { token: each.token, logprob: each.logprob, offset, top: each.top_logprobs.map((t) => [t.token, t.logprob]) };
    });
  }
}
