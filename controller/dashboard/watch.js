// One desktop's screen: watched by default, and taken over on request.
//
// The server enforces the role; `viewOnly` here only keeps this page from sending what would be
// dropped. A viewer's token comes in the fragment, is traded for a cookie, and leaves the address.

import * as api from "./api.js";
import * as side from "./side.js";
import RFB from "./vendor/novnc/core/rfb.js";

const BACKOFF_MS = [500, 1000, 2000, 4000, 8000];
const CONNECT_MS = 15_000;
const POLL_MS = 5000;
const ENDING_MS = 500;
const ENDED = new Set(["released", "failed"]);

const $ = (id) => document.getElementById(id);
const id = decodeURIComponent(location.pathname.split("/").filter(Boolean).pop() ?? "");

let rfb = null;
let role = "view";
let attempts = 0; // since the last good connection
let retryTimer;
let isOver = false;
let screenSize = [1280, 800];

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
  const socket = new WebSocket(api.vncUrl(id, role));
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
  for (const button of ["take", "back", "full"]) $(button).hidden = true;
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
      cover("This page needs a key, or a link with a viewer's token.");
      askForKey("Enter a key to watch this desktop.", () => connect());
      return false;
    }
    return true;
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
  role = "control";
  attempts = 0;
  connect();
}

function handBack() {
  role = "view";
  attempts = 0;
  connect();
}

async function toggleFullscreen() {
  if (document.fullscreenElement) await document.exitFullscreen();
  else await document.documentElement.requestFullscreen();
}

async function start() {
  const token = location.hash.slice(1);
  if (token) {
    history.replaceState(null, "", location.pathname + location.search);
    try {
      await api.redeem(id, token);
    } catch (error) {
      if (error.status === 404 || error.status === 410) return endOfError(error);
      // A link that is not valid any more: a key, or an earlier link's cookie, may still do.
      if (error.status !== 401 && error.status !== 403) setLink(error.message, "off");
    }
  }
  if (!(await look())) return;
  if (new URLSearchParams(location.search).has("control")) await takeControl();
  if (!rfb) connect();
}

api.keyForm($("login").querySelector("form"), () => {
  $("login").close();
  afterLogin();
});
$("login-close").addEventListener("click", () => $("login").close());
$("take").addEventListener("click", takeControl);
$("back").addEventListener("click", handBack);
$("retry").addEventListener("click", connect);
$("full").addEventListener("click", toggleFullscreen);
$("full").hidden = !document.fullscreenEnabled;
document.addEventListener("fullscreenchange", () => {
  $("full").textContent = document.fullscreenElement ? "Leave fullscreen" : "Fullscreen";
});
setInterval(() => !isOver && !document.hidden && rfb && look(), POLL_MS);
start();
