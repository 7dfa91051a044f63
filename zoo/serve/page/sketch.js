// A series that is drawn with the pointer, from left to right; the arrow keys draw too.

import { button, h, announce } from "./dom.js";

const [WIDTH, HEIGHT] = [288, 120];

export class Sketch {
  /** `ondraw` gets `n` values from 0 to 1 after each stroke. */
  constructor(n, ondraw) {
    this.n = n;
    this.ondraw = ondraw;
    this.at = 0;
    this.canvas = h("canvas", {
      width: WIDTH,
      height: HEIGHT,
      tabIndex: 0,
      className: "sketch",
      "aria-label": `Series of ${n} steps. Left and right move, up and down change the value.`,
      role: "application",
      on: {
        pointerdown: (event) => {
          this.canvas.setPointerCapture(event.pointerId);
          this.stroke(event);
        },
        pointermove: (event) => event.buttons && this.stroke(event),
        pointerup: () => this.ondraw(this.values),
        keydown: (event) => this.key(event),
      },
    });
    this.element = h("div", { className: "paint" }, this.canvas, h("p", { className: "actions" }, h("span", { className: "hint" }, "Draw a series"), button("Clear drawing", () => this.clear(), { className: "quiet" })));
    this.clear();
  }

  clear() {
    this.values = new Array(this.n).fill(0.5);
    this.last = null;
    this.draw();
  }

  stroke(event) {
    const box = this.canvas.getBoundingClientRect();
    const step = Math.max(0, Math.min(this.n - 1, Math.floor(((event.clientX - box.left) / box.width) * this.n)));
    const value = Math.max(0, Math.min(1, 1 - (event.clientY - box.top) / box.height));
    const from = event.type === "pointerdown" ? step : this.at;
    const [a, b] = [Math.min(from, step), Math.max(from, step)];
    const old = this.values[from];
    for (let i = a; i <= b; i++) this.values[i] = from === step ? value : old + ((value - old) * (i - from)) / (step - from);
    this.at = step;
    this.draw();
  }

  key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const change = { ArrowUp: 0.05, ArrowDown: -0.05 }[event.key];
    if (!move && !change) return;
    event.preventDefault();
    if (move) this.at = Math.max(0, Math.min(this.n - 1, this.at + move));
    else {
      this.values[this.at] = Math.max(0, Math.min(1, this.values[this.at] + change));
      this.ondraw(this.values);
    }
    this.draw();
    announce(`Step ${this.at + 1}: ${this.values[this.at].toFixed(2)}`);
  }

  draw() {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, WIDTH, HEIGHT);
    context.strokeStyle = "#0f9b84";
    context.lineWidth = 2;
    context.beginPath();
    this.values.forEach((value, i) => context.lineTo(((i + 0.5) / this.n) * WIDTH, (1 - value) * HEIGHT));
    context.stroke();
  }
}
