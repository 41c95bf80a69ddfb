// The files of a desktop: one folder at a time, each file to be saved.

import * as api from "./api.js";

const HOME = "/home/user";
const PAGE = 500;

customElements.define("carrel-files", class extends HTMLElement {
  #folder = HOME;

  connectedCallback() {
    this.innerHTML = `
      <div class="bar"><button type="button" class="quiet up" aria-label="The folder above">↑</button><code class="where"></code></div>
      <ul class="lines" aria-label="Files"></ul>
      <button type="button" class="quiet more" hidden>Show more</button>`;
    this.querySelector(".up").addEventListener("click", () => this.#list(this.#folder.replace(/\/[^/]*$/, "") || "/"));
  }

  open(desktop) {
    this.desktop = desktop;
    this.#list(this.#folder);
  }

  close() {}

  async #list(folder, after = "") {
    const ask = `${api.at(this.desktop)}/files/list?path=${encodeURIComponent(folder)}&limit=${PAGE}`;
    try {
      const found = await api.call("GET", after ? `${ask}&after=${encodeURIComponent(after)}` : ask);
      if (!after) this.querySelector("ul").replaceChildren();
      this.#folder = folder;
      this.querySelector(".where").textContent = folder;
      this.querySelector(".up").disabled = folder === "/";
      this.querySelector("ul").append(...found.entries.map((entry) => this.#row(entry)));
      const more = this.querySelector(".more");
      more.hidden = !found.after;
      more.onclick = () => this.#list(folder, found.after);
      this.dispatchEvent(new CustomEvent("problem", { detail: null }));
    } catch (error) {
      this.dispatchEvent(new CustomEvent("problem", { detail: error }));
    }
  }

  #row(entry) {
    const row = document.createElement("li");
    const isFolder = entry.kind === "directory";
    const name = document.createElement(isFolder ? "button" : "a");
    name.className = isFolder ? "link what" : "what";
    name.textContent = isFolder ? `${entry.name}/` : entry.name;
    if (isFolder) {
      name.type = "button";
      name.addEventListener("click", () => this.#list(entry.path));
    } else {
      name.href = `${api.at(this.desktop)}/files?path=${encodeURIComponent(entry.path)}`;
      name.download = entry.name;
    }
    const size = document.createElement("span");
    size.className = "who";
    size.textContent = isFolder ? "" : api.size(entry.size);
    row.append(name, size);
    return row;
  }
});
