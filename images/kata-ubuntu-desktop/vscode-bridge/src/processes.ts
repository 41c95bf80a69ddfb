// Programs in a terminal of the editor whose output we have too: VS Code tells no extension what a task
// prints. The terminal is a pseudoterminal of ours, which runs bash with a pipe for its output, shows
// what comes and keeps the end of it. A person who watches may end it by Ctrl+C or by closing it.

import { spawn, type ChildProcess } from "node:child_process";
import { StringDecoder } from "node:string_decoder";
import { stripVTControlCharacters } from "node:util";
import * as vscode from "vscode";
import { words } from "./errors.ts";
import { MAX_OUTPUT_CHARS } from "./protocol.ts";
import type { Deadline } from "./waiting.ts";

const DRAIN_MS = 200; // what it left running may hold the pipes open
const KILL_MS = 1500; // whoever asked waits for 2.5 s more than the seconds

// The end of a stream of text.
export class Tail {
  #parts: string[] = [];
  #size = 0;
  isCut = false;

  add(text: string): void {
    this.#parts.push(text);
    this.#size += text.length;
    if (this.#size > 2 * MAX_OUTPUT_CHARS) this.#shorten();
  }

  #shorten(): void {
    const all = this.#parts.join("");
    if (all.length > MAX_OUTPUT_CHARS) this.isCut = true;
    this.#parts = [all.slice(-MAX_OUTPUT_CHARS)];
    this.#size = this.#parts[0]!.length;
  }

  get text(): string {
    this.#shorten();
    return stripVTControlCharacters(this.#parts.join("")).replaceAll("\r\n", "\n");
  }

  // What there is since this was called last.
  take(): string {
    const { text } = this;
    this.#parts = [];
    this.#size = 0;
    this.isCut = false;
    return text;
  }
}

export interface Program {
  command: string;
  cwd: string;
  env?: Record<string, string | undefined>;
}

export interface Finished {
  exit_code: number | null; // null: it had to be ended
  output: string;
  is_cut: boolean;
  elapsed_seconds: number;
}

export class Console implements vscode.Pseudoterminal {
  readonly #write = new vscode.EventEmitter<string>();
  readonly #close = new vscode.EventEmitter<number | void>();
  readonly onDidWrite = this.#write.event;
  readonly onDidClose = this.#close.event;
  readonly opened: Promise<void>;
  #open = () => {};
  #child: ChildProcess | null = null;
  isTaken = false; // for a program that is to run, or runs

  constructor() {
    this.opened = new Promise((resolve) => (this.#open = resolve));
  }

  open(): void {
    this.#open();
  }

  close(): void {
    this.end();
  }

  handleInput(data: string): void {
    if (data.includes("\x03")) this.end();
    else this.#child?.stdin?.write(data.replaceAll("\r", "\n"));
  }

  // Tells the editor that the program of the terminal has ended.
  leave(exitCode: number | null): void {
    this.#close.fire(exitCode ?? 1);
  }

  end(): void {
    const child = this.#child;
    if (!child?.pid) return;
    kill(child.pid, "SIGTERM");
    // Also where bash itself has ended: what it started may not have.
    setTimeout(() => kill(child.pid!, "SIGKILL"), KILL_MS).unref();
  }

  // Runs one program to its end, or to the deadline. The terminal must be open.
  async run(program: Program, deadline: Deadline): Promise<Finished> {
    const began = performance.now();
    const tail = new Tail();
    const show = (text: string) => this.#write.fire(text.replace(/\r?\n/g, "\r\n"));
    show(`\x1b[2J\x1b[3J\x1b[H\x1b[1m$ ${program.command}\x1b[0m\n`);
    const env = { ...process.env, ...program.env, TERM: "dumb" };
    const child = spawn("bash", ["-c", program.command], { cwd: program.cwd, env, detached: true });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      const decoder = new StringDecoder("utf8");
      stream.on("data", (part: Buffer) => {
        const text = decoder.write(part);
        tail.add(text);
        show(text);
      });
    }
    child.stdin.on("error", () => {}); // it reads no more
    const ended = new Promise<number | null>((resolve) => {
      child.on("error", (error) => {
        tail.add(`${words(error)}\n`);
        resolve(127);
      });
      child.on("close", (code, signal) => resolve(status(code, signal)));
      child.on("exit", (code, signal) => setTimeout(() => resolve(status(code, signal)), DRAIN_MS));
    });
    const isLate = await this.#late(ended, deadline);
    if (isLate) this.end();
    const code = await ended;
    this.#child = null;
    child.stdout.destroy();
    child.stderr.destroy();
    show(isLate ? "\n\x1b[31mended: its time was over\x1b[0m\n" : `\n\x1b[2mexit code ${code}\x1b[0m\n`);
    const elapsed_seconds = Math.round(performance.now() - began) / 1000;
    return { exit_code: isLate ? null : code, output: tail.text, is_cut: tail.isCut, elapsed_seconds };
  }

  async #late(ended: Promise<unknown>, deadline: Deadline): Promise<boolean> {
    return deadline.within(ended.then(() => false), "It").catch(() => true);
  }
}

// As a shell says it: 128 and the signal's number.
function status(code: number | null, signal: NodeJS.Signals | null): number {
  const numbers: Partial<Record<NodeJS.Signals, number>> = { SIGHUP: 1, SIGINT: 2, SIGABRT: 6, SIGKILL: 9, SIGSEGV: 11, SIGTERM: 15 };
  return code ?? 128 + ((signal && numbers[signal]) || 0);
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // It has ended.
  }
}

const consoles = new Map<Console, { terminal: vscode.Terminal; name: string }>();

export function follow(): vscode.Disposable {
  return vscode.Disposable.from(
    vscode.window.onDidCloseTerminal((closed) => {
      for (const [console, { terminal }] of consoles) if (terminal === closed) consoles.delete(console);
    }),
    { dispose: () => [...consoles.keys()].forEach((console) => console.end()) },
  );
}

// Runs a program in a terminal of that name, which is shown; one that has nothing to do is used again.
export async function runShown(name: string, program: Program, deadline: Deadline): Promise<Finished> {
  let console = [...consoles].find(([one, known]) => known.name === name && !one.isTaken)?.[0];
  if (!console) {
    console = new Console();
    consoles.set(console, { terminal: vscode.window.createTerminal({ name, pty: console }), name });
  }
  console.isTaken = true;
  try {
    consoles.get(console)!.terminal.show(true);
    await deadline.within(console.opened, "Opening a terminal");
    return await console.run(program, deadline);
  } finally {
    console.isTaken = false;
  }
}
