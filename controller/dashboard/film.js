// The recording of a desktop's screen: begin, end, save.

import * as api from "./api.js";

const POLL_MS = 1000;

customElements.define("carrel-film", class extends HTMLElement {
  #timer;
  #isOpen = false;

  connectedCallback() {
    this.innerHTML = `
      <p class="said" role="status"></p>
      <div class="actions">
        <button type="button" class="primary begin">Record</button>
        <button type="button" class="end" hidden>Stop</button>
        <a class="button save" download hidden>Save the film</a>
      </div>`;
    this.querySelector(".begin").addEventListener("click", () => this.#do("", {}));
    this.querySelector(".end").addEventListener("click", () => this.#do("/stop"));
  }

  open(desktop) {
    this.desktop = desktop;
    this.querySelector(".save").href = `${this.path}/file`;
    if (this.#isOpen) return;
    this.#isOpen = true;
    this.#look();
  }

  close() {
    this.#isOpen = false;
    clearTimeout(this.#timer);
  }

  get path() {
    return `${api.at(this.desktop)}/recording`;
  }

  async #do(what, body) {
    try {
      this.#show(await api.call("POST", this.path + what, body));
      this.dispatchEvent(new CustomEvent("problem", { detail: null }));
    } catch (error) {
      this.dispatchEvent(new CustomEvent("problem", { detail: error }));
    }
  }

  async #look() {
    try {
      this.#show(await api.call("GET", this.path));
    } catch (error) {
      if (error.status === 404) this.#show(null);
      else this.dispatchEvent(new CustomEvent("problem", { detail: error }));
    }
    clearTimeout(this.#timer);
    if (this.#isOpen) this.#timer = setTimeout(() => this.#look(), POLL_MS);
  }

  #show(recording) {
    const isRunning = recording?.state === "recording";
    this.querySelector(".begin").hidden = isRunning;
    this.querySelector(".end").hidden = !isRunning;
    this.querySelector(".save").hidden = recording?.state !== "finished";
    const length = recording && `${Math.round(recording.seconds)} s, ${api.size(recording.size)}`;
    const why = recording?.reason === "stopped" ? "" : ` (${recording?.reason.replaceAll("_", " ")})`;
    this.querySelector(".said").textContent = !recording
      ? "Nothing was recorded yet."
      : isRunning ? `Recording: ${length}` : `Recorded: ${length}${why}`;
  }
});
