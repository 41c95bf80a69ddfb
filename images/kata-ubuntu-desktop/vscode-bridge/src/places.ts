// Between Carrel's places (paths, lines and columns from 1) and VS Code's (URIs, from 0).

import { isAbsolute, resolve } from "node:path";
import * as vscode from "vscode";
import { BridgeError } from "./errors.ts";
import type { Location, Place, Range } from "./protocol.ts";

export function folder(): string | null {
  return vscode.workspace.workspaceFolders?.[0]?.uri.fsPath ?? null;
}

export function absolute(path: string): string {
  if (isAbsolute(path)) return resolve(path);
  const base = folder();
  if (base === null) {
    throw new BridgeError(
      "invalid_request",
      `No folder is open, so ${path} is relative to nothing.`,
      "Open a folder, or give an absolute path.",
    );
  }
  return resolve(base, path);
}

export function range(of: vscode.Range): Range {
  return {
    line: of.start.line + 1,
    column: of.start.character + 1,
    end_line: of.end.line + 1,
    end_column: of.end.character + 1,
  };
}

export function position(document: vscode.TextDocument, place: Place): vscode.Position {
  const text = line(document, place.line).text;
  if (place.symbol != null) {
    const at = text.indexOf(place.symbol);
    if (at < 0) {
      throw new BridgeError(
        "invalid_request",
        `Line ${place.line} has no ${place.symbol}: ${text.trim().slice(0, 200)}`,
      );
    }
    return new vscode.Position(place.line - 1, at);
  }
  if (place.column == null) return new vscode.Position(place.line - 1, text.search(/\S|$/));
  if (place.column > text.length + 1) {
    throw new BridgeError(
      "invalid_request",
      `Line ${place.line} ends at column ${text.length + 1}, before ${place.column}.`,
    );
  }
  return new vscode.Position(place.line - 1, place.column - 1);
}

export function line(document: vscode.TextDocument, number: number): vscode.TextLine {
  if (number > document.lineCount) {
    throw new BridgeError(
      "invalid_request",
      `${document.uri.fsPath} has ${document.lineCount} lines, not ${number}.`,
    );
  }
  return document.lineAt(number - 1);
}

// Locations with the text of their first lines, of files that can be read.
export async function locations(
  found: readonly (vscode.Location | vscode.LocationLink)[],
): Promise<Location[]> {
  const documents = new Map<string, vscode.TextDocument | null>();
  const result: Location[] = [];
  for (const one of found) {
    const uri = "targetUri" in one ? one.targetUri : one.uri;
    const where = "targetUri" in one ? (one.targetSelectionRange ?? one.targetRange) : one.range;
    const key = uri.toString();
    if (!documents.has(key)) documents.set(key, await vscode.workspace.openTextDocument(uri).then((d) => d, () => null));
    const document = documents.get(key);
    const text =
      document && where.start.line < document.lineCount ? document.lineAt(where.start.line).text : "";
    result.push({ path: uri.fsPath, range: range(where), text: text.trim().slice(0, 300) });
  }
  return result;
}
