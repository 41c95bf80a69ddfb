// The front page: the live desktops as cards, renewed every two seconds while the page is seen.

import * as api from "./api.js";
import "./tenants.js";

const POLL_MS = 2000;
const THUMB_MS = 2000;
const PAGE = 1000;
const FIRST_PAGE = 48; // is drawn before the others are asked for
const THUMB_TIMEOUT_MS = 15_000;
const STATES = {
  queued: "waiting", starting: "starting", ready: "ready", paused: "paused",
  releasing: "ending", released: "released", failed: "failed",
};

const $ = (id) => document.getElementById(id);
const cards = new Map(); // workspace id -> Card

class Card {
  constructor(workspace) {
    this.root = $("card").content.firstElementChild.cloneNode(true);
    this.part = (selector) => this.root.querySelector(selector);
    this.img = this.part("img");
    this.isSeen = false;
    this.isBlind = false;
    this.hasPicture = false;
    this.loadingSince = 0;
    this.root.dataset.id = workspace.id;
    for (const link of this.root.querySelectorAll("a")) link.href = `/watch/${workspace.id}`;
    this.part(".release").addEventListener("click", () => confirmRelease(this.workspace));
    this.update(workspace);
  }

  update(workspace) {
    this.workspace = workspace;
    const title = workspace.name || workspace.id;
    const isReady = workspace.state === "ready" || workspace.state === "paused"; // to be seen
    this.root.dataset.state = workspace.state;
    setText(this.part("h2 a"), title);
    setText(this.part(".state"), STATES[workspace.state] ?? workspace.state);
    this.part(".state").dataset.state = workspace.state;
    setText(this.part(".template"), workspace.name ? `${workspace.template} · ${workspace.id}` : workspace.template);
    const holder = workspace.control;
    setText(this.part(".holder"), holder ? `${holder.display_name || holder.holder} has control` : "");
    setText(this.part(".left"), workspace.expires_at ? api.timeLeft(workspace.expires_at) : "");
    this.say();
    this.img.alt = `Screen of ${title}`;
    const { width, height } = workspace.screen ?? { width: 1280, height: 800 };
    this.part(".thumb").style.aspectRatio = `${width} / ${height}`;
    for (const link of this.root.querySelectorAll("a.watch, a.thumb")) {
      link.setAttribute("aria-label", `Watch ${title}`);
    }
    this.part(".watch").classList.toggle("off", !isReady);
    this.part(".release").setAttribute("aria-label", `Release ${title}`);
    this.part(".release").disabled = workspace.state === "releasing";
    api.showError(this.part(".notice"), workspace.error ?? null);
    this.renew();
  }

  // A new thumbnail, if it can be seen and the last one has come (or been given up).
  renew() {
    if (!this.isSeen || document.hidden || this.workspace.state !== "ready") return;
    if (this.loadingSince && Date.now() - this.loadingSince < THUMB_TIMEOUT_MS) return;
    this.loadingSince = Date.now();
    const next = new Image(); // the last one stays until this has come
    next.addEventListener("load", () => this.loaded(next));
    next.addEventListener("error", () => this.loaded(null));
    next.alt = this.img.alt;
    next.src = api.thumbnail(this.workspace.id);
  }

  // What stands over the thumbnail, if anything.
  say() {
    const { state } = this.workspace;
    const words = {
      queued: "Waiting for a place…",
      starting: "Starting…",
      ready: this.isBlind ? "No picture" : "",
      paused: "Paused",
    };
    setText(this.part(".wait"), words[state] ?? "Ending…");
    this.img.hidden = !this.hasPicture || (this.isBlind && state === "ready");
  }

  loaded(picture) {
    const took = Date.now() - this.loadingSince;
    this.loadingSince = 0;
    this.isBlind = !picture;
    if (picture) {
      this.img.replaceWith(picture);
      this.img = picture;
      this.hasPicture = true;
    }
    this.say();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.renew(), Math.max(0, THUMB_MS - took));
  }

  remove() {
    clearTimeout(this.timer);
    seen.unobserve(this.root);
    this.root.remove();
  }
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const card = cards.get(entry.target.dataset.id);
    if (!card) continue;
    card.isSeen = entry.isIntersecting;
    card.renew();
  }
});

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function draw(workspaces, { isAll = true } = {}) {
  const live = workspaces
    .filter((each) => each.state !== "released" && each.state !== "failed")
    .sort((a, b) => (a.created_at < b.created_at ? 1 : -1));
  const ids = new Set(live.map((each) => each.id));
  for (const [id, card] of cards) {
    if (!ids.has(id)) {
      card.remove();
      cards.delete(id);
    }
  }
  live.forEach((workspace, index) => {
    let card = cards.get(workspace.id);
    if (card) card.update(workspace);
    else {
      card = new Card(workspace);
      cards.set(workspace.id, card);
    }
    const place = $("cards").children[index];
    if (place !== card.root) $("cards").insertBefore(card.root, place ?? null);
    seen.observe(card.root);
  });
  $("empty").hidden = live.length > 0;
  if (isAll) setText($("count"), live.length === 0 ? "" : live.length === 1 ? "1 desktop" : `${live.length} desktops`);
}

// Which agents wait for a person, the first that asked first.
function drawRequests(requests, workspaces) {
  const names = new Map(workspaces.map((each) => [each.id, each.name || each.id]));
  $("asked").hidden = requests.length === 0;
  const key = JSON.stringify(requests.map((each) => [each.ticket, each.state, each.taken_by]));
  if ($("asked-list").dataset.key === key) return; // what is focused stays so
  $("asked-list").dataset.key = key;
  $("asked-list").replaceChildren(...requests.map((request) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = `/watch/${request.workspace_id}`;
    link.textContent = names.get(request.workspace_id) ?? request.workspace_id;
    const reason = document.createElement("span");
    const who = request.taken_by ? ` (${request.taken_by} is at it)` : "";
    reason.textContent = `: ${request.reason} – asked at ${api.clockAt(request.created_at)}${who}`;
    item.append(link, reason);
    return item;
  }));
}

// Why a login by the provider came back without one, by the code in this page's address.
const REFUSED = {
  forbidden: ["Your organisation's login gives you no role here.", "Ask whoever runs Carrel for one."],
  unauthorized: ["The login was not completed.", "Log in again."],
  unavailable: ["Your organisation's login does not answer.", "Try again in a moment, or enter a key."],
};

function tellRefusal() {
  const code = new URLSearchParams(location.search).get("refused");
  if (code === null) return;
  history.replaceState(null, "", location.pathname);
  const [message, hint] = REFUSED[code] ?? REFUSED.unauthorized;
  api.showError($("login").querySelector("[role=alert]"), { message, hint });
}

function showLogin(isNeeded) {
  const wasHidden = $("login").hidden;
  $("login").hidden = !isNeeded;
  $("create").hidden = isNeeded;
  if (!isNeeded) return;
  draw([]);
  $("tenants").forget();
  $("asked").hidden = true;
  $("empty").hidden = true;
  if (wasHidden) {
    $("key").focus();
    api.call("GET", "/v1/login").then(({ oidc }) => ($("oidc").hidden = !oidc), () => {});
  }
}

// Every live desktop, page after page.
async function all() {
  const found = [];
  let after = "";
  do {
    const isFirst = cards.size === 0;
    const page = await api.call("GET", `/v1/workspaces?limit=${isFirst ? FIRST_PAGE : PAGE}${after && `&after=${after}`}`);
    found.push(...page.workspaces);
    after = page.after ?? "";
    if (isFirst && after) {
      showLogin(false);
      draw(found, { isAll: false });
    }
  } while (after);
  return found;
}

async function refresh() {
  try {
    const workspaces = await all();
    showLogin(false);
    api.showError($("problem"), null);
    drawRequests(await api.requests(), workspaces);
    draw(workspaces);
    await $("tenants").renew();
  } catch (error) {
    if (error.status === 401) {
      api.showError($("problem"), null);
      showLogin(true);
    } else {
      api.showError($("problem"), error);
    }
  }
}

let timer;
async function poll() {
  clearTimeout(timer);
  if (!document.hidden) await refresh();
  clearTimeout(timer);
  timer = setTimeout(poll, POLL_MS);
}

async function confirmRelease(workspace) {
  setText($("confirm-name"), workspace.name || workspace.id);
  const dialog = $("confirm");
  dialog.returnValue = "cancel";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "release") return;
  cards.get(workspace.id)?.update({ ...workspace, state: "releasing" });
  try {
    await api.release(workspace.id);
    api.showError($("problem"), null);
  } catch (error) {
    api.showError($("problem"), error);
  }
  poll();
}

let templates = [];
async function openNew() {
  const dialog = $("new");
  const box = dialog.querySelector("[role=alert]");
  api.showError(box, null);
  dialog.showModal();
  try {
    const answer = await api.call("GET", "/v1/templates");
    templates = Array.isArray(answer) ? answer : answer.templates ?? [];
    $("template").replaceChildren(
      ...templates.map(({ name }) => new Option(name, name, name === "desktop", name === "desktop")),
    );
    aboutTemplate();
  } catch (error) {
    api.showError(box, error);
  }
}

function aboutTemplate() {
  const chosen = templates.find(({ name }) => name === $("template").value);
  setText($("template-about"), chosen?.description ?? "");
}

async function create(event) {
  event.preventDefault();
  const dialog = $("new");
  $("new-go").disabled = true;
  try {
    await api.call("POST", "/v1/workspaces", {
      template: $("template").value || "desktop",
      name: $("name").value.trim(),
      ttl_seconds: Number($("ttl").value),
      wait: false,
    });
    $("name").value = "";
    dialog.close();
    poll();
  } catch (error) {
    api.showError(dialog.querySelector("[role=alert]"), error);
  } finally {
    $("new-go").disabled = false;
  }
}

api.keyForm($("login"), poll);
$("create").addEventListener("click", openNew);
$("create-first").addEventListener("click", openNew);
$("template").addEventListener("change", aboutTemplate);
$("new").querySelector("form").addEventListener("submit", create);
$("new").querySelector("[data-close]").addEventListener("click", () => $("new").close());
document.addEventListener("visibilitychange", () => document.hidden || poll());
tellRefusal();
poll();
