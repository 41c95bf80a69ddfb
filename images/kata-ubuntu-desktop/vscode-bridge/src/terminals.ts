// terminal: a command in a shell of the editor, which stays. By the shell's integration, which tells when
// a command ends and what it printed; where a shell has none, by two files that the command writes.

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as vscode from "vscode";
import { BridgeError } from "./errors.ts";
import { folder } from "./places.ts";
import { Tail } from "./processes.ts";
import { MAX_OUTPUT_CHARS, type Action, type Answer } from "./protocol.ts";
import type { Deadline } from "./waiting.ts";

const INTEGRATION_MS = 5000;
const READ_MS = 500; // what is still to be read of an ended command
const MAX_TERMINALS = 16;

const ours = new Map<vscode.Terminal, { isBusy: boolean; isPlain: boolean }>();

export function follow(): vscode.Disposable {
  return vscode.window.onDidCloseTerminal((terminal) => void ours.delete(terminal));
}

export async function terminal(action: Action, deadline: Deadline): Promise<Answer> {
  const began = performance.now();
  const command = String(action["command"]);
  const shell = pick((action["name"] as string | undefined) ?? "agent");
  const known = ours.get(shell)!;
  known.isBusy = true;
  shell.show(true);
  const isThere = () => shell.shellIntegration !== undefined;
  if (!known.isPlain && !isThere()) known.isPlain = !(await deadline.until(isThere, INTEGRATION_MS));
  const run = shell.shellIntegration ? integrated(shell, shell.shellIntegration, command) : await plain(shell, command);
  run.ended.finally(() => (known.isBusy = false)).catch(() => {});
  let exitCode: number | null = null;
  try {
    exitCode = await deadline.within(run.ended, "The command");
  } catch (error) {
    if (deadline.signal.aborted) throw error;
  }
  const { text, isCut } = await run.output();
  const elapsed_seconds = Math.round(performance.now() - began) / 1000;
  return { type: "terminal", exit_code: exitCode, output: text, is_cut: isCut, elapsed_seconds };
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
  ours.set(made, { isBusy: false, isPlain: false });
  return made;
}

interface Run {
  ended: Promise<number | null>;
  output(): Promise<{ text: string; isCut: boolean }>;
}

function integrated(shell: vscode.Terminal, integration: vscode.TerminalShellIntegration, command: string): Run {
  const tail = new Tail();
  const execution = integration.executeCommand(command);
  const reading = (async () => {
    for await (const part of execution.read()) tail.add(part);
  })();
  reading.catch(() => {});
  const ended = new Promise<number | null>((resolve) => {
    const watching = vscode.Disposable.from(
      vscode.window.onDidEndTerminalShellExecution((event) => event.execution === execution && over(event.exitCode ?? null)),
      vscode.window.onDidCloseTerminal((closed) => closed === shell && over(closed.exitStatus?.code ?? null)),
    );
    const over = (code: number | null) => {
      watching.dispose();
      resolve(code);
    };
  });
  let isOver = false;
  void ended.then(() => (isOver = true));
  const output = async () => {
    if (isOver) await Promise.race([reading.catch(() => {}), new Promise((resolve) => setTimeout(resolve, READ_MS))]);
    return { text: tail.text, isCut: tail.isCut };
  };
  return { ended, output };
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
    return shell.exitStatus.code ?? null;
  })();
  const output = async () => {
    const tail = new Tail();
    const text = await readFile(out, "utf8").catch(() => "");
    tail.add(text.slice(-2 * MAX_OUTPUT_CHARS));
    return { text: tail.text, isCut: tail.isCut };
  };
  // They are read once more when the command has run for longer than the request.
  void ended.finally(() => setTimeout(() => void rm(dir, { recursive: true, force: true }), 10_000).unref());
  return { ended, output };
}
