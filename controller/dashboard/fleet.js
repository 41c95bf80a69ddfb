// Pools, queue, nodes and strays at a glance, and the two things an operator changes about them.

import * as api from "./api.js";

const POLL_MS = 2000;
const $ = (id) => document.getElementById(id);
const pools = new Map(); // template -> its row

function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

function figures(status) {
  const running = status.workspaces.ready ?? 0;
  const told = {
    "in use": running,
    paused: status.workspaces.paused ?? 0,
    warm: status.pools.reduce((sum, pool) => sum + pool.warm, 0),
    "waiting claims": status.waiting,
    controllers: status.controllers.length,
    strays: status.strays,
  };
  $("figures").replaceChildren(...Object.entries(told).map(([name, value]) => {
    const figure = document.createElement("div");
    figure.classList.toggle("bad", name === "strays" && value > 0);
    figure.append(Object.assign(document.createElement("dt"), { textContent: name }));
    figure.append(Object.assign(document.createElement("dd"), { textContent: value }));
    return figure;
  }));
  $("troubles").hidden = status.troubles.length === 0;
  $("troubles").replaceChildren(...status.troubles.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
}

function poolRow(template) {
  const row = $("pool").content.firstElementChild.cloneNode(true);
  const [warm, max] = row.querySelectorAll("input");
  warm.setAttribute("aria-label", `Keep warm of ${template}`);
  max.setAttribute("aria-label", `At most of ${template}`);
  const button = row.querySelector("button");
  button.setAttribute("aria-label", `Set the pool of ${template}`);
  button.addEventListener("click", () => change(row, async () => {
    await api.call("PATCH", `/v1/pools/${encodeURIComponent(template)}`, {
      warm: Number(warm.value),
      max: max.value === "" ? null : Number(max.value),
    });
    row.classList.remove("edited");
  }));
  for (const input of [warm, max]) input.addEventListener("input", () => row.classList.add("edited"));
  $("pools").append(row);
  return row;
}

function drawPool(pool) {
  if (!pools.has(pool.template)) pools.set(pool.template, poolRow(pool.template));
  const row = pools.get(pool.template);
  const met = pool.hits + pool.misses ? `${Math.round((100 * pool.hits) / (pool.hits + pool.misses))} %` : "";
  const state = pool.state.replaceAll("_", " ") + (pool.reason ? `: ${pool.reason}` : "");
  const told = [pool.template, state, `${pool.warm} of ${pool.target}`, pool.warming, pool.live, pool.waiting, met];
  told.forEach((text, index) => setText(row.children[index], text));
  row.children[1].dataset.state = { quarantined: "failed", filled: "ready", idle: "ready" }[pool.state] ?? "";
  if (row.classList.contains("edited") || row.contains(document.activeElement)) return;
  const [warm, max] = row.querySelectorAll("input");
  warm.value = pool.pool.warm;
  max.value = pool.pool.max ?? "";
}

function nodeRow(node) {
  const row = document.createElement("tr");
  row.append(Object.assign(document.createElement("th"), { scope: "row", textContent: node.name }));
  const state = !node.alive ? "gone" : node.draining ? "draining" : "in service";
  const free = node.memory_free_mib === null ? "" : `${api.size(node.memory_free_mib * 2 ** 20)} of ${api.size(node.memory_mib * 2 ** 20)}`;
  for (const text of [state, `${node.desktops}, ${node.warm} of them warm`, node.slots, free]) {
    row.append(Object.assign(document.createElement("td"), { textContent: text }));
  }
  row.children[1].className = "state";
  row.children[1].dataset.state = node.alive && !node.draining ? "ready" : "failed";
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = node.draining ? "Back into service" : "Drain";
  button.setAttribute("aria-label", `${button.textContent}: ${node.name}`);
  button.addEventListener("click", () => change(row, () =>
    api.call("PATCH", `/v1/nodes/${encodeURIComponent(node.id)}`, { draining: !node.draining })));
  const cell = document.createElement("td");
  cell.append(button);
  row.append(cell);
  return row;
}

async function change(row, work) {
  row.inert = true;
  try {
    await work();
    api.showError($("problem"), null);
  } catch (error) {
    api.showError($("problem"), error);
  } finally {
    row.inert = false;
  }
  poll();
}

let drawnNodes = "";
function draw(status) {
  figures(status);
  status.pools.forEach(drawPool);
  for (const [template, row] of pools) {
    if (status.pools.some((pool) => pool.template === template)) continue;
    row.remove();
    pools.delete(template);
  }
  const told = JSON.stringify(status.nodes);
  if (told !== drawnNodes) { // else the focus on a button stays
    drawnNodes = told;
    $("nodes").replaceChildren(...status.nodes.map(nodeRow));
  }
}

let timer;
async function poll() {
  clearTimeout(timer);
  if (!document.hidden) {
    try {
      draw(await api.call("GET", "/v1/status"));
      $("fleet").hidden = false;
      $("login").hidden = true;
      api.showError($("problem"), null);
    } catch (error) {
      const isUnknown = error.status === 401;
      if (isUnknown && $("login").hidden) {
        $("login").hidden = false;
        $("fleet").hidden = true;
        $("key").focus();
      }
      api.showError($("problem"), isUnknown ? null : error);
    }
  }
  clearTimeout(timer);
  timer = setTimeout(poll, POLL_MS);
}

api.keyForm($("login"), poll);
document.addEventListener("visibilitychange", () => document.hidden || poll());
poll();
