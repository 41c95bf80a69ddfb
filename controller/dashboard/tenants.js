// What each tenant has of what it may have: for an admin, while there is more than one to tell of.

import * as api from "./api.js";

const LOOK_MS = 5000;
const PAGE = 1000;
const MOST = 200; // rows; the command line lists them all
const PARTS = [ // of a tenant: what it is called, and how it is written
  ["workspaces", "Desktops", (n) => `${n}`],
  ["cpus", "Processors", (n) => `${Math.round(n * 10) / 10}`],
  ["memory_mib", "Memory", (n) => api.size(n * 2 ** 20)],
  ["desktop_hours", "Hours this month", (n) => `${Math.round(n * 10) / 10}`],
];

class Tenants extends HTMLElement {
  #shown = "";
  #looked = 0;
  #role = null;

  // Look, if it is time to; called as often as the page likes.
  async renew() {
    if (Date.now() - this.#looked < LOOK_MS) return;
    this.#looked = Date.now();
    this.#role ??= (await api.call("GET", "/v1/whoami")).role;
    if (this.#role !== "admin") return;
    const { tenants } = await api.call("GET", `/v1/tenants?limit=${PAGE}`);
    this.#draw(tenants.filter(isWorthTelling));
  }

  // Somebody else may look now.
  forget() {
    this.#role = null;
    this.#looked = 0;
    this.#draw([]);
  }

  #draw(tenants) {
    const told = JSON.stringify(tenants);
    if (told === this.#shown) return;
    this.#shown = told;
    this.hidden = tenants.length < 2 && !tenants.some(isLimited);
    const head = part("tr", {}, ["Tenant", ...PARTS.map(([, name]) => name)].map((name) => part("th", { scope: "col", textContent: name })));
    const rows = tenants.slice(0, MOST).map((tenant) =>
      part("tr", {}, [part("th", { scope: "row", textContent: tenant.name }), ...PARTS.map((each) => cell(tenant, ...each))]));
    const table = part("table", {}, [part("thead", {}, [head]), part("tbody", {}, rows)]);
    const title = part("h2", { id: "tenants-title", textContent: "Tenants" });
    const more = tenants.length > MOST ? [part("p", { className: "help", textContent: `and ${tenants.length - MOST} more: carrel tenants` })] : [];
    this.replaceChildren(title, part("div", { className: "wide" }, [table]), ...more);
  }
}

const isLimited = (tenant) => PARTS.some(([key]) => tenant.quotas[key] !== null);
const isWorthTelling = (tenant) => isLimited(tenant) || tenant.used.workspaces > 0 || tenant.used.desktop_hours > 0;

function cell(tenant, key, name, write) {
  const used = tenant.used[key];
  const limit = tenant.quotas[key];
  if (limit === null) return part("td", { textContent: write(used) });
  const bar = part("meter", { min: 0, max: limit || 1, value: Math.min(used, limit || 1), high: 0.8 * limit, optimum: 0 });
  bar.setAttribute("aria-label", `${name} of ${tenant.name}`);
  return part("td", {}, [part("span", { textContent: `${write(used)} of ${write(limit)}` }), bar]);
}

function part(tag, properties, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

customElements.define("carrel-tenants", Tenants);
