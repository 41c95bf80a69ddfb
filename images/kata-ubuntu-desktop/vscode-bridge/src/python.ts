// Python without a marketplace: basedpyright as its language server, ruff as its formatter and debugpy
// as its debugger, from the folder that CARREL_IDE_PYTHON names. Extensions that bring their own have
// the precedence.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import * as vscode from "vscode";
import { LanguageClient, LSPErrorCodes, ResponseError, RevealOutputChannelOn } from "vscode-languageclient/node";
import { BridgeError, words } from "./errors.ts";
import { folder } from "./places.ts";
import type { Deadline } from "./waiting.ts";

export const SOURCE = "basedpyright";
const SERVERS = ["ms-python.vscode-pylance", "detachhead.basedpyright", "ms-pyright.pyright"];
const DEBUGGERS = ["ms-python.debugpy", "ms-python.python"];
const LET_GO = new Set<number>([LSPErrorCodes.ServerCancelled, LSPErrorCodes.ContentModified, LSPErrorCodes.RequestCancelled]);
const MAX_TRIES = 5;
const MAX_FORMATTED = 16 << 20;

let client: LanguageClient | null = null;
let started: Promise<void> = Promise.resolve();

export function bundled(): string | null {
  const path = process.env["CARREL_IDE_PYTHON"];
  return path && existsSync(path) ? path : null;
}

// The project's own, from its virtual environment if it has one.
export function interpreter(): string {
  const base = folder();
  for (const name of [".venv", "venv"]) {
    const python = base && join(base, name, "bin", "python");
    if (python && existsSync(python)) return python;
  }
  return "python3";
}

export function activate(context: vscode.ExtensionContext): void {
  const path = bundled();
  if (!path) return;
  const has = (ids: string[]) => ids.some((id) => vscode.extensions.getExtension(id));
  if (!has(DEBUGGERS)) {
    for (const type of ["debugpy", "python"]) {
      context.subscriptions.push(
        vscode.debug.registerDebugAdapterDescriptorFactory(type, { createDebugAdapterDescriptor: () => adapter(path) }),
        vscode.debug.registerDebugConfigurationProvider(type, { resolveDebugConfiguration: configured }),
      );
    }
  }
  const ruff = join(path, "bin", "ruff");
  if (existsSync(ruff)) {
    context.subscriptions.push(
      vscode.languages.registerDocumentFormattingEditProvider(
        { language: "python" },
        { provideDocumentFormattingEdits: (document) => formatted(ruff, document) },
      ),
    );
  }
  const server = join(path, "basedpyright", "langserver.index.js");
  if (!has(SERVERS) && existsSync(server)) {
    client = languageClient(server);
    started = client.start();
    started.catch(() => {}); // whoever needs it hears of it
    context.subscriptions.push({ dispose: () => void client?.stop().catch(() => {}) });
  }
}

function languageClient(server: string): LanguageClient {
  return new LanguageClient(
    SOURCE,
    "Python (basedpyright)",
    // Desktop VS Code's own program is Electron, which is Node when told so.
    { command: process.execPath, args: [server, "--stdio"], options: { env: { ...process.env, ELECTRON_RUN_AS_NODE: "1" } } },
    {
      documentSelector: [{ language: "python", scheme: "file" }, { language: "python", scheme: "untitled" }],
      revealOutputChannelOn: RevealOutputChannelOn.Never,
      middleware: {
        workspace: {
          configuration: async (params, token, next) => {
            const found = await next(params, token);
            if (!Array.isArray(found)) return found;
            return found.map((value, i) => ({ ...DEFAULTS[params.items[i]?.section ?? ""]?.(), ...value }));
          },
        },
      },
    },
  );
}

// What the language server asks for; a project's pyproject.toml has the precedence.
const ANALYSIS = { typeCheckingMode: "standard", diagnosticMode: "openFilesOnly", autoSearchPaths: true };
const DEFAULTS: Record<string, () => object> = {
  python: () => ({ pythonPath: interpreter() }),
  basedpyright: () => ({ analysis: ANALYSIS }),
  "basedpyright.analysis": () => ANALYSIS,
  "python.analysis": () => ANALYSIS,
};

// None if another extension's language server is the one that knows.
export async function diagnostics(document: vscode.TextDocument, deadline: Deadline): Promise<vscode.Diagnostic[] | null> {
  if (!client) return null;
  await deadline.within(started, "The start of Python's language server");
  const { code2ProtocolConverter, protocol2CodeConverter } = client;
  const params = { textDocument: { uri: code2ProtocolConverter.asUri(document.uri) } };
  type Report = { items?: Parameters<typeof protocol2CodeConverter.asDiagnostics>[0] };
  for (let tries = 1; ; tries++) {
    try {
      const asked = client.sendRequest<Report>("textDocument/diagnostic", params);
      const { items } = await deadline.within(asked, "Python's language server");
      return items ? protocol2CodeConverter.asDiagnostics(items) : null;
    } catch (error) {
      // It lets go of what it was asked when another file changes meanwhile.
      if (!(error instanceof ResponseError) || !LET_GO.has(error.code) || tries === MAX_TRIES) throw error;
    }
  }
}

// The adapter runs by the system's Python, the program by the project's. Its folder is given as a
// program, so that nothing of ours comes to be on the module path of what is debugged.
function adapter(path: string): vscode.DebugAdapterDescriptor {
  return new vscode.DebugAdapterExecutable("python3", [join(path, "debugpy", "adapter")]);
}

function configured(_: unknown, config: vscode.DebugConfiguration): vscode.DebugConfiguration {
  if (!config.request) {
    // F5 in a file, without a launch.json.
    const program = vscode.window.activeTextEditor?.document.uri.fsPath;
    config = { type: "debugpy", request: "launch", name: "Python", program };
  }
  return { python: interpreter(), console: "internalConsole", ...config };
}

// VS Code does not pass on why a formatter failed: it is kept here for who asked.
let complained: BridgeError | null = null;

export function complaint(): BridgeError | null {
  const last = complained;
  complained = null;
  return last;
}

async function formatted(ruff: string, document: vscode.TextDocument): Promise<vscode.TextEdit[]> {
  const text = document.getText();
  const fresh = await new Promise<string>((resolve, reject) => {
    const child = spawn(ruff, ["format", "--no-cache", "--stdin-filename", document.uri.fsPath, "-"], {
      cwd: folder() ?? "/",
      timeout: 20_000,
    });
    const parts: Buffer[] = [];
    let size = 0;
    let said = "";
    child.stdout.on("data", (part: Buffer) => {
      size += part.length;
      if (size > MAX_FORMATTED) child.kill();
      else parts.push(part);
    });
    child.stderr.on("data", (part: Buffer) => (said = (said + part.toString()).slice(-2000)));
    child.stdin.on("error", () => {}); // it ended before it had read all: its exit code says so
    child.on("error", (error) => reject(new BridgeError("ide_failed", `ruff does not run: ${words(error)}`)));
    child.on("close", (code) => {
      if (code === 0) resolve(Buffer.concat(parts).toString("utf8"));
      else reject(new BridgeError("edit_conflict", `ruff cannot format it: ${said.trim()}`, "Mend what it names."));
    });
    child.stdin.end(text);
  }).catch((error) => {
    complained = error;
    throw error;
  });
  if (fresh === text) return [];
  const all = new vscode.Range(new vscode.Position(0, 0), document.lineAt(document.lineCount - 1).range.end);
  return [vscode.TextEdit.replace(all, fresh)];
}
