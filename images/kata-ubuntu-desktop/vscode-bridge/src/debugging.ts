// debug: one program at a time, by debugpy for Python and by the debugger of Node that VS Code brings. A
// debugger may have sessions below its first one (Node's has): what any of them says counts.

import { existsSync, rmSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import * as vscode from "vscode";
import * as documents from "./documents.ts";
import { BridgeError, words } from "./errors.ts";
import { absolute, folder, line } from "./places.ts";
import { Tail } from "./processes.ts";
import type { Action, Answer } from "./protocol.ts";
import { quoted } from "./quoting.ts";
import { nodeFolder } from "./testing.ts";
import { Deadline, Turns } from "./waiting.ts";

const SCRIPT = new Set([".js", ".mjs", ".cjs", ".ts", ".mts", ".cts"]);
const MAX_FRAMES = 50;
const MAX_VARIABLES = 200;
const MAX_VALUE = 1000;
const MAX_EVALUATED = 20_000;
const END_MS = 5000;
// What Node itself says on stderr when it is debugged.
const NODES_OWN = /^(Debugger attached|Waiting for the debugger to disconnect\.\.)\.\n/gm;
const STACK_SECONDS = 5;
const NOTE_MS = 1000; // to note it, after the debugger has let go
const VERIFY_MS = 3000;

const GO: Record<string, string> = {
  continue: "workbench.action.debug.continue",
  step_over: "workbench.action.debug.stepOver",
  step_into: "workbench.action.debug.stepInto",
  step_out: "workbench.action.debug.stepOut",
};

interface Stop {
  session: vscode.DebugSession;
  thread: number;
  reason: string;
}

// What the debug adapter protocol says, as far as it is looked at.
interface Message {
  type?: string;
  event?: string;
  body?: {
    reason?: string;
    threadId?: number;
    allThreadsStopped?: boolean;
    category?: string;
    output?: string;
    exitCode?: number;
  };
}

const turns = new Turns();
const sessions = new Set<vscode.DebugSession>();
const output = new Tail();
let stop: Stop | null = null;
let exitCode: number | null = null;
let failure = "";
let hasRun = false;
let programs = 0; // that were begun

export function follow(): vscode.Disposable {
  return vscode.Disposable.from(
    vscode.debug.registerDebugAdapterTrackerFactory("*", {
      createDebugAdapterTracker: (session) => {
        sessions.add(session); // it may stop before VS Code says that it has started
        return {
          onDidSendMessage: (message: Message) => heard(session, message),
          onError: (error) => (failure = words(error)),
          onExit: () => ended(session),
        };
      },
    }),
    { dispose: forget },
    vscode.debug.onDidTerminateDebugSession(ended),
  );
}

function ended(session: vscode.DebugSession): void {
  sessions.delete(session);
  if (stop?.session === session) stop = null;
}

function heard(session: vscode.DebugSession, { type, event, body = {} }: Message): void {
  if (type !== "event") return;
  if (event === "stopped" && body.threadId !== undefined) {
    stop = { session, thread: body.threadId, reason: body.reason ?? "" };
  } else if (event === "continued" || event === "terminated") {
    if (stop?.session === session) stop = null;
  } else if (event === "exited") {
    exitCode = body.exitCode ?? null;
  } else if (event === "output" && (body.category === "stdout" || body.category === "stderr")) {
    output.add((body.output ?? "").replace(NODES_OWN, ""));
  }
}

export async function debug(action: Action, deadline: Deadline): Promise<Answer> {
  switch (action["do"]) {
    case "set_breakpoints":
      return setBreakpoints(action, deadline);
    case "start":
      return start(action, deadline);
    case "stop":
      await end(deadline);
      forget();
      return answer(deadline);
    case "stack":
      stopped();
      return answer(deadline, {}, true);
    case "variables":
      return answer(deadline, { variables: await variables(action, deadline) });
    case "evaluate":
      return evaluate(action, deadline);
    default:
      return goOn(String(action["do"]), deadline);
  }
}

async function setBreakpoints(action: Action, deadline: Deadline): Promise<Answer> {
  const document = await documents.document(String(action["path"]), deadline);
  const wanted = action["breakpoints"] as { line: number; condition?: string | null }[];
  const fresh = wanted.map(({ line: number, condition }) => {
    line(document, number); // it is there
    const at = new vscode.Location(document.uri, new vscode.Position(number - 1, 0));
    return new vscode.SourceBreakpoint(at, true, condition ?? undefined);
  });
  const old = vscode.debug.breakpoints.filter(
    (one) => one instanceof vscode.SourceBreakpoint && one.location.uri.fsPath === document.uri.fsPath,
  );
  vscode.debug.removeBreakpoints(old);
  vscode.debug.addBreakpoints(fresh);
  const [session] = [...sessions].slice(-1);
  const told = new Map<vscode.Breakpoint, { verified: boolean; message?: string }>();
  if (session) {
    const ask = async (one: vscode.SourceBreakpoint) => {
      const known = await session.getDebugProtocolBreakpoint(one);
      if (known) told.set(one, known as unknown as { verified: boolean; message?: string });
    };
    const isKnown = () => fresh.every((one) => told.get(one)?.verified);
    const asking = setInterval(() => fresh.forEach((one) => void ask(one).catch(() => {})), 50);
    await deadline.until(isKnown, VERIFY_MS).finally(() => clearInterval(asking));
  }
  const breakpoints = fresh.map((one) => ({
    line: one.location.range.start.line + 1,
    is_verified: told.get(one)?.verified ?? false,
    message: told.get(one)?.message ?? "",
  }));
  return answer(deadline, { breakpoints });
}

// One that is debugged already is ended first.
async function start(action: Action, deadline: Deadline): Promise<Answer> {
  const number = await turns.take(deadline, () => begin(action, deadline), "The start of another program");
  return settled(deadline, number);
}

async function begin(action: Action, deadline: Deadline): Promise<number> {
  const number = ++programs;
  await end(deadline);
  forget();
  const config = action["program"] != null ? await configuration(action, deadline) : known(String(action["name"]));
  output.take();
  exitCode = null;
  failure = "";
  const begun: { result: "starting" | "started" | "failed"; isWanted: boolean } = { result: "starting", isWanted: true };
  vscode.debug.startDebugging(vscode.workspace.workspaceFolders?.[0], config).then(
    (isStarted) => {
      begun.result = isStarted || sessions.size > 0 ? "started" : "failed";
      // It came too late for who asked.
      if (!begun.isWanted) for (const session of sessions) void vscode.debug.stopDebugging(session);
    },
    (error) => {
      begun.result = "failed";
      failure = words(error);
    },
  );
  try {
    await deadline.until(() => begun.result !== "starting" || stop !== null, deadline.leftMs);
  } catch (error) {
    begun.isWanted = false;
    throw error;
  }
  if (begun.result === "failed") {
    throw new BridgeError("ide_failed", `The debugger did not start. ${failure}`.trim());
  }
  if (begun.result === "starting" && sessions.size === 0) {
    begun.isWanted = false;
    throw new BridgeError("timed_out", `The start of the debugger took more than ${deadline.seconds} s.`);
  }
  hasRun = true;
  return number;
}

// A launch configuration's name, or raises invalid_request with those that there are.
function known(name: string): string {
  const launch = vscode.workspace.getConfiguration("launch", vscode.workspace.workspaceFolders?.[0]?.uri);
  const all = ["configurations", "compounds"].flatMap((key) => launch.get<{ name?: string }[]>(key) ?? []);
  const names = all.map((one) => String(one.name));
  if (names.includes(name)) return name;
  const there = names.join(", ").slice(0, 1500) || "none";
  throw new BridgeError("invalid_request", `There is no launch configuration ${name}; there are: ${there}.`);
}

async function configuration(action: Action, deadline: Deadline): Promise<vscode.DebugConfiguration> {
  const program = absolute(String(action["program"]));
  await documents.document(program, deadline); // it is there, and text
  const kind = extname(program);
  const common = {
    request: "launch",
    name: program.split("/").at(-1)!,
    program,
    args: (action["args"] as string[] | undefined) ?? [],
    cwd: folder() ?? program.slice(0, program.lastIndexOf("/")) ?? "/",
    stopOnEntry: action["stop_on_entry"] === true,
    console: "internalConsole",
  };
  if (kind === ".py") return { type: "debugpy", ...common };
  if (!SCRIPT.has(kind)) {
    throw new BridgeError("invalid_request", `${program} is none of .py, ${[...SCRIPT].join(", ")}.`, "Give the name of a launch configuration.");
  }
  const [own] = await nodeFolder();
  return {
    type: "pwa-node",
    ...common,
    outputCapture: "std",
    skipFiles: ["<node_internals>/**"],
    runtimeExecutable: await nodeThatTells(own === undefined ? "node" : join(own, "node")),
  };
}

// The debugger of Node does not say how its program ended. So Node is run by a script that notes it, in a
// folder for this one program.
let noted: string | null = null;

async function nodeThatTells(node: string): Promise<string> {
  noted = await mkdtemp(join(tmpdir(), "carrel-debug-"));
  const script = join(noted, "node");
  const lines = [
    "#!/bin/sh",
    `node=${quoted(node)}`,
    'case "$1" in --version | -v) exec "$node" "$@" ;; esac', // the debugger asks
    '"$node" "$@"',
    "code=$?",
    `echo $code 2>/dev/null >${quoted(join(noted, "code"))}`,
    "exit $code",
  ];
  await writeFile(script, `${lines.join("\n")}\n`, { mode: 0o700 });
  return script;
}

// What it noted, once the program has ended.
async function takeNoted(deadline: Deadline): Promise<void> {
  if (noted === null || sessions.size > 0) return;
  const folder = noted;
  noted = null;
  const file = join(folder, "code");
  if (await new Deadline(STACK_SECONDS, deadline.signal).until(() => existsSync(file), NOTE_MS)) {
    exitCode = Number(await readFile(file, "utf8"));
  }
  await rm(folder, { recursive: true, force: true });
}

async function goOn(verb: string, deadline: Deadline): Promise<Answer> {
  const { session, thread } = stopped();
  const command = GO[verb];
  if (!command) throw new BridgeError("unsupported", `The debugger cannot ${verb.slice(0, 50)}.`);
  stop = null;
  // By the editor's own command, so that the window shows that it runs.
  const context = { sessionId: session.id, threadId: `thread:${session.id}:${thread}` };
  await deadline.within(vscode.commands.executeCommand(command, undefined, context), "Going on");
  return settled(deadline);
}

function stopped(): Stop {
  if (stop) return stop;
  throw sessions.size > 0
    ? new BridgeError("not_debugging", "The program runs: it is not stopped.", "Set a breakpoint where it will come by, or stop it.")
    : new BridgeError("not_debugging", "Nothing is debugged.");
}

// Once the program stops or ends, or the time is over while it runs.
async function settled(deadline: Deadline, number = programs): Promise<Answer> {
  await deadline.until(() => stop !== null || sessions.size === 0 || programs !== number, deadline.leftMs);
  if (programs !== number) {
    throw new BridgeError("not_debugging", "Another request started a program in its place, and ended this one.");
  }
  await takeNoted(deadline);
  return answer(deadline, {}, true);
}

async function answer(deadline: Deadline, more: object = {}, hasStack = false): Promise<Answer> {
  const told: Answer = {
    type: "debug",
    state: stop ? "stopped" : sessions.size > 0 ? "running" : hasRun ? "ended" : "none",
    reason: stop?.reason ?? "",
    path: "",
    line: 0,
    stack: [],
    variables: [],
    value: "",
    value_type: "",
    breakpoints: [],
    exit_code: exitCode,
    ...more,
  };
  if (stop && told["state"] === "stopped") {
    const soon = new Deadline(STACK_SECONDS, deadline.signal); // it may have stopped at the last moment
    const stack = await frames(stop, soon).catch(() => []);
    told["path"] = stack[0]?.path ?? "";
    told["line"] = stack[0]?.line ?? 0;
    if (hasStack) told["stack"] = stack.map(({ id: _, ...frame }) => frame);
  }
  told["output"] = output.take();
  return told;
}

async function ask<T>(session: vscode.DebugSession, request: string, args: object, deadline: Deadline): Promise<T> {
  return (await deadline.within(session.customRequest(request, args), "The debugger")) as T;
}

interface Frame {
  id: number;
  frame: number;
  name: string;
  path: string;
  line: number;
}

async function frames({ session, thread }: Stop, deadline: Deadline): Promise<Frame[]> {
  type Source = { path?: string; presentationHint?: string };
  type Found = { stackFrames: { id: number; name: string; line: number; source?: Source }[] };
  const args = { threadId: thread, startFrame: 0, levels: MAX_FRAMES };
  const found = await ask<Found>(session, "stackTrace", args, deadline);
  // Those of the runtime itself are left out, unless there are no others.
  const own = found.stackFrames.filter((one) => one.source?.presentationHint !== "deemphasize");
  return (own.length > 0 ? own : found.stackFrames).slice(0, MAX_FRAMES).map((one, frame) => ({
    id: one.id,
    frame,
    name: one.name,
    path: file(one.source?.path ?? ""),
    line: one.line,
  }));
}

// Behind a server the editor tells paths as URIs.
function file(path: string): string {
  return /^[a-z][a-z0-9+.-]+:\/\//i.test(path) ? vscode.Uri.parse(path).path : path;
}

async function frame(action: Action, deadline: Deadline): Promise<{ session: vscode.DebugSession; id: number }> {
  const at = stopped();
  const all = await frames(at, deadline);
  const number = (action["frame"] as number | undefined) ?? 0;
  const found = all[number];
  if (!found) throw new BridgeError("invalid_request", `The stack has ${all.length} frames; ${number} is none of them.`);
  return { session: at.session, id: found.id };
}

async function variables(action: Action, deadline: Deadline): Promise<object[]> {
  const { session, id } = await frame(action, deadline);
  type Scopes = { scopes: { name: string; variablesReference: number; expensive: boolean }[] };
  type Variables = { variables: { name: string; value: string; type?: string; presentationHint?: { kind?: string } }[] };
  const { scopes } = await ask<Scopes>(session, "scopes", { frameId: id }, deadline);
  const rows: object[] = [];
  for (const scope of scopes.filter((one) => !one.expensive && !/^globals?$/i.test(one.name))) {
    const found = await ask<Variables>(session, "variables", { variablesReference: scope.variablesReference }, deadline);
    for (const { name, value, type = "" } of found.variables) {
      if (/^(special|function|class) variables$/.test(name)) continue; // groups of debugpy's
      rows.push({ name, value: value.slice(0, MAX_VALUE), type });
    }
  }
  return rows.slice(0, MAX_VARIABLES);
}

async function evaluate(action: Action, deadline: Deadline): Promise<Answer> {
  const { session, id } = await frame(action, deadline);
  const args = { expression: action["expression"], frameId: id, context: "repl" };
  let found: { result: string; type?: string };
  try {
    found = await ask(session, "evaluate", args, deadline);
  } catch (error) {
    if (error instanceof BridgeError) throw error;
    throw new BridgeError("invalid_request", `It cannot be evaluated: ${words(error)}`);
  }
  return answer(deadline, { value: found.result.slice(0, MAX_EVALUATED), value_type: found.type ?? "" });
}

function forget(): void {
  if (noted !== null) rmSync(noted, { recursive: true, force: true });
  noted = null;
}

// However little time is left: what runs is not left to run.
async function end(request: Deadline): Promise<void> {
  if (sessions.size === 0) return;
  const deadline = new Deadline((2 * END_MS) / 1000, request.signal);
  const roots = [...sessions].filter((session) => !session.parentSession);
  for (const session of roots) void vscode.debug.stopDebugging(session);
  if (await deadline.until(() => sessions.size === 0, END_MS)) return;
  // A debugger that does not end what it debugs is cut off.
  for (const session of sessions) {
    void session.customRequest("disconnect", { terminateDebuggee: true }).then(undefined, () => {});
  }
  if (!(await deadline.until(() => sessions.size === 0, END_MS))) {
    throw new BridgeError("ide_failed", "The debugger does not end its program.", "End the program by a command.");
  }
}
