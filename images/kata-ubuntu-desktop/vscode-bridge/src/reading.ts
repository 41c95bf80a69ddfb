// symbols, definition, references, hover, diagnostics: they open no tab and take no focus.

import * as vscode from "vscode";
import { analyse, isAnalysed, openUsers } from "./analysis.ts";
import * as documents from "./documents.ts";
import { folder, locations, position, range } from "./places.ts";
import { page, type Action, type Answer, type Paged, type Place, type Severity } from "./protocol.ts";
import type { Deadline } from "./waiting.ts";

const REFERENCES = "vscode.executeReferenceProvider";
const MAX_HOVER = 20_000;
const MAX_MESSAGE = 4000;
const MAX_ANALYSED = 50; // documents, for diagnostics of all
const IGNORED = "**/{node_modules,.venv,venv,.git,__pycache__,dist,build}/**";
const SEVERITIES: Severity[] = ["error", "warning", "information", "hint"];

export async function diagnostics(action: Action, deadline: Deadline): Promise<Answer> {
  const least = SEVERITIES.indexOf((action["least"] as Severity | undefined) ?? "warning");
  const found: [vscode.Uri, readonly vscode.Diagnostic[]][] = [];
  let isSettled = true;
  if (action["path"] != null) {
    const document = await documents.document(String(action["path"]), deadline);
    const analysis = await analyse(document, deadline, least === 3);
    found.push([document.uri, analysis.diagnostics]);
    isSettled = analysis.isSettled;
  } else {
    const analysed = vscode.workspace.textDocuments.filter(isAnalysed);
    isSettled = analysed.length <= MAX_ANALYSED;
    const fresh = new Set<string>();
    for (const document of analysed.slice(0, MAX_ANALYSED)) {
      const analysis = await analyse(document, deadline, least === 3);
      fresh.add(document.uri.toString());
      found.push([document.uri, analysis.diagnostics]);
      isSettled &&= analysis.isSettled;
    }
    const others = vscode.languages.getDiagnostics().filter(([uri]) => !fresh.has(uri.toString()));
    found.push(...others);
  }
  const all = found.flatMap(([uri, list]) =>
    list
      .filter((one) => one.severity <= least)
      .map((one) => ({
        path: uri.fsPath,
        range: range(one.range),
        severity: SEVERITIES[one.severity]!,
        message: one.message.slice(0, MAX_MESSAGE),
        source: one.source ?? "",
        code: String(typeof one.code === "object" ? one.code.value : (one.code ?? "")),
      })),
  );
  all.sort(
    (a, b) =>
      SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity) ||
      (a.path < b.path ? -1 : a.path > b.path ? 1 : a.range.line - b.range.line),
  );
  const { rows, total, next } = page(all, action as Paged);
  return { type: "diagnostics", diagnostics: rows, total, next, is_settled: isSettled };
}

function kind(of: vscode.SymbolKind): string {
  return (vscode.SymbolKind[of] ?? "symbol").toLowerCase();
}

interface Row {
  name: string;
  kind: string;
  path: string;
  range: ReturnType<typeof range>;
  container: string;
}

export async function symbols(action: Action, deadline: Deadline): Promise<Answer> {
  const all: Row[] = [];
  if (action["path"] != null) {
    const document = await documents.document(String(action["path"]), deadline);
    await analyse(document, deadline);
    type Found = (vscode.DocumentSymbol | vscode.SymbolInformation)[] | undefined;
    const found = await run<Found>(deadline, "vscode.executeDocumentSymbolProvider", document.uri);
    flatten(found ?? [], document.uri, "", all);
  } else {
    await wake(deadline);
    const query = String(action["query"]);
    type Found = vscode.SymbolInformation[] | undefined;
    const found = await run<Found>(deadline, "vscode.executeWorkspaceSymbolProvider", query);
    for (const one of found ?? []) {
      if (!one.name.toLowerCase().includes(query.toLowerCase())) continue; // they match loosely
      const { uri, range: where } = one.location;
      all.push({ name: one.name.replace(/\(\)$/, ""), kind: kind(one.kind), path: uri.fsPath, range: range(where), container: one.containerName });
    }
  }
  const { rows, total, next } = page(all, action as Paged);
  return { type: "symbols", symbols: rows, total, next };
}

function flatten(
  found: (vscode.DocumentSymbol | vscode.SymbolInformation)[],
  uri: vscode.Uri,
  container: string,
  into: Row[],
): void {
  for (const one of found) {
    if ("location" in one && !("selectionRange" in one)) {
      const where = range(one.location.range);
      into.push({ name: one.name, kind: kind(one.kind), path: one.location.uri.fsPath, range: where, container: one.containerName });
    } else {
      const symbol = one as vscode.DocumentSymbol;
      const where = range(symbol.range);
      into.push({ name: symbol.name, kind: kind(symbol.kind), path: uri.fsPath, range: where, container });
      flatten(symbol.children, uri, container ? `${container}.${symbol.name}` : symbol.name, into);
    }
  }
}

// TypeScript's server knows a project once a file of it is open, and Python's works by open files too.
async function wake(deadline: Deadline): Promise<void> {
  for (const [languages, files] of [
    [["typescript", "typescriptreact", "javascript", "javascriptreact"], "**/*.{ts,tsx,mts,js,jsx,mjs}"],
    [["python"], "**/*.py"],
  ] as const) {
    const isOpen = (document: vscode.TextDocument) => (languages as readonly string[]).includes(document.languageId);
    let document = vscode.workspace.textDocuments.find(isOpen);
    if (!document && folder() !== null) {
      const [first] = await deadline.within(vscode.workspace.findFiles(files, IGNORED, 1), "Looking for files");
      if (first) document = await documents.document(first.fsPath, deadline).catch(() => undefined);
    }
    if (document) await analyse(document, deadline);
  }
}

export async function places(type: "definition" | "references", action: Action, deadline: Deadline): Promise<Answer> {
  const command = type === "definition" ? "vscode.executeDefinitionProvider" : REFERENCES;
  const found = await at<(vscode.Location | vscode.LocationLink)[] | undefined>(command, action, deadline);
  const { rows, total, next } = page(found ?? [], action as Paged);
  const told = await deadline.within(locations(rows), "Reading the files");
  return { type, locations: told, total, next };
}

export async function hover(action: Action, deadline: Deadline): Promise<Answer> {
  const found = await at<vscode.Hover[] | undefined>("vscode.executeHoverProvider", action, deadline);
  const parts = (found ?? []).flatMap((one) => one.contents).map(markdown);
  return { type: "hover", text: parts.filter((part) => part.trim()).join("\n\n").slice(0, MAX_HOVER) };
}

function markdown(part: vscode.MarkdownString | vscode.MarkedString): string {
  if (typeof part === "string") return part;
  return "language" in part ? `\`\`\`${part.language}\n${part.value}\n\`\`\`` : part.value;
}

async function at<T>(command: string, action: Action, deadline: Deadline): Promise<T> {
  const place = action as unknown as Place;
  const document = await documents.document(place.path, deadline);
  const where = position(document, place);
  await analyse(document, deadline);
  if (command === REFERENCES) await openUsers(document, where, deadline);
  return run<T>(deadline, command, document.uri, where);
}

async function run<T>(deadline: Deadline, command: string, ...args: unknown[]): Promise<T> {
  return deadline.within(vscode.commands.executeCommand<T>(command, ...args), "The language's tools");
}
