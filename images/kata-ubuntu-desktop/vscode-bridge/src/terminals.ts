// terminal: a command in a shell of the editor, which stays. By the shell's integration, which tells when
// a command ends and what it printed; where a shell has none, by two files that the command writes.

import { rmSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as vscode from "vscode";
import { BridgeError } from "./errors.ts";
import { folder } from "./places.ts";
import { Tail } from "./processes.ts";
import { MAX_OUTPUT_CHARS, type Action, type Answer } from "./protocol.ts";
import { sleep, type Deadline } from "./waiting.ts";

const INTEGRATION_MS = 5000;
const READ_MS = 500; // what is still to be read of an ended command
const MAX_TERMINALS = 16;
// A shell that ends with an error in its first half second is taken by the editor for one that cannot
// start: it starts another one in its place, and tells nobody how the first one ended.
const LAUNCH_MS = 700;
const LOOK_MS = 100;
// What a shell that is typed to does not run as one command, or not as it stands (more than one line, the
// history's !), or does not tell the editor of (comments, subshells). It is given to the shell in a file.
const NOT_TYPED = /[\n\r!#]|(^|[^$])\(|^\s*$/;
const TOLD_MS = 2000; // in which the editor tells that a shell has ended

interface Known {
  isBusy: boolean;
  isPlain: boolean;
  launched: Promise<number | undefined>; // its process id, once the shell may end by itself
}

const ours = new Map<vscode.Terminal, Known>();
const dirs = new Set<string>(); // with scripts and their output

export function follow(): vscode.Disposable {
  return vscode.Disposable.from(
    vscode.window.onDidCloseTerminal((terminal) => void ours.delete(terminal)),
    { dispose: () => dirs.forEach((dir) => rmSync(dir, { recursive: true, force: true })) },
  );
}

export async function terminal(action: Action, deadline: Deadline): Promise<Answer> {
  const began = performance.now();
  const shell = pick((action["name"] as string | undefined) ?? "agent");
  const known = ours.get(shell)!;
  known.isBusy = true;
  let run: Run;
  try {
    run = await started(shell, known, String(action["command"]), deadline);
  } catch (error) {
    known.isBusy = false;
    throw error;
  }
  run.ended.finally(() => (known.isBusy = false)).catch(() => {});
  let exitCode: number | null = null;
  try {
    exitCode = await deadline.within(run.ended, "The command");
  } catch (error) {
    const isLate = error instanceof BridgeError && error.code === "timed_out";
    if (!isLate || deadline.signal.aborted) throw error;
  }
  const { text, isCut } = await run.output();
  const elapsed_seconds = Math.round(performance.now() - began) / 1000;
  return { type: "terminal", exit_code: exitCode, output: text, is_cut: isCut, elapsed_seconds };
}

async function started(shell: vscode.Terminal, known: Known, command: string, deadline: Deadline): Promise<Run> {
  shell.show(true);
  const isThere = () => shell.shellIntegration !== undefined;
  const pid = await deadline.within(known.launched, "The start of a shell");
  if (!known.isPlain && !isThere()) known.isPlain = !(await deadline.until(isThere, INTEGRATION_MS));
  const integration = shell.shellIntegration;
  if (!integration) return plain(shell, command);
  if (!NOT_TYPED.test(command)) return integrated(shell, integration, pid, command);
  const dir = await mkdtemp(join(tmpdir(), "carrel-terminal-"));
  const script = join(dir, "script");
  await writeFile(script, command);
  const run = integrated(shell, integration, pid, `. ${script}`);
  tidied(run.ended, dir, 0);
  return run;
}

// One of that name that waits for a command, or another.
function pick(name: string): vscode.Terminal {
  const free = [...ours].find(([one, known]) => one.name === name && !known.isBusy && one.exitStatus === undefined);
  if (free) return free[0];
  if (ours.size >= MAX_TERMINALS) {
    const idle = [...ours].find(([, known]) => !known.isBusy);
    if (!idle) throw new BridgeError("invalid_request", `${MAX_TERMINALS} terminals have commands that run.`, "End some of them first.");
    idle[0].dispose();
    ours.delete(idle[0]);
  }
  const made = vscode.window.createTerminal({ name, cwd: folder() ?? process.env["HOME"] ?? "/" });
  const launched = Promise.resolve(made.processId).then((pid) => sleep(LAUNCH_MS).then(() => pid));
  launched.catch(() => {}); // whoever runs something in it hears of it
  ours.set(made, { isBusy: false, isPlain: false, launched });
  return made;
}

interface Run {
  ended: Promise<number | null>;
  output(): Promise<{ text: string; isCut: boolean }>;
}

function integrated(
  shell: vscode.Terminal,
  integration: vscode.TerminalShellIntegration,
  pid: number | undefined,
  command: string,
): Run {
  const tail = new Tail();
  const execution = integration.executeCommand(command);
  const reading = (async () => {
    for await (const part of execution.read()) tail.add(part);
  })();
  reading.catch(() => {});
  const ended = new Promise<number | null>((resolve, reject) => {
    const watching = vscode.Disposable.from(
      vscode.window.onDidEndTerminalShellExecution((event) => event.execution === execution && over(() => resolve(event.exitCode ?? null))),
      vscode.window.onDidCloseTerminal((other) => other === shell && over(() => closed(shell).then(resolve, reject))),
    );
    let goneSince: number | null = null;
    const looking = setInterval(() => {
      if (pid === undefined || isAlive(pid)) return;
      goneSince ??= performance.now();
      if (performance.now() - goneSince < TOLD_MS) return;
      // Whatever is in the terminal now, it is not the shell that was asked.
      shell.dispose();
      ours.delete(shell);
      over(() => reject(new BridgeError("ide_failed", "The terminal's shell ended with the command; its exit code is not known.")));
    }, LOOK_MS);
    const over = (settle: () => void) => {
      watching.dispose();
      clearInterval(looking);
      settle();
    };
  });
  let isOver = false;
  ended.then(() => (isOver = true), () => {});
  const output = async () => {
    if (isOver) await Promise.race([reading.catch(() => {}), new Promise((resolve) => setTimeout(resolve, READ_MS))]);
    return { text: tail.text, isCut: tail.isCut };
  };
  return { ended, output };
}

// How the shell of a closed terminal ended; one that a person closed has no exit code.
async function closed({ exitStatus }: vscode.Terminal): Promise<number> {
  if (exitStatus?.code !== undefined) return exitStatus.code;
  throw new BridgeError("ide_failed", "The terminal was closed before the command had ended.");
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
  return true;
}

async function plain(shell: vscode.Terminal, command: string): Promise<Run> {
  const dir = await mkdtemp(join(tmpdir(), "carrel-terminal-"));
  const [script, out, status] = ["script", "out", "status"].map((name) => join(dir, name)) as [string, string, string];
  await writeFile(script, command);
  shell.sendText(` . ${script} 2>&1 | tee ${out}; echo \${PIPESTATUS[0]} >${status}`);
  const ended = (async () => {
    while (shell.exitStatus === undefined) {
      const found = await readFile(status, "utf8").catch(() => "");
      if (found.endsWith("\n")) return Number(found);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return closed(shell);
  })();
  const output = async () => {
    const tail = new Tail();
    const text = await readFile(out, "utf8").catch(() => "");
    tail.add(text.slice(-2 * MAX_OUTPUT_CHARS));
    return { text: tail.text, isCut: tail.isCut };
  };
  tidied(ended, dir, 10_000); // it is read once more when the command has run for longer than the request
  return { ended, output };
}

// Removed `ms` after the end, or with the editor.
function tidied(ended: Promise<unknown>, dir: string, ms: number): void {
  dirs.add(dir);
  const remove = () => void rm(dir, { recursive: true, force: true }).then(() => dirs.delete(dir), () => {});
  const tidy = () => (ms > 0 ? void setTimeout(remove, ms).unref() : remove());
  ended.then(tidy, tidy);
}
