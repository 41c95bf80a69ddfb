// Files as the editor has them. A file that changed on disk is read anew by the editor by itself, a
// moment later: whoever asks for a document here gets it as it is on disk, or, if a person has unsaved
// changes in it, as they have it.

import { constants, statSync } from "node:fs";
import { access, open, readFile, stat } from "node:fs/promises";
import * as vscode from "vscode";
import { unix } from "./edits.ts";
import { BridgeError, words } from "./errors.ts";
import { absolute } from "./places.ts";
import { MAX_FILE_BYTES } from "./protocol.ts";
import type { Deadline } from "./waiting.ts";

const RELOAD_MS = 3000;
const LOOKED_AT_BYTES = 64 << 10; // for bytes that are no text

// When the editor last read or wrote each file that it has open: `mtime:size`.
const read = new Map<string, string>();

export function follow(): vscode.Disposable {
  const note = (document: vscode.TextDocument) => {
    if (document.uri.scheme === "file") read.set(document.uri.fsPath, stamp(document.uri.fsPath));
  };
  vscode.workspace.textDocuments.forEach((document) => document.isDirty || note(document));
  return vscode.Disposable.from(
    vscode.workspace.onDidOpenTextDocument((document) => document.isDirty || note(document)),
    vscode.workspace.onDidSaveTextDocument(note),
    vscode.workspace.onDidChangeTextDocument(({ document }) => document.isDirty || note(document)),
    vscode.workspace.onDidCloseTextDocument((document) => void read.delete(document.uri.fsPath)),
  );
}

function stamp(path: string): string {
  const found = statSync(path, { throwIfNoEntry: false });
  return found ? `${found.mtimeMs}:${found.size}` : "none";
}

// Raises file_not_found, is_a_directory, too_large, invalid_request (no text). Opens it in no tab.
export async function document(path: string, deadline: Deadline): Promise<vscode.TextDocument> {
  const file = absolute(path);
  await check(file);
  const uri = vscode.Uri.file(file);
  let opened: vscode.TextDocument;
  try {
    opened = await deadline.within(vscode.workspace.openTextDocument(uri), `Opening ${file}`);
  } catch (error) {
    if (error instanceof BridgeError) throw error;
    throw new BridgeError("invalid_request", `${file} cannot be opened as text: ${words(error)}`);
  }
  await isFresh(opened, deadline);
  return opened;
}

async function check(file: string): Promise<void> {
  let found;
  try {
    found = await stat(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") {
      throw new BridgeError("file_not_found", `There is no file ${file}.`);
    }
    throw new BridgeError("invalid_request", `${file} cannot be read: ${words(error)}`);
  }
  if (found.isDirectory()) {
    throw new BridgeError("is_a_directory", `${file} is a directory.`, "Give a file, or use open_folder.");
  }
  if (!found.isFile()) throw new BridgeError("invalid_request", `${file} is no regular file.`);
  if (found.size > MAX_FILE_BYTES) {
    throw new BridgeError(
      "too_large",
      `${file} has ${found.size} bytes; the editor works on files of up to ${MAX_FILE_BYTES}.`,
      "Use commands for it.",
    );
  }
  let handle;
  try {
    handle = await open(file);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(LOOKED_AT_BYTES), 0, LOOKED_AT_BYTES, 0);
    if (buffer.subarray(0, bytesRead).includes(0)) {
      throw new BridgeError("invalid_request", `${file} is binary: it has NUL bytes.`, "Give a text file.");
    }
  } catch (error) {
    if (error instanceof BridgeError) throw error;
    throw new BridgeError("invalid_request", `${file} cannot be read: ${words(error)}`);
  } finally {
    await handle?.close();
  }
}

// Whether the document is what is on disk; waits a moment for the editor to read it anew.
async function isFresh(opened: vscode.TextDocument, deadline: Deadline): Promise<boolean> {
  if (opened.isDirty || read.get(opened.uri.fsPath) === stamp(opened.uri.fsPath)) return true;
  const disk = await textOnDisk(opened);
  const same = () => unix(opened.getText()) === disk;
  const fresh = same() || (await deadline.until(same, RELOAD_MS));
  if (fresh) read.set(opened.uri.fsPath, stamp(opened.uri.fsPath));
  return fresh;
}

async function textOnDisk(opened: vscode.TextDocument): Promise<string> {
  const bytes = await readFile(opened.uri.fsPath);
  return unix(await vscode.workspace.decode(bytes, { encoding: opened.encoding }));
}

// The document, to be changed and saved: raises edit_conflict if saving would lose what is on disk.
export async function editable(path: string, deadline: Deadline): Promise<vscode.TextDocument> {
  const opened = await document(path, deadline);
  const file = opened.uri.fsPath;
  if (opened.isDirty && read.has(file) && read.get(file) !== stamp(file)) {
    throw new BridgeError(
      "edit_conflict",
      `${file} has unsaved changes in the editor, and has changed on disk since.`,
      "Have a person save or revert it, or do it by keys.",
    );
  }
  try {
    await access(file, constants.W_OK);
  } catch (error) {
    throw new BridgeError("edit_conflict", `${file} cannot be written: ${words(error)}`, "Change its mode.");
  }
  if (!(await isFresh(opened, deadline))) {
    // An editor that shows a file reads it anew, whatever the watcher of files missed.
    await vscode.window.showTextDocument(opened, { preview: false, preserveFocus: true });
    if (!(await isFresh(opened, deadline))) {
      throw new BridgeError("edit_conflict", `${file} changed on disk; the editor has it as it was.`);
    }
  }
  return opened;
}

// Saves them all, or raises ide_failed. `before` is what those that were edited had, by path.
export async function save(
  opened: Iterable<vscode.TextDocument>,
  before: Map<string, string>,
  deadline: Deadline,
): Promise<void> {
  const dirty = [...opened].filter((one) => one.isDirty);
  const saved = await deadline.within(Promise.all(dirty.map((one) => one.save())), "Saving");
  for (const failed of dirty.filter((_, i) => !saved[i])) {
    if (!(await deadline.within(savedAgain(failed, before), "Saving"))) {
      throw new BridgeError("ide_failed", `The editor could not save ${failed.uri.fsPath}.`);
    }
  }
}

// A file that was written while the editor read it is newer than the editor believes, though it has all of
// its text. Where that is so, the editor reads it once more before it is changed.
async function savedAgain(document: vscode.TextDocument, before: Map<string, string>): Promise<boolean> {
  const old = before.get(document.uri.fsPath);
  if (old === undefined || unix(old) !== (await textOnDisk(document))) return false;
  const wanted = document.getText();
  await vscode.window.showTextDocument(document, { preview: false });
  await vscode.commands.executeCommand("workbench.action.files.revert");
  const end = document.lineAt(document.lineCount - 1).range.end;
  const edit = new vscode.WorkspaceEdit();
  edit.replace(document.uri, new vscode.Range(new vscode.Position(0, 0), end), wanted);
  return (await vscode.workspace.applyEdit(edit)) && (!document.isDirty || (await document.save()));
}

// Makes sure that a document can be seen, where the cursor is left alone.
export async function reveal(opened: vscode.TextDocument): Promise<void> {
  if (vscode.window.visibleTextEditors.some((editor) => editor.document === opened)) return;
  await vscode.window.showTextDocument(opened, { preserveFocus: true });
}

// Shows a document with the cursor at a place.
export async function show(opened: vscode.TextDocument, at: vscode.Range): Promise<vscode.TextEditor> {
  const editor = await vscode.window.showTextDocument(opened, { preview: false, selection: at });
  editor.revealRange(at, vscode.TextEditorRevealType.InCenterIfOutsideViewport);
  return editor;
}
