// The page: which model, which task, the form, the results, the link.

import { get, post, setKey } from "./api.js";
import { runButton, stopButton } from "./controls.js";
import { button, h, plural, announce, svg } from "./dom.js";
import { Picks } from "./items.js";
import { answer, caption, stylize, translate } from "./picture_tasks.js";
import { continueVideo, denoising, edit, interpolate, latents, sample, steps } from "./sample_tasks.js";
import { forecast, impute, recommend } from "./table_tasks.js";
import { chat, complete, fill, similarity } from "./text_tasks.js";

const TASKS = [
  complete, chat, fill, sample, impute, forecast, recommend, caption, answer, translate, stylize, denoising, steps, latents, interpolate, edit,
  continueVideo, similarity,
];
const THEMES = ["auto", "light", "dark"];
const thumb = () => svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: "M7 11v9H4v-9zm0 1 4-8c1.6 0 2.6 1 2.3 2.7L12.8 10H19c1.2 0 2 1 1.7 2.2l-1.5 6.2c-.3 1-1 1.6-2 1.6H7" }));
const $ = (id) => document.getElementById(id);

/** The result of one model, with its feedback. */
class Pane {
  constructor(details, named) {
    this.details = details;
    this.body = h("div", { className: "body" });
    this.feedback = h("div", { className: "feedback" });
    this.element = h("article", { className: "pane", "aria-label": details.id }, named ? h("h2", {}, details.id) : null, this.body, this.feedback);
    this.restart();
  }

  show(...parts) {
    this.body.replaceChildren(...parts.filter(Boolean));
  }

  restart() {
    this.chat = null;
    this.feedback.replaceChildren();
    this.show(h("p", { className: "empty" }, "The result appears here."));
  }

  fail(error) {
    if (!this.chat) this.show(h("p", { className: "error", role: "alert" }, error.message));
    else announce(error.message, "failed");
  }

  /** Ask whether an answer was good. */
  ask({ request, answer }) {
    const note = h("input", { type: "text", name: "note", maxLength: 2000, placeholder: "Why? (optional)", "aria-label": "Note" });
    const send = h("button", {}, "Send");
    const form = h("form", { hidden: true }, note, send);
    let rating = 0;
    const thumbs = [["Good", 1], ["Bad", -1]].map(([name, value]) =>
      button(thumb(), () => {
        rating = value;
        thumbs.forEach((each) => each.setAttribute("aria-pressed", String(each.title === name)));
        form.hidden = false;
        note.focus();
      }, { title: name, "aria-label": name, "aria-pressed": "false", className: `thumb ${name.toLowerCase()}` }),
    );
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        await post("/api/feedback", { model: this.details.id, rating, note: note.value, request, answer });
        this.feedback.replaceChildren(h("span", { className: "hint" }, "Thank you."));
        announce("The feedback was stored.");
      } catch (error) {
        announce(error.message, "failed");
      }
    });
    this.feedback.replaceChildren(...thumbs, form);
  }
}

class App {
  constructor() {
    this.picks = new Picks();
    this.tasks = TASKS;
    this.panes = [];
    $("model").addEventListener("change", () => this.choose($("model").value));
    $("compare").addEventListener("change", () => this.open(this.task.id, this.parameters()));
    $("link").addEventListener("click", () => this.copyLink());
    $("controls").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
      if (matchMedia("(max-width: 52rem)").matches) $("result").scrollIntoView(); // it is below the form there
    });
    $("key").addEventListener("submit", (event) => {
      event.preventDefault();
      setKey(event.target.elements.key.value);
      this.load();
    });
    window.addEventListener("hashchange", () => {
      if (location.hash !== this.written) this.restore();
    });
    this.theme();
    this.load();
  }

  theme() {
    const show = (name) => {
      document.documentElement.dataset.theme = name;
      $("theme").querySelector("span").textContent = name;
    };
    let name = localStorage.getItem("zoo.theme") ?? "auto";
    show(name);
    $("theme").addEventListener("click", () => {
      name = THEMES[(THEMES.indexOf(name) + 1) % THEMES.length];
      localStorage.setItem("zoo.theme", name);
      show(name);
    });
  }

  async load() {
    $("about").replaceChildren(h("p", { className: "summary" }, "Loading the models …"));
    try {
      const found = await get("/api/models");
      this.keepsFeedback = found.feedback;
      this.models = new Map(found.models.filter((m) => m.details).map((m) => [m.id, m.details]));
      const broken = found.models.filter((m) => !m.details);
      $("key").hidden = true;
      announce(broken.map((m) => `${m.id}: ${m.error}`).join(" "), broken.length ? "failed" : "quiet");
    } catch (error) {
      $("key").hidden = error.status !== 401;
      $("about").replaceChildren(h("p", { className: "summary" }, error.status === 401 ? "This server needs a key." : error.message));
      announce("");
      return;
    }
    $("model").replaceChildren(...[...this.models.keys()].map((id) => h("option", {}, id)));
    if (this.models.size) this.restore();
  }

  /** Open what the address says. */
  restore() {
    const given = new URLSearchParams(location.hash.slice(1));
    const id = this.models.has(given.get("model")) ? given.get("model") : [...this.models.keys()][0];
    $("model").value = id;
    this.choose(id, given);
  }

  /** Choose a model; its first task opens, or that of a link. */
  choose(id, given = new URLSearchParams()) {
    const details = this.models.get(id);
    this.details = details;
    const offered = TASKS.filter((task) => task.applies(details));
    const tabs = offered.map((task) =>
      button(task.label, () => this.go(task.id), { role: "tab", id: `tab-${task.id}`, "aria-controls": "work", on: { click: () => this.go(task.id), keydown: (event) => this.turn(event) } }),
    );
    $("tabs").replaceChildren(...tabs);
    const facts = [details.family.replaceAll("_", " "), details.data, plural(details.parameters, "parameter")];
    $("about").replaceChildren(h("p", { className: "summary" }, details.summary), h("p", { className: "facts" }, facts.join(" · ")));
    if (!offered.length) {
      this.panes = [];
      $("controls").replaceChildren();
      $("result").replaceChildren(h("p", { className: "empty" }, "This model has nothing to show here. Its abilities: ", Object.keys(details.abilities).join(", ") || "none", "."));
      return;
    }
    const wanted = given.get("task") ?? this.task?.id;
    this.open(offered.some((task) => task.id === wanted) ? wanted : offered[0].id, given);
  }

  /** Arrow keys move between tabs. */
  turn(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const tabs = [...$("tabs").children];
    const next = tabs[(tabs.indexOf(event.target) + step + tabs.length) % tabs.length];
    next.click();
    next.focus();
  }

  go(id, model = this.details.id) {
    if (model === this.details.id) this.open(id, new URLSearchParams({ compare: $("compare").value }));
    else {
      $("model").value = model;
      this.choose(model, new URLSearchParams({ task: id }));
    }
  }

  /** Draw the form of a task. */
  open(id, given) {
    this.stop?.();
    const task = TASKS.find((each) => each.id === id);
    this.task = task;
    this.picks.listeners.clear();
    for (const tab of $("tabs").children) {
      const selected = tab.id === `tab-${id}`;
      tab.setAttribute("aria-selected", String(selected));
      tab.tabIndex = selected ? 0 : -1;
    }
    $("work").setAttribute("aria-labelledby", `tab-${id}`);
    this.compareWith(task, given.get("compare"));
    const other = this.models.get($("compare").value);
    this.panes = [this.details, ...(other ? [other] : [])].map((details) => new Pane(details, Boolean(other)));
    this.form = task.form(this.details, this);
    this.form.restore(given);
    const [run, stop] = [runButton(task.action), stopButton(() => this.stop?.())];
    this.buttons = { run, stop };
    $("controls").replaceChildren(...this.form.elements.filter(Boolean), h("p", { className: "go" }, run, stop));
    $("result").replaceChildren(...this.panes.map((pane) => pane.element));
    $("result").classList.toggle("two", this.panes.length > 1);
    if (task.auto || given.get("run")) this.run();
    else this.writeLink();
  }

  /** Models that can be compared: of the same task and space. */
  compareWith(task, wanted) {
    const same = [...this.models.values()].filter(
      (d) => d.id !== this.details.id && task.applies(d) && ("generate" in d.abilities || JSON.stringify(d.space.shape) === JSON.stringify(this.details.space.shape)),
    );
    $("compare").replaceChildren(h("option", { value: "" }, "nothing"), ...same.map((d) => h("option", {}, d.id)));
    $("compare").value = same.some((d) => d.id === wanted) ? wanted : "";
    $("compare").disabled = !same.length;
  }

  /** Run the task on each model with the same seed. */
  async run() {
    this.stop?.();
    const { task, form, panes, buttons } = this;
    form.field("seed")?.next();
    const ending = new AbortController();
    const stop = () => ending.abort();
    this.stop = stop;
    buttons.run.disabled = true;
    buttons.stop.hidden = !task.streams;
    document.body.dataset.busy = "true";
    announce("Working …");
    await Promise.all(
      panes.map(async (pane) => {
        pane.element.setAttribute("aria-busy", "true");
        try {
          const done = await task.run(pane, form, this, ending.signal);
          if (this.keepsFeedback) pane.ask(done);
        } catch (error) {
          if (error.name !== "AbortError") {
            pane.fail(error);
          }
        } finally {
          pane.element.removeAttribute("aria-busy");
        }
      }),
    );
    if (this.stop === stop) {
      task.done?.(form);
      buttons.run.disabled = false;
      buttons.stop.hidden = true;
      this.stop = null;
      this.writeLink();
      document.body.dataset.busy = "false";
    }
  }

  parameters() {
    const found = new URLSearchParams({ model: this.details.id, task: this.task.id });
    if ($("compare").value) found.set("compare", $("compare").value);
    this.form.link(found);
    return found;
  }

  writeLink() {
    const found = this.parameters();
    this.written = `#${found}`;
    history.replaceState(null, "", this.written);
  }

  async copyLink() {
    this.writeLink();
    const url = new URL(location.href);
    url.hash = `${url.hash}&run=1`;
    try {
      await navigator.clipboard.writeText(url.href);
      announce("The link is in the clipboard.", "shown");
    } catch {
      announce(url.href, "shown");
    }
  }
}

new App();
