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
  $("timeline").addEventListener("frames", ({ detail }) => showFrames(detail, screen()));
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

// What the screen showed before and after a line of the timeline, with the place of what was done.
function showFrames({ title, before, after, at }, [width, height]) {
  $("frames-title").textContent = title;
  $("frames-shown").replaceChildren(...[["Before", before, at], ["After", after, []]].map(([name, frame, points]) => {
    const figure = document.createElement("figure");
    const shown = document.createElement("div");
    if (frame?.artifact) {
      const picture = new Image();
      picture.alt = `The screen ${name.toLowerCase()}`;
      picture.src = `/v1/artifacts/${encodeURIComponent(frame.artifact)}`;
      shown.append(picture, ...points.map(([x, y], index) => ring(index, points, x / width, y / height)));
    }
    figure.append(shown, Object.assign(document.createElement("figcaption"), { textContent: frame?.artifact ? name : `${name}: not kept` }));
    return figure;
  }));
  $("frames").showModal();
}

function ring(index, points, left, top) {
  const made = document.createElement("span");
  made.className = "ring";
  made.textContent = points.length > 1 ? index + 1 : "";
  made.style.left = `${left * 100}%`;
  made.style.top = `${top * 100}%`;
  return made;
}

// Rings over the screen where a line of the timeline was.
function mark(points, [width, height]) {
  const canvas = document.querySelector("#screen canvas");
  $("marks").replaceChildren();
  if (!canvas || !points.length) return;
  const shown = canvas.getBoundingClientRect();
  const stage = $("stage").getBoundingClientRect();
  points.forEach(([x, y], index) => {
    const left = shown.left - stage.left + (x / width) * shown.width;
    const top = shown.top - stage.top + (y / height) * shown.height;
    $("marks").append(ring(index, points, left / stage.width, top / stage.height));
  });
}
