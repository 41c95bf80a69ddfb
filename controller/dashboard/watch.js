// One desktop's screen: watched by default, and taken over on request.
//
// The server enforces control; `viewOnly` here only keeps this page from sending what would be
// dropped. Control is taken by a request, whose grant the connection then names: when it goes
// (another takes it, or time runs out) the connection stays, as a viewer's. A viewer's token comes in the fragment, is traded for a cookie, and leaves the address.

import * as api from "./api.js";
import * as side from "./side.js";
import RFB from "./vendor/novnc/core/rfb.js";

const BACKOFF_MS = [500, 1000, 2000, 4000, 8000];
const CONNECT_MS = 15_000;
const POLL_MS = 5000;
const CONTROL_POLL_MS = 1500;
const ENDING_MS = 500;
const ENDED = new Set(["released", "failed"]);

const $ = (id) => document.getElementById(id);
const id = decodeURIComponent(location.pathname.split("/").filter(Boolean).pop() ?? "");

let rfb = null;
let role = "view";
let grant = ""; // of this page, while it has control
let holder = null; // who has control, by the controller's last word
let attempts = 0; // since the last good connection
let retryTimer;
let isOver = false;
let screenSize = [1280, 800];
let byLink = false; // this page was come to by a link, good or not
let hasKey = false; // a viewer's link tells nothing of control but through the workspace

function setLink(text, state) {
  $("link").textContent = text;
  $("link").dataset.state = state;
}

function cover(text, { canRetry = false, retry = "Try now" } = {}) {
  $("waiting").hidden = !text;
  $("waiting-text").textContent = text;
  $("retry").hidden = !canRetry;
  $("retry").textContent = retry;
}

function showRole(connected) {
  const hasControl = role === "control" && connected;
  $("badge").textContent = hasControl ? "You have control" : "View only";
  $("control-left").hidden = !hasControl;
  $("badge").hidden = role === "control" && !connected;
  $("badge").classList.toggle("on", hasControl);
  $("take").hidden = role === "control";
  $("take").disabled = !connected;
  $("back").hidden = role !== "control";
  document.body.classList.toggle("control", hasControl);
}

function drop() {
  clearTimeout(retryTimer);
  const old = rfb;
  rfb = null; // its last events are not ours any more
  old?.disconnect();
}

function connect() {
  if (isOver) return;
  drop();
  showRole(false);
  setLink(attempts ? "Reconnecting…" : "Connecting…", "wait");
  cover(attempts ? "Connection lost. Reconnecting…" : "Connecting…");
  const socket = new WebSocket(api.vncUrl(id, role, grant));
  let reason = "";
  socket.addEventListener("close", (event) => (reason = event.reason));
  const mine = new RFB($("screen"), socket, { shared: true });
  rfb = mine;
  mine.viewOnly = role === "view";
  mine.scaleViewport = true;
  mine.background = "transparent";
  mine.qualityLevel = 7;
  mine.compressionLevel = 2;
  const patience = setTimeout(() => rfb === mine && mine.disconnect(), CONNECT_MS);
  mine.addEventListener("connect", () => {
    clearTimeout(patience);
    if (rfb !== mine) return;
    attempts = 0;
    setLink("Live", "live");
    cover("");
    showRole(true);
    if (role === "control") mine.focus();
    look();
  });
  mine.addEventListener("disconnect", () => {
    clearTimeout(patience);
    if (rfb === mine) lost(reason);
  });
  mine.addEventListener("securityfailure", ({ detail }) => (reason = detail.reason ?? ""));
}

async function lost(reason) {
  rfb = null;
  showRole(false);
  setLink("Disconnected", "off");
  if (role === "control") await lookAtControl(); // it may be lost, and the connection with it
  if (isOver || !(await look())) return;
  const wait = BACKOFF_MS[Math.min(attempts++, BACKOFF_MS.length - 1)];
  cover(`${reason || "Connection lost."} Trying again in ${Math.ceil(wait / 1000)} s.`, { canRetry: true });
  clearTimeout(retryTimer);
  retryTimer = setTimeout(connect, wait);
}

function end(title, why, hint = "") {
  isOver = true;
  drop();
  side.end();
  $("end-title").textContent = title;
  $("end-why").textContent = why;
  $("end-hint").textContent = hint;
  $("end").hidden = false;
  cover("");
  $("screen").hidden = true;
  showRole(false);
  for (const part of ["take", "back", "full", "holder", "control-left", "asked", "said"]) $(part).hidden = true;
  $("badge").hidden = true;
  $("left").textContent = "";
  setLink("Ended", "off");
  document.title = `Ended · Carrel`;
}

function endOf(workspace) {
  const why = workspace.error?.message;
  if (workspace.state === "failed") {
    return end("This desktop failed", why ?? "It did not come up or was lost.", workspace.error?.hint);
  }
  const ranOut = workspace.expires_at && Date.parse(workspace.expires_at) <= api.serverNow();
  return end(
    "This desktop has ended",
    why ?? (ranOut ? "Its time ran out." : "It was released."),
    "Everything in it is deleted. An ended desktop is never used again.",
  );
}

function endOfError(error) {
  const isUnknown = error.status === 404;
  end(isUnknown ? "There is no such desktop" : "This desktop has ended", error.message, error.hint);
}

// What the controller says of the desktop. True: it lives (or the controller is away).
async function look() {
  let workspace;
  try {
    workspace = await api.workspace(id);
  } catch (error) {
    if (error.status === 404 || error.status === 410) {
      endOfError(error);
      return false;
    }
    if (error.status === 401 || error.status === 403) {
      drop();
      setLink("Not signed in", "off");
      const why = byLink && !hasKey
        ? "This link has expired or was revoked: ask whoever sent it for a new one."
        : "This page needs a key, or a link with a viewer's token.";
      cover(why);
      askForKey(byLink && !hasKey ? `${why} Or enter a key.` : "Enter a key to watch this desktop.", () => connect());
      return false;
    }
    return true;
  }
  if (!hasKey && role !== "control") {
    holder = workspace.control ?? null;
    showControl();
  }
  const title = workspace.name || workspace.id;
  $("title").textContent = title;
  document.title = `${title} · Carrel`;
  $("left").textContent = workspace.expires_at ? api.timeLeft(workspace.expires_at) : "";
  if (ENDED.has(workspace.state)) {
    endOf(workspace);
    return false;
  }
  if (workspace.watch_url) side.offer(workspace, () => screenSize, look); // told to who has a key
  screenSize = [workspace.screen.width, workspace.screen.height];
  if (workspace.state === "releasing") {
    drop();
    setLink("Ending", "wait");
    cover("This desktop is ending…");
    retryTimer = setTimeout(() => !isOver && look(), ENDING_MS);
    return false;
  }
  if (workspace.state === "queued") cover("The desktop waits for a place…");
  if (workspace.state === "starting") cover("The desktop is starting…");
  const { state } = $("link").dataset;
  if (state === "live" && workspace.state === "paused") {
    setLink("Paused", "paused");
    cover("Paused: nothing in it runs.", { canRetry: true, retry: "Resume" }); // by a new connection
  } else if (state === "paused" && workspace.state === "ready") {
    setLink("Live", "live");
    cover("");
  }
  return true;
}

let afterLogin = () => {};
function askForKey(why, done) {
  afterLogin = done;
  $("login-why").textContent = why;
  if (!$("login").open) $("login").showModal();
}

async function takeControl() {
  try {
    if (!(await api.mayControl(id))) {
      return askForKey("You may watch. Taking control needs a key.", takeControl);
    }
  } catch (error) {
    setLink(error.message, "off");
    return;
  }
  await takeWith({});
}

async function takeWith(wanted) {
  $("take").disabled = true;
  try {
    const control = await api.takeControl(id, wanted);
    grant = control.grant;
    holder = control;
  } catch (error) {
    $("take").disabled = !rfb;
    if (error.code === "control_taken") return askToForce(error);
    return say(error.message, error.hint);
  }
  say("");
  role = "control";
  attempts = 0;
  connect();
  showControl();
}

// Another person has it: wait, or take it from them.
function askToForce(error) {
  $("taken-who").textContent = error.details?.who ?? "Another person";
  $("taken-since").textContent = error.details?.since ? api.clockAt(error.details.since) : "";
  $("taken").returnValue = "wait";
  $("taken").showModal();
}

async function handBack() {
  try {
    await api.handBack(id);
    lose("");
    holder = null;
    showControl();
  } catch (error) {
    say(error.message, error.hint);
  }
}

// This page has no control any more; its connection goes on.
function lose(why) {
  role = "view";
  grant = "";
  if (rfb) rfb.viewOnly = true;
  showRole(Boolean(rfb));
  say(why);
}

function say(text, hint = "") {
  $("said").hidden = !text;
  $("said-text").textContent = hint ? `${text} ${hint}` : text;
}

const WHYS = {
  timed_out: "Nothing was moved or typed: the agent has control again.",
  disconnected: "The connection was gone for too long: the agent has control again.",
  handed_back: "Control was handed back: the agent has it again.",
  taken_over: "Control was taken from you.",
};

async function lookAtControl() {
  let control;
  try {
    control = await api.control(id);
  } catch {
    return; // what is wrong with the desktop is told elsewhere
  }
  holder = control.holder ? control : null;
  if (role === "control" && grant && control.grant !== grant) {
    const elsewhere = control.grant ? "You took control in another place." : WHYS.taken_over;
    lose(control.holder ? elsewhere : (WHYS[control.returned?.why] ?? WHYS.handed_back));
  }
  showControl();
}

// What the agent of this desktop asks a person for, if it does.
let asked = null;
async function lookAtRequests() {
  let found;
  try {
    found = (await api.requests()).find((each) => each.workspace_id === id) ?? null;
  } catch {
    return;
  }
  if (found?.ticket !== asked?.ticket) $("note").value = "";
  asked = found;
  $("asked").hidden = !asked;
  $("asked-reason").textContent = asked?.reason ?? "";
}

async function answer(event) {
  event.preventDefault();
  if (!asked) return;
  const outcome = event.submitter?.value === "declined" ? "declined" : "done";
  try {
    await api.answerRequest(id, asked.ticket, outcome, $("note").value.trim());
    asked = null;
    $("asked").hidden = true;
    lose(outcome === "done" ? "Thank you: the agent goes on." : "Declined: the agent goes on.");
    holder = null;
    showControl();
  } catch (error) {
    say(error.message, error.hint);
    lookAtRequests();
  }
}

// Who has control, in a line, and how long without input.
function showControl() {
  const isMine = role === "control";
  $("holder").hidden = isMine || !holder;
  if (holder && !isMine) {
    const who = holder.display_name || holder.holder;
    $("holder").textContent = `${who} has control since ${api.clockAt(holder.since)}`;
  }
  $("control-left").hidden = !isMine || !holder;
  if (isMine && holder?.until) {
    $("control-left").textContent = `back to the agent in ${api.clockTo(holder.until)} without input`;
  }
}

async function toggleFullscreen() {
  if (document.fullscreenElement) await document.exitFullscreen();
  else await document.documentElement.requestFullscreen();
}

async function start() {
  const token = location.hash.slice(1);
  if (token) {
    byLink = true;
    history.replaceState(null, "", location.pathname + location.search);
    try {
      await api.redeem(id, token);
    } catch (error) {
      if (error.status === 404 || error.status === 410) return endOfError(error);
      // A link that is not valid any more: a key, or an earlier link's cookie, may still do.
      if (error.status !== 401 && error.status !== 403) setLink(error.message, "off");
    }
  }
  hasKey = await api.isLoggedIn().catch(() => false);
  if (!(await look())) return;
  if (new URLSearchParams(location.search).has("control")) await takeControl();
  if (!rfb) connect();
}

api.keyForm($("login").querySelector("form"), () => {
  $("login").close();
  hasKey = true;
  afterLogin();
});
$("login-close").addEventListener("click", () => $("login").close());
$("take").addEventListener("click", takeControl);
$("back").addEventListener("click", handBack);
$("asked").addEventListener("submit", answer);
$("said-close").addEventListener("click", () => say(""));
$("taken").addEventListener("close", () => {
  if ($("taken").returnValue === "force") takeWith({ force: true });
});
$("retry").addEventListener("click", connect);
$("full").addEventListener("click", toggleFullscreen);
$("full").hidden = !document.fullscreenEnabled;
document.addEventListener("fullscreenchange", () => {
  $("full").textContent = document.fullscreenElement ? "Leave fullscreen" : "Fullscreen";
});
addEventListener("hashchange", () => location.hash.length > 1 && location.reload()); // another link to it
setInterval(() => !isOver && !document.hidden && rfb && look(), POLL_MS);
setInterval(() => {
  if (isOver || !rfb || (role !== "control" && document.hidden)) return;
  if (hasKey || role === "control") lookAtControl(); // a link tells of it only who controls by it
  if (hasKey) lookAtRequests();
}, CONTROL_POLL_MS);
start();
