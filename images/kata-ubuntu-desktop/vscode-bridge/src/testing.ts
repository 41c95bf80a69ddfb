// run_tests: the project's own runner, in a terminal that is shown; what came of it from the report that
// the runner writes.

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, isAbsolute, join, relative } from "node:path";
import * as vscode from "vscode";
import { BridgeError } from "./errors.ts";
import { absolute, folder } from "./places.ts";
import { runShown } from "./processes.ts";
import type { Action, Answer, Counts } from "./protocol.ts";
import * as python from "./python.ts";
import * as reports from "./reports.ts";
import { command, language, scriptRunner, scripts, type Package, type Runner } from "./runners.ts";
import type { Deadline } from "./waiting.ts";

const MAX_REPORT_BYTES = 32 << 20;
const MAX_FILES = 5000;
const MAX_COMMAND = 100_000; // characters: Linux takes no argument of 128 KiB
const NODE = 22; // the first one that runs TypeScript
const IGNORED = "**/{node_modules,.venv,venv,.git,__pycache__,dist,build}/**";
const LOOKED_FOR = "**/*.{py,js,mjs,cjs,ts,mts,cts,jsx,tsx}";

export async function runTests(action: Action, deadline: Deadline): Promise<Answer> {
  const root = folder();
  if (root === null) throw new BridgeError("invalid_request", "No folder is open.", "Open the project's folder.");
  const asked = (action["path"] as string | null | undefined) ?? null;
  const path = asked === null ? null : absolute(asked);
  if (path !== null && !existsSync(path)) throw new BridgeError("file_not_found", `There is no ${path}.`);
  const found = await names(root, path, deadline);
  const kind = language(path, found);
  const env: Record<string, string | undefined> = {};
  const runner = kind === "python" ? await pythonRunner(env) : scriptRunner(await manifest(root));
  if (kind === "script") env["PATH"] = [...(await nodeFolder()), process.env["PATH"]].join(delimiter);
  const temporary = await mkdtemp(join(tmpdir(), "carrel-tests-"));
  try {
    const report = join(temporary, "report");
    const pattern = (action["pattern"] as string | null | undefined) ?? null;
    const files = path !== null && (await stat(path)).isDirectory() ? scripts(found) : undefined;
    const line = command(runner, { path: asked, files, pattern, report, python: python.interpreter() });
    if (line.length > MAX_COMMAND) throw new BridgeError("invalid_request", "There are too many files with tests there.", "Give a folder with fewer.");
    const finished = await runShown("agent: tests", { command: line, cwd: root, env }, deadline);
    const counts = runner === "unittest" ? reports.unittest(finished.output) : await read(runner, report);
    const failures = counts.failures.map((one) => ({ ...one, path: one.path && !isAbsolute(one.path) ? join(root, one.path) : one.path }));
    return { type: "run_tests", ...counts, failures, ran: line, ...finished };
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

// The files that may hold tests, relative to the root.
async function names(root: string, path: string | null, deadline: Deadline): Promise<string[]> {
  const base = path === null ? root : (await stat(path)).isDirectory() ? path : null;
  if (base === null) return [relative(root, path!)];
  const pattern = new vscode.RelativePattern(vscode.Uri.file(base), LOOKED_FOR);
  const found = await deadline.within(vscode.workspace.findFiles(pattern, IGNORED, MAX_FILES), "Looking for tests");
  return found.map((uri) => relative(root, uri.fsPath)).sort();
}

async function read(runner: Runner, report: string): Promise<Counts> {
  const none = { passed: null, failed: null, skipped: null, failures: [] };
  const found = await stat(report).catch(() => null);
  if (!found || found.size > MAX_REPORT_BYTES) return none;
  const text = await readFile(report, "utf8");
  return runner === "jest" ? reports.jest(text) : reports.junit(text);
}

async function manifest(root: string): Promise<Package | null> {
  const text = await readFile(join(root, "package.json"), "utf8").catch(() => null);
  if (text === null) return null;
  try {
    return JSON.parse(text) as Package;
  } catch {
    throw new BridgeError("invalid_request", "The folder's package.json is not JSON.", "Mend it.");
  }
}

// Its own pytest, or the one that comes with us, or else unittest.
async function pythonRunner(env: Record<string, string | undefined>): Promise<Runner> {
  const has = (path?: string) => succeeds(python.interpreter(), ["-c", "import pytest"], path);
  if (await has()) return "pytest";
  const bundled = python.bundled();
  const path = bundled && [process.env["PYTHONPATH"], join(bundled, "testing")].filter(Boolean).join(delimiter);
  if (!path || !(await has(path))) return "unittest";
  env["PYTHONPATH"] = path;
  return "pytest";
}

// The folder of the editor's own Node, where the system has none that runs TypeScript.
export async function nodeFolder(): Promise<string[]> {
  const check = `process.exit(parseInt(process.versions.node) < ${NODE})`;
  if ((await succeeds("node", ["-e", check])) || process.versions["electron"]) return [];
  return [dirname(process.execPath)];
}

function succeeds(program: string, args: string[], path?: string): Promise<boolean> {
  const env = { ...process.env, ...(path === undefined ? {} : { PYTHONPATH: path }) };
  return new Promise((resolve) => {
    execFile(program, args, { env, timeout: 10_000, cwd: folder() ?? "/" }, (error) => resolve(!error));
  });
}
