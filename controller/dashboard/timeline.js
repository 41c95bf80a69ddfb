// What was done to a desktop, line by line as it happens; a line with a place shows it on the screen.
//
// Whatever a line says was written by agents and programs: it is only ever set as text.

import * as api from "./api.js";

const POLL_MS = 2000;
const PAGE = 500;
const MOST_ROWS = 400; // older ones leave the page, not the log

const named = (title) => (data) => `${title} ${data.path ?? data.source ?? ""}`.trim();
const SENTENCES = {
  claim: (data) => `claimed from ${data.template}${data.warm ? ", warm" : ""}`,
  ready: (data) => `ready after ${data.seconds} s`,
  released: (data) => ["released", data.message].filter(Boolean).join(": "),
  failed: (data) => ["failed", data.message].filter(Boolean).join(": "),
  extend: (data) => `may live ${Math.round(data.ttl_seconds / 60)} min more`,
  act: (data) => (data.actions ?? []).map(action).join(", then "),
  process: (data) => `$ ${data.command}${"exit_code" in data ? ` → ${data.exit_code}` : ""}`,
  file_read: named("read"),
  file_write: named("wrote"),
  file_remove: named("removed"),
  directory: named("made the folder"),
  file_move: (data) => `moved ${data.source} to ${data.destination}`,
  application: (data) => `started ${data.name}`,
  window: (data) => `window: ${data.action ?? "changed"}`,
  clipboard: (data) => `set the clipboard (${data.length} characters)`,
  egress: (data) => `${data.verdict} ${data.host}:${data.port}${data.count > 1 ? ` ${data.count} times` : ""}, ${data.bytes_up} bytes up, ${data.bytes_down} down${data.reason ? `: ${data.reason}` : ""}`,
  egress_rules: (data) => `may reach ${[data.egress].flat().join(", ")}`,
  watch: () => "watches",
  watch_end: (data) => `watched for ${Math.round(data.seconds)} s`,
  control: () => "is connected with mouse and keyboard",
  control_end: (data) => `was connected for ${Math.round(data.seconds)} s`,
  control_taken: (data) => ["took control", data.reason].filter(Boolean).join(": "),
  control_returned: (data) => `${data.why.replaceAll("_", " ")}: ${(data.did ?? []).length + (data.more ?? 0)} things done`,
  adopted: () => "is looked after by another controller, for its own is gone",
  human_requested: (data) => `asks for a person: ${data.reason}`,
  human_answered: (data) => [data.outcome, data.note].filter(Boolean).join(": "),
};

function action(each) {
  if (each.length !== undefined) return `${each.type} ${each.length} characters`;
  if (each.element) return `${each.type} ${each.element}`;
  return each.x === undefined ? each.type : `${each.type} at ${each.x}, ${each.y}`;
}

// One event as a sentence.
export function sentence({ kind, data }) {
  const known = SENTENCES[kind];
  const rest = Object.entries(data).filter(([name]) => name !== "error");
  return known ? known(data) : [kind.replaceAll("_", " "), ...rest.map(([name, value]) => `${name}=${JSON.stringify(value)}`)].join(" ");
}

// Where on the screen it was, if anywhere.
const places = ({ data }) => (data.actions ?? []).filter((each) => each.x !== undefined).map(({ x, y }) => [x, y]);

customElements.define("carrel-timeline", class extends HTMLElement {
  #after = 0;
  #timer;
  #isOpen = false;

  connectedCallback() {
    this.innerHTML = `<p class="help empty" hidden>Nothing has been done yet.</p><ol class="lines" tabindex="0" aria-label="What was done"></ol>`;
    this.list = this.querySelector("ol");
  }

  // Follows the log while it is open.
  open(desktop) {
    this.desktop = desktop;
    if (this.#isOpen) return;
    this.#isOpen = true;
    this.#look();
  }

  close() {
    this.#isOpen = false;
    clearTimeout(this.#timer);
  }

  async #look() {
    clearTimeout(this.#timer);
    try {
      let page;
      do {
        page = (await api.call("GET", `${api.at(this.desktop)}/events?after=${this.#after}&limit=${PAGE}`)).events;
        this.#add(page);
      } while (page.length === PAGE && this.#isOpen);
      this.dispatchEvent(new CustomEvent("problem", { detail: null }));
    } catch (error) {
      this.dispatchEvent(new CustomEvent("problem", { detail: error }));
    }
    clearTimeout(this.#timer);
    if (this.#isOpen) this.#timer = setTimeout(() => this.#look(), POLL_MS);
  }

  #add(events) {
    const { list } = this;
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    for (const event of events) {
      this.#after = Math.max(this.#after, event.id);
      list.append(this.#row(event));
    }
    while (list.childElementCount > MOST_ROWS) list.firstElementChild.remove();
    this.querySelector(".empty").hidden = list.childElementCount > 0;
    if (events.length && isAtEnd) list.scrollTop = list.scrollHeight;
  }

  #row(event) {
    const row = document.createElement("li");
    const time = document.createElement("time");
    time.dateTime = event.at;
    time.textContent = new Date(event.at).toLocaleTimeString();
    const text = document.createElement("span");
    text.className = "what";
    text.textContent = sentence(event);
    const who = document.createElement("span");
    who.className = "who";
    who.textContent = event.actor;
    row.append(time, text, who);
    if (event.data.error) {
      const failed = document.createElement("strong");
      failed.textContent = ` failed: ${event.data.error}`;
      text.append(failed);
    }
    const at = places(event);
    const { before, after } = event.data.frames ?? {};
    if (before?.artifact || after?.artifact) {
      const look = document.createElement("button");
      look.type = "button";
      look.className = "link";
      look.textContent = "Frames";
      look.addEventListener("click", () => this.dispatchEvent(
        new CustomEvent("frames", { detail: { title: text.textContent, before, after, at } })));
      row.append(look);
    }
    if (at.length) {
      row.tabIndex = 0;
      row.classList.add("placed");
      const show = (points) => this.dispatchEvent(new CustomEvent("places", { detail: points }));
      for (const name of ["mouseenter", "focus"]) row.addEventListener(name, () => show(at));
      for (const name of ["mouseleave", "blur"]) row.addEventListener(name, () => show([]));
    }
    return row;
  }
});
