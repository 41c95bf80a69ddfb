// What commands in the background have said.

import * as api from "./api.js";

const POLL_MS = 2000;

customElements.define("carrel-jobs", class extends HTMLElement {
  #timer;
  #isOpen = false;
  #read = new Map(); // job -> how far its output was read

  connectedCallback() {
    this.innerHTML = `<p class="help empty">No command was started in the background. What ran to its end stands in the timeline.</p><div class="outputs"></div>`;
  }

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
    try {
      const jobs = await api.call("GET", `${api.at(this.desktop)}/processes`);
      this.querySelector(".empty").hidden = jobs.length > 0;
      for (const job of jobs) await this.#show(job);
      this.dispatchEvent(new CustomEvent("problem", { detail: null }));
    } catch (error) {
      this.dispatchEvent(new CustomEvent("problem", { detail: error }));
    }
    clearTimeout(this.#timer);
    if (this.#isOpen) this.#timer = setTimeout(() => this.#look(), POLL_MS);
  }

  async #show({ id }) {
    const known = this.#read.get(id) ?? { out: 0, err: 0, isOver: false, box: this.#box() };
    this.#read.set(id, known);
    if (known.isOver) return;
    const job = await api.call("GET", `${api.at(this.desktop)}/processes/${encodeURIComponent(id)}?stdout_from=${known.out}&stderr_from=${known.err}`);
    const [summary, pre] = known.box.children;
    summary.textContent = `$ ${job.command}  ${job.state === "running" ? "runs" : `→ ${job.exit_code}`}`;
    pre.textContent = (pre.textContent + job.stdout + job.stderr).slice(-100_000);
    Object.assign(known, { out: job.stdout_next, err: job.stderr_next, isOver: job.state === "exited" && !job.stdout && !job.stderr });
  }

  #box() {
    const box = document.createElement("details");
    box.open = true;
    box.append(document.createElement("summary"), document.createElement("pre"));
    this.querySelector(".outputs").prepend(box);
    return box;
  }
});
