// run_task: a command, or a task that the folder's tasks.json or an extension has.

import * as vscode from "vscode";
import { BridgeError } from "./errors.ts";
import { Console, runShown, type Finished } from "./processes.ts";
import { folder } from "./places.ts";
import type { Action, Answer } from "./protocol.ts";
import { escaped, quoted } from "./quoting.ts";
import type { Deadline } from "./waiting.ts";

export async function runTask(action: Action, deadline: Deadline): Promise<Answer> {
  const command = action["command"] as string | null | undefined;
  const finished =
    command != null
      ? await runShown("agent: task", { command, cwd: folder() ?? process.env["HOME"] ?? "/" }, deadline)
      : await named(String(action["name"]), deadline);
  return { type: "run_task", ...finished };
}

async function named(name: string, deadline: Deadline): Promise<Finished> {
  const all = await deadline.within(vscode.tasks.fetchTasks(), "Looking for tasks");
  const task =
    all.find((one) => one.name === name) ?? all.find((one) => `${one.source}: ${one.name}` === name);
  if (!task) {
    const names = all.map((one) => one.name).join(", ").slice(0, 1500);
    throw new BridgeError("invalid_request", `There is no task ${name}; there are: ${names || "none"}.`);
  }
  const definition = hasOthers(name) ? null : ours(task);
  return definition ? captured(task, definition, deadline) : native(task, deadline);
}

// Whether others are to run before it: VS Code tells no extension, and a copy of the task has none.
function hasOthers(name: string): boolean {
  const known = vscode.workspace.getConfiguration("tasks", vscode.workspace.workspaceFolders?.[0]?.uri).get<unknown>("tasks");
  if (!Array.isArray(known)) return false;
  return known.some((one: { label?: unknown; dependsOn?: unknown } | null) => one?.label === name && one.dependsOn != null);
}

interface Definition extends vscode.TaskDefinition {
  command: string;
  cwd: string;
  env: Record<string, string>;
}

// The task as one of ours, with the variables of its own still in it; none if it is of another kind.
function ours(task: vscode.Task): Definition | null {
  const { execution } = task;
  const shell = execution instanceof vscode.ShellExecution;
  if (!shell && !(execution instanceof vscode.ProcessExecution)) return null;
  const command = shell
    ? (execution.commandLine ?? [execution.command!, ...(execution.args ?? [])].map(argument).join(" "))
    : [execution.process, ...execution.args].map(quoted).join(" ");
  const { cwd = "${workspaceFolder}", env = {} } = execution.options ?? {};
  return { type: "carrel", command, cwd, env };
}

function argument(part: string | vscode.ShellQuotedString): string {
  if (typeof part === "string") return /\s/.test(part) ? quoted(part) : part;
  if (part.quoting === vscode.ShellQuoting.Strong) return quoted(part.value);
  if (part.quoting === vscode.ShellQuoting.Weak) return `"${part.value.replaceAll('"', '\\"')}"`;
  return escaped(part.value);
}

// VS Code puts in what stands for the variables when it starts it.
async function captured(task: vscode.Task, definition: Definition, deadline: Deadline): Promise<Finished> {
  const finished = new Promise<Finished>((resolve, reject) => {
    const execution = new vscode.CustomExecution(async (resolved) => {
      const console = new Console();
      const { command, cwd, env } = resolved as Definition;
      console.opened
        .then(() => console.run({ command, cwd: cwd || folder() || "/", env }, deadline))
        .then((result) => {
          console.leave(result.exit_code);
          resolve(result);
        }, reject);
      return console;
    });
    const scope = task.scope ?? vscode.TaskScope.Workspace;
    const copy = new vscode.Task(definition, scope, task.name, "agent", execution, task.problemMatchers);
    copy.presentationOptions = { reveal: vscode.TaskRevealKind.Always, showReuseMessage: false, clear: true };
    vscode.tasks.executeTask(copy).then(undefined, reject);
  });
  return Promise.race([finished, opened(deadline)]);
}

// What was to be run must have begun, or the run itself keeps the time.
async function opened(deadline: Deadline): Promise<never> {
  await deadline.until(() => false, deadline.leftMs + 5000);
  await new Promise((resolve) => setTimeout(resolve, 5000));
  throw new BridgeError("timed_out", "The editor did not start the task.");
}

// Tasks that only the editor can run, such as those that need other tasks first: their output is in the window alone.
async function native(task: vscode.Task, deadline: Deadline): Promise<Finished> {
  const began = performance.now();
  let code: number | null = null;
  const started: { execution?: vscode.TaskExecution } = {};
  let end = () => {};
  const ended = new Promise<void>((resolve) => (end = resolve));
  const isIt = (other: vscode.TaskExecution) => other === started.execution || other.task.name === task.name;
  const watching = vscode.Disposable.from(
    vscode.tasks.onDidEndTaskProcess((event) => isIt(event.execution) && (code = event.exitCode ?? null)),
    vscode.tasks.onDidEndTask((event) => isIt(event.execution) && end()),
  );
  try {
    started.execution = await deadline.within(vscode.tasks.executeTask(task), "The start of the task");
    const isLate = await deadline.within(ended.then(() => false), "The task").catch(() => true);
    if (isLate) started.execution.terminate();
    else code ??= 0; // one without a process of its own
  } finally {
    watching.dispose();
  }
  const elapsed_seconds = Math.round(performance.now() - began) / 1000;
  return { exit_code: code, output: "", is_cut: false, elapsed_seconds };
}
