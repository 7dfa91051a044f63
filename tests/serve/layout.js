// What is wrong with the layout of the page: controls outside the window, overlaps, cut texts, faint texts; and the boxes.
const CONTROLS = "button, input, select, textarea, canvas, summary, audio, .button, .tile, .choice label";
const wide = document.documentElement.clientWidth;
const scrolls = (e) => e.closest(".scroll, .tabs");
const box = (e) => e.getBoundingClientRect();
const hidden = (e) => {
  for (let at = e; at; at = at.parentElement) {
    const style = getComputedStyle(at);
    if (style.display === "none" || style.visibility === "hidden" || style.opacity === "0" || style.clipPath !== "none") return true;
    if (at.tagName === "DETAILS" && !at.open && at !== e && !e.closest("summary")) return true;
  }
  return !box(e).width || !box(e).height || box(e).right < 0;
};
const name = (e) => `${e.tagName.toLowerCase()}${e.className ? `.${e.className}` : ""}[${e.name || e.title || e.textContent.trim().slice(0, 24)}]`;
const controls = [...document.querySelectorAll(CONTROLS)].filter((e) => !hidden(e) && !e.closest(".status"));
const found = [];
for (const e of controls) {
  const { left, right } = box(e);
  if (!scrolls(e) && (left < -0.5 || right > wide + 0.5)) found.push(`outside: ${name(e)} ${left} to ${right} of ${wide}`);
}
controls.forEach((a, i) => {
  for (const b of controls.slice(i + 1)) {
    if (a.contains(b) || b.contains(a) || (a.closest(".board") && a.closest(".board") === b.closest(".board"))) continue;
    if (scrolls(a) !== scrolls(b)) continue;
    const [p, q] = [box(a), box(b)];
    const across = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const down = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (across > 1 && down > 1) found.push(`overlap: ${name(a)} and ${name(b)} by ${across.toFixed(1)} x ${down.toFixed(1)}`);
  }
});
const light = (colour) => {
  const [r, g, b] = colour.match(/[\d.]+/g).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (e) => {
  for (let at = e; at; at = at.parentElement) {
    const { backgroundColor } = getComputedStyle(at);
    if (backgroundColor.startsWith("rgb(")) return backgroundColor;
  }
  return "rgb(255, 255, 255)";
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const range = document.createRange();
while (texts.nextNode()) {
  const node = texts.currentNode;
  const e = node.parentElement;
  if (!node.data.trim() || e.closest("option, datalist, script, noscript, textarea, svg, .status, .skip") || hidden(e)) continue;
  range.selectNodeContents(node);
  const { left, right, top, bottom } = range.getBoundingClientRect();
  if (!scrolls(e) && (left < -0.5 || right > wide + 0.5)) found.push(`cut: ${name(e)} ends at ${right} of ${wide}`);
  for (let at = e; at && at !== document.body; at = at.parentElement) {
    const style = getComputedStyle(at);
    if (style.overflowX === "visible" && style.overflowY === "visible") continue;
    if (at.matches(".scroll, .tabs")) break;
    const edge = box(at);
    if (left < edge.left - 1 || right > edge.right + 1 || top < edge.top - 1 || bottom > edge.bottom + 1) found.push(`cut: ${name(e)} by ${name(at)}`);
  }
  if (e.closest(".token, :disabled, .cosines")) continue;
  const [p, q] = [light(getComputedStyle(e).color), light(ground(e))];
  const contrast = (Math.max(p, q) + 0.05) / (Math.min(p, q) + 0.05);
  if (contrast < 4.5) found.push(`contrast: ${name(e)} ${contrast.toFixed(2)}`);
}
for (const e of controls.filter((each) => each.matches("select"))) {
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.font = getComputedStyle(e).font;
  const text = canvas.measureText(e.selectedOptions[0]?.text ?? "").width;
  if (text > e.clientWidth) found.push(`cut: ${name(e)} ${text} in ${e.clientWidth}`);
}
const boxes = controls.map((e) => [e.tagName, ...["left", "top", "width", "height"].map((side) => Math.round(box(e)[side]))].join(" "));
return { found: [...new Set(found)], boxes };
