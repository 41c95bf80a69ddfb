// What a language's tools say of a document as it stands now. The editor itself learns of it later and
// is not told when that is all: so the language servers that are known are asked, which answer when they
// have looked at this very text. That also makes sure that they have loaded the project.

import { readFile } from "node:fs/promises";
import * as vscode from "vscode";
import { MAX_FILE_BYTES } from "./protocol.ts";
import * as python from "./python.ts";
import type { Deadline } from "./waiting.ts";

const SCRIPT = new Set(["typescript", "typescriptreact", "javascript", "javascriptreact"]);
const SCRIPT_EXTENSION = "vscode.typescript-language-features";
const IGNORED = "**/{node_modules,.venv,venv,.git,dist,build}/**";
const MAX_LOOKED_AT = 2000;
const MAX_USERS = 200;
const QUIET_MS = 700; // the language servers of JSON and CSS wait for half a second of no typing
const REQUESTS = ["syntacticDiagnosticsSync", "semanticDiagnosticsSync"];
const HINTS = "suggestionDiagnosticsSync";

export interface Analysis {
  diagnostics: vscode.Diagnostic[];
  isSettled: boolean;
}

// When each document last changed or was told something of, and when anything was.
const touched = new Map<string, number>();

export function follow(): vscode.Disposable {
  const touch = (uri: vscode.Uri) => touched.set(uri.toString(), performance.now());
  return vscode.Disposable.from(
    vscode.languages.onDidChangeDiagnostics(({ uris }) => uris.forEach(touch)),
    vscode.workspace.onDidChangeTextDocument(({ document }) => touch(document.uri)),
    vscode.workspace.onDidOpenTextDocument(({ uri }) => touch(uri)),
    vscode.workspace.onDidCloseTextDocument(({ uri }) => void touched.delete(uri.toString())),
  );
}

export function isAnalysed(document: vscode.TextDocument): boolean {
  return document.uri.scheme === "file" && (SCRIPT.has(document.languageId) || document.languageId === "python");
}

// With hints if they are wanted: they take time of their own.
export async function analyse(document: vscode.TextDocument, deadline: Deadline, hasHints = false): Promise<Analysis> {
  const { version } = document;
  const own = SCRIPT.has(document.languageId)
    ? await script(document, deadline, hasHints)
    : document.languageId === "python"
      ? await python.diagnostics(document, deadline)
      : null;
  const seen = vscode.languages.getDiagnostics(document.uri);
  if (own === null) {
    const isSettled = await quiet(document, deadline);
    return { diagnostics: vscode.languages.getDiagnostics(document.uri), isSettled };
  }
  const source = SCRIPT.has(document.languageId) ? ["ts", "js"] : [python.SOURCE];
  const others = seen.filter((one) => !source.includes(one.source ?? ""));
  return { diagnostics: [...own, ...others], isSettled: document.version === version };
}

async function quiet(document: vscode.TextDocument, deadline: Deadline): Promise<boolean> {
  const key = document.uri.toString();
  if (!hasTab(document)) {
    // Their servers look at what has a tab only: it gets one, behind the one that is shown.
    touched.set(key, performance.now());
    const options = { background: true, preserveFocus: true, preview: false };
    await deadline.within(vscode.commands.executeCommand("vscode.open", document.uri, options), "Opening it");
  }
  const isQuiet = () => performance.now() - (touched.get(key) ?? 0) > QUIET_MS;
  return deadline.until(isQuiet, 10_000);
}

function hasTab(document: vscode.TextDocument): boolean {
  return vscode.window.tabGroups.all
    .flatMap((group) => group.tabs)
    .some(({ input }) => input instanceof vscode.TabInputText && input.uri.toString() === document.uri.toString());
}

// Where no tsconfig.json or jsconfig.json says what belongs to a project, TypeScript knows of open files
// alone. So those that have the word in them are opened, in no tab.
export async function openUsers(document: vscode.TextDocument, at: vscode.Position, deadline: Deadline): Promise<void> {
  const range = document.getWordRangeAtPosition(at);
  if (!SCRIPT.has(document.languageId) || !range) return;
  const find = (pattern: string, most: number) =>
    deadline.within(vscode.workspace.findFiles(pattern, IGNORED, most), "Looking for files");
  if ((await find("**/{ts,js}config.json", 1)).length > 0) return;
  const word = document.getText(range);
  let opened = 0;
  for (const uri of await find("**/*.{ts,tsx,mts,cts,js,jsx,mjs,cjs}", MAX_LOOKED_AT)) {
    if (opened >= MAX_USERS) return;
    const text = await readFile(uri.fsPath, "utf8").catch(() => "");
    if (text.length > MAX_FILE_BYTES || !text.includes(word)) continue;
    await deadline.within(vscode.workspace.openTextDocument(uri), "Opening files");
    opened += 1;
  }
}

interface ScriptDiagnostic {
  start: { line: number; offset: number };
  end: { line: number; offset: number };
  text: string;
  code?: number;
  category: string;
}

const SEVERITIES: Record<string, vscode.DiagnosticSeverity> = {
  error: vscode.DiagnosticSeverity.Error,
  warning: vscode.DiagnosticSeverity.Warning,
  suggestion: vscode.DiagnosticSeverity.Hint,
};

// None if this VS Code's TypeScript does not take such questions.
async function script(document: vscode.TextDocument, deadline: Deadline, hasHints: boolean): Promise<vscode.Diagnostic[] | null> {
  const extension = vscode.extensions.getExtension(SCRIPT_EXTENSION);
  if (!extension) return null;
  await deadline.within(extension.activate(), "The start of TypeScript's language features");
  const found: vscode.Diagnostic[] = [];
  for (const request of hasHints ? [...REQUESTS, HINTS] : REQUESTS) {
    const answer = await deadline.within(ask(request, document, deadline), "TypeScript's language server");
    if (answer === null) return null;
    for (const one of answer) {
      const where = new vscode.Range(
        one.start.line - 1,
        one.start.offset - 1,
        one.end.line - 1,
        one.end.offset - 1,
      );
      const severity = SEVERITIES[one.category] ?? vscode.DiagnosticSeverity.Information;
      const diagnostic = new vscode.Diagnostic(where, one.text, severity);
      diagnostic.source = document.languageId.startsWith("type") ? "ts" : "js";
      if (one.code !== undefined) diagnostic.code = one.code;
      found.push(diagnostic);
    }
  }
  return found;
}

async function ask(request: string, document: vscode.TextDocument, deadline: Deadline): Promise<ScriptDiagnostic[] | null> {
  // The server may be starting yet; it gives no content then.
  for (;;) {
    let answer: { type?: string; body?: ScriptDiagnostic[] } | undefined;
    try {
      answer = await vscode.commands.executeCommand("typescript.tsserverRequest", request, { file: document.uri });
    } catch {
      return null;
    }
    if (answer?.body) return answer.body;
    if (deadline.leftMs === 0 || deadline.signal.aborted) return null;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
