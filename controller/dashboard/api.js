// The controller's /v1, as the pages use it. Every failure is an ApiError that can be shown.

const TIMEOUT_MS = 20_000;

export class ApiError extends Error {
  constructor(message, { status = 0, code = "", hint = "", details = {} } = {}) {
    super(message);
    Object.assign(this, { status, code, hint, details });
  }
}

// How far the controller's clock is ahead of this one, in ms: deadlines are in its time.
let clockSkew = 0;
export const serverNow = () => Date.now() + clockSkew;

export async function call(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    throw new ApiError(
      error.name === "TimeoutError"
        ? "The controller does not answer."
        : "The controller cannot be reached.",
      { code: "unreachable", hint: "Is `carrel up` still running? This page keeps trying." },
    );
  }
  const date = Date.parse(response.headers.get("Date") ?? "");
  // The header has whole seconds: only a larger difference is a skewed clock.
  if (date) clockSkew = Math.abs(date - Date.now()) > 2000 ? date - Date.now() : 0;
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  throw new ApiError(answer?.message ?? `The controller answered HTTP ${response.status}.`, {
    status: response.status,
    code: answer?.code,
    hint: answer?.hint,
    details: answer?.details,
  });
}

export const login = (key) => call("POST", "/v1/login", { key });

// Whether this browser holds a key (not only a link).
export async function isLoggedIn() {
  try {
    await call("GET", "/v1/whoami");
    return true;
  } catch (error) {
    if (error.status === 401 || error.status === 403) return false;
    throw error;
  }
}

export const at = (id) => `/v1/workspaces/${encodeURIComponent(id)}`;
export const workspace = (id) => call("GET", at(id));
// Whether this browser's key, or the link that it came by, lets it control that desktop.
export const mayControl = async (id) => (await call("GET", `${at(id)}/viewer`)).mode === "control";
export const release = (id) => call("DELETE", at(id));
export const redeem = (id, token) => call("POST", `${at(id)}/viewer`, { token });
// Passive: to have the list open is no use of every desktop in it.
export const thumbnail = (id) =>
  `${at(id)}/screenshot?scale=0.35&format=jpeg&quality=70&passive=true&t=${Date.now()}`;

export const control = (id) => call("GET", `${at(id)}/control`);
export const takeControl = (id, wanted = {}) => call("POST", `${at(id)}/control`, wanted);
export const handBack = (id) => call("DELETE", `${at(id)}/control`);

// The requests that wait for a person, and an answer to one.
export const requests = async () => (await call("GET", "/v1/requests")).requests;
export const answerRequest = (id, ticket, outcome, note) =>
  call("POST", `${at(id)}/requests/${encodeURIComponent(ticket)}`, { outcome, note });

export function vncUrl(id, role, grant) {
  const url = new URL(`${at(id)}/vnc?role=${role}`, location.href);
  if (grant) url.searchParams.set("grant", grant);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url;
}

// How long until a time of the controller's, as minutes and seconds.
export function clockTo(time) {
  const seconds = Math.max(0, Math.round((Date.parse(time) - serverNow()) / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

export const clockAt = (time) =>
  new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

export function timeLeft(expiresAt) {
  const seconds = Math.max(0, Math.round((Date.parse(expiresAt) - serverNow()) / 1000));
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min left`;
  if (seconds >= 120) return `${Math.floor(seconds / 60)} min left`;
  return `${seconds} s left`;
}

// Bytes, for people.
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  const power = Math.min(Math.floor(Math.log2(bytes || 1) / 10), units.length - 1);
  return `${(bytes / 1024 ** power).toFixed(power && bytes / 1024 ** power < 10 ? 1 : 0)} ${units[power]}`;
}

// An error as two lines: what failed, and what to do.
export function showError(box, error) {
  box.replaceChildren();
  box.hidden = !error;
  if (!error) return;
  const what = document.createElement("strong");
  what.append(...withCode(error.message));
  box.append(what);
  if (error.hint) box.append(" ", ...withCode(error.hint));
}

// Messages mark commands with backticks.
function withCode(text) {
  return text.split("`").map((part, index) => {
    if (index % 2 === 0) return part;
    const code = document.createElement("code");
    code.textContent = part;
    return code;
  });
}

// A form with one password field that turns a key into a cookie; `done` runs when it is accepted.
export function keyForm(form, done) {
  const field = form.querySelector("input");
  const box = form.querySelector("[role=alert]");
  const button = form.querySelector("button[type=submit]");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const key = field.value.trim();
    if (!key) {
      showError(box, new ApiError("Enter a key.", { hint: "`carrel up` prints where it is." }));
      return field.focus();
    }
    button.disabled = true;
    showError(box, null);
    try {
      await login(key);
      field.value = "";
      done();
    } catch (error) {
      showError(box, error.status === 401
        ? new ApiError("That key is not known here.", { hint: "Copy it whole; `carrel up` prints where it is." })
        : error);
      field.select();
    } finally {
      button.disabled = false;
    }
  });
}
