// A picture to draw on, at the model's own resolution, with a mask above it. The arrow keys and the space bar paint too.

import { button, h, announce } from "./dom.js";
import { choice, number } from "./controls.js";
import { source } from "./items.js";

export class Paint {
  constructor(space, { masks = true, name = "Picture" } = {}) {
    this.width = space.width;
    this.height = space.height;
    const size = { width: space.width, height: space.height };
    this.picture = h("canvas", { ...size, className: "pixels" });
    this.mask = h("canvas", { ...size, className: "mask", "aria-hidden": "true" });
    this.cursor = h("span", { className: "cursor", hidden: true });
    this.invitation = h("span", { className: "invitation" }, "Draw here, or upload a picture");
    this.at = [Math.floor(space.width / 2), Math.floor(space.height / 2)];
    this.board = h("div", {
      className: "board",
      tabIndex: 0,
      role: "application",
      "aria-label": `${name} of ${space.width} by ${space.height} pixels. Arrow keys move, space paints.`,
      on: {
        pointerdown: (event) => {
          this.board.setPointerCapture(event.pointerId);
          this.last = null;
          this.stroke(event);
        },
        pointermove: (event) => event.buttons && this.stroke(event),
        keydown: (event) => this.key(event),
        focus: () => this.place(),
        blur: () => (this.cursor.hidden = true),
      },
    }, this.picture, this.mask, this.invitation, this.cursor);
    this.board.style.setProperty("--ratio", `${space.width} / ${space.height}`);
    this.tool = choice("tool", "Brush", [["draw", "Draw"], ["erase", "Erase"], ...(masks ? [["mask", "Mask"]] : [])], "draw");
    const largest = Math.max(2, Math.floor(Math.min(space.width, space.height) / 2));
    this.size = number("brush", "Size", { value: Math.max(1, Math.round(space.width / 16)), min: 1, max: largest });
    this.colour = h("input", { type: "color", value: "#ffffff" });
    this.file = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp", className: "hidden", on: { change: () => this.upload() } });
    const upload = h("label", { className: "button" }, "Upload", this.file);
    const clear = button("Clear", () => this.clear());
    const unmask = masks ? button("Clear mask", () => this.clearMask()) : null;
    this.colourField = space.channels > 1 ? h("label", { className: "field" }, "Colour ", this.colour) : null;
    this.element = h("div", { className: "paint" }, this.board, h("p", { className: "actions" }, upload, clear, ...(unmask ? [unmask] : [])), this.tool.element, this.size.element, this.colourField);
    this.clear();
  }

  clear() {
    const context = this.picture.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.width, this.height);
    this.invitation.hidden = false;
    this.clearMask();
  }

  clearMask() {
    this.mask.getContext("2d", { willReadFrequently: true }).clearRect(0, 0, this.width, this.height);
  }

  stroke(event) {
    const box = this.board.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.width;
    const y = ((event.clientY - box.top) / box.height) * this.height;
    const [from, to] = [this.last ?? [x, y], [x, y]];
    const steps = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1])));
    for (let i = 0; i <= steps; i++) this.dot(from[0] + ((to[0] - from[0]) * i) / steps, from[1] + ((to[1] - from[1]) * i) / steps);
    this.last = to;
  }

  dot(x, y) {
    const tool = this.tool.get();
    this.invitation.hidden = true;
    const size = this.size.get();
    const canvas = tool === "mask" ? this.mask : this.picture;
    const context = canvas.getContext("2d");
    context.fillStyle = tool === "erase" ? "#000" : tool === "mask" ? "#ff7a1a" : this.colour.value;
    const [left, top] = [Math.floor(x - (size - 1) / 2), Math.floor(y - (size - 1) / 2)];
    context.fillRect(left, top, size, size);
    if (tool === "erase") this.mask.getContext("2d").clearRect(left, top, size, size);
  }

  key(event) {
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (!step && event.key !== " ") return;
    event.preventDefault();
    if (step) {
      this.at = [Math.max(0, Math.min(this.width - 1, this.at[0] + step[0])), Math.max(0, Math.min(this.height - 1, this.at[1] + step[1]))];
    } else this.dot(this.at[0] + 0.5, this.at[1] + 0.5);
    this.place();
    announce(`${step ? "Column" : "Painted column"} ${this.at[0] + 1}, row ${this.at[1] + 1}`);
  }

  place() {
    this.cursor.hidden = false;
    this.cursor.style.left = `${(this.at[0] / this.width) * 100}%`;
    this.cursor.style.top = `${(this.at[1] / this.height) * 100}%`;
    this.cursor.style.width = `${100 / this.width}%`;
    this.cursor.style.height = `${100 / this.height}%`;
  }

  async upload() {
    const [file] = this.file.files;
    if (!file) return;
    try {
      const image = await createImageBitmap(file);
      const factor = Math.max(this.width / image.width, this.height / image.height);
      const [width, height] = [image.width * factor, image.height * factor];
      this.clear();
      this.invitation.hidden = true;
      const context = this.picture.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(image, (this.width - width) / 2, (this.height - height) / 2, width, height);
      announce(`${file.name} is on the board.`);
    } catch {
      announce(`${file.name}: not a picture that can be read. Choose a PNG, JPEG or WebP file.`, "failed");
    }
    this.file.value = "";
  }

  /** Put a sample on the board. */
  async put(item) {
    const image = h("img", { src: source(item) });
    await image.decode();
    this.clear();
    this.invitation.hidden = true;
    this.picture.getContext("2d").drawImage(image, 0, 0);
  }

  item() {
    return { image: this.picture.toDataURL("image/png").split(",")[1] };
  }

  /** The mask as a picture, white where it was painted; null if nothing was. */
  maskItem() {
    const { data } = this.mask.getContext("2d").getImageData(0, 0, this.width, this.height);
    if (!data.some((value, i) => i % 4 === 3 && value > 0)) return null;
    const canvas = h("canvas", { width: this.width, height: this.height });
    const context = canvas.getContext("2d");
    context.drawImage(this.mask, 0, 0);
    for (const [mode, colour] of [["source-in", "#fff"], ["destination-over", "#000"]]) {
      context.globalCompositeOperation = mode;
      context.fillStyle = colour;
      context.fillRect(0, 0, this.width, this.height);
    }
    return { image: canvas.toDataURL("image/png").split(",")[1] };
  }
}
