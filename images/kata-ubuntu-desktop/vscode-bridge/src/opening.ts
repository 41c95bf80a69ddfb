// open, open_folder, state.

import { stat } from "node:fs/promises";
import * as vscode from "vscode";
import * as documents from "./documents.ts";
import { BridgeError } from "./errors.ts";
import { absolute, folder, position, range } from "./places.ts";
import type { Action, Answer, Place } from "./protocol.ts";
import type { Deadline } from "./waiting.ts";

const MAX_SELECTED = 10_000;
const MAX_FILES = 1000;

export async function open(action: Action, deadline: Deadline): Promise<Answer> {
  const place = action as unknown as Partial<Place> & { path: string };
  const opened = await documents.document(place.path, deadline);
  const current = vscode.window.activeTextEditor;
  const at =
    place.line == null
      ? current?.document === opened
        ? current.selection.active
        : new vscode.Position(0, 0)
      : position(opened, { ...place, line: place.line });
  const showing = documents.show(opened, new vscode.Range(at, at));
  const editor = await deadline.within(showing, `Showing ${opened.uri.fsPath}`);
  return {
    type: "open",
    path: opened.uri.fsPath,
    line: editor.selection.active.line + 1,
    column: editor.selection.active.character + 1,
    language: opened.languageId,
    lines: opened.lineCount,
  };
}

// It answers before the window is loaded anew, which ends this extension host.
export async function openFolder(action: Action): Promise<Answer> {
  const path = absolute(String(action["path"]));
  const found = await stat(path).catch(() => null);
  if (!found) throw new BridgeError("file_not_found", `There is no folder ${path}.`);
  if (!found.isDirectory()) throw new BridgeError("not_a_directory", `${path} is no directory.`);
  if (path !== folder()) {
    setTimeout(() => {
      void vscode.commands.executeCommand("vscode.openFolder", vscode.Uri.file(path), {
        forceReuseWindow: true,
      });
    }, 50);
  }
  return { type: "open_folder", path };
}

export function state(): Answer {
  const files = new Map<string, boolean>();
  for (const tab of vscode.window.tabGroups.all.flatMap((group) => group.tabs)) {
    const input = tab.input;
    const uri =
      input instanceof vscode.TabInputText || input instanceof vscode.TabInputCustom
        ? input.uri
        : input instanceof vscode.TabInputTextDiff
          ? input.modified
          : null;
    if (uri) files.set(uri.fsPath, tab.isDirty || (files.get(uri.fsPath) ?? false));
  }
  const editor = vscode.window.activeTextEditor;
  return {
    type: "state",
    folder: folder(),
    files: [...files].slice(0, MAX_FILES).map(([path, is_dirty]) => ({ path, is_dirty })),
    active: editor
      ? {
          path: editor.document.uri.fsPath,
          language: editor.document.languageId,
          selection: range(editor.selection),
          selected: editor.document.getText(editor.selection).slice(0, MAX_SELECTED),
        }
      : null,
    terminals: vscode.window.terminals.map((terminal) => ({
      name: terminal.name,
      is_active: terminal === vscode.window.activeTerminal,
      exit_code: terminal.exitStatus?.code ?? null,
    })),
    debugging: vscode.debug.activeDebugSession?.name ?? null,
    notes: [],
  };
}
