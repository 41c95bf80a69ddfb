// What stands beside the screen: the desktop's life, and its timeline, files, output and film.
//
// Only for who has a key: a viewer's link shows the screen and no more.

import * as api from "./api.js";
import "./timeline.js";
import "./files.js";
import "./jobs.js";
import "./film.js";

const EXTEND_SECONDS = 1800;
const $ = (id) => document.getElementById(id);
const tabs = [...document.querySelectorAll("#tabs [role=tab]")];
const pane = (tab) => document.getElementById(tab.getAttribute("aria-controls"));

let id = "";
let changed = () => {};
let current = tabs[0];

function choose(tab) {
  pane(current).close();
  current = tab;
  for (const each of tabs) {
    each.setAttribute("aria-selected", String(each === tab));
    each.tabIndex = each === tab ? 0 : -1;
    pane(each).hidden = each !== tab;
  }
  api.showError($("side-problem"), null);
  if (!$("side").hidden) pane(tab).open(id);
}

// Arrow keys go from tab to tab, as in the ARIA practices for tabs.
function onKey(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = tabs[(tabs.indexOf(current) + step + tabs.length) % tabs.length];
  next.focus();
  choose(next);
}

function toggle(isOpen) {
  $("side").hidden = !isOpen;
  $("details").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) pane(current).open(id);
  else pane(current).close();
}

async function change(work) {
  try {
    await work();
    api.showError($("side-problem"), null);
  } catch (error) {
    api.showError($("side-problem"), error);
  }
  changed();
}

// The desktop as the controller last told of it.
function show(workspace) {
  const isPaused = workspace.state === "paused";
  $("about").textContent = [workspace.template, workspace.id, workspace.node].filter(Boolean).join(" · ");
  $("pause").hidden = isPaused;
  $("resume").hidden = !isPaused;
  $("pause").disabled = workspace.state !== "ready";
}

// Offer it for a desktop, or renew it; `screen` tells the screen's size, `look` looks at it anew.
export function offer(workspace, screen, look) {
  if (id) return show(workspace);
  id = workspace.id;
  changed = look;
  $("details").hidden = false;
  show(workspace);
  for (const tab of tabs) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", onKey);
    pane(tab).addEventListener("problem", ({ detail }) => api.showError($("side-problem"), detail));
  }
  $("timeline").addEventListener("places", ({ detail }) => mark(detail, screen()));
  $("details").addEventListener("click", () => toggle($("side").hidden));
  $("pause").addEventListener("click", () => change(() => api.call("POST", `${api.at(id)}/pause`)));
  $("resume").addEventListener("click", () => change(() => api.call("POST", `${api.at(id)}/resume`)));
  $("extend").addEventListener("click", () => change(() => api.call("POST", `${api.at(id)}/extend`, { ttl_seconds: EXTEND_SECONDS })));
  $("release").addEventListener("click", release);
}

// Nothing of it is left to look into.
export function end() {
  if (!id) return;
  toggle(false);
  $("details").hidden = true;
}

async function release() {
  const dialog = $("confirm");
  dialog.returnValue = "cancel";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "release") return;
  try {
    await api.release(id);
  } catch (error) {
    api.showError($("side-problem"), error);
  }
}

// Rings over the screen where a line of the timeline was.
function mark(points, [width, height]) {
  const canvas = document.querySelector("#screen canvas");
  $("marks").replaceChildren();
  if (!canvas || !points.length) return;
  const shown = canvas.getBoundingClientRect();
  const stage = $("stage").getBoundingClientRect();
  points.forEach(([x, y], index) => {
    const ring = document.createElement("span");
    ring.textContent = points.length > 1 ? index + 1 : "";
    ring.style.left = `${shown.left - stage.left + (x / width) * shown.width}px`;
    ring.style.top = `${shown.top - stage.top + (y / height) * shown.height}px`;
    $("marks").append(ring);
  });
}
