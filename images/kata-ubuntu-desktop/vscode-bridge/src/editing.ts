// rename, apply_edit, format, code_actions: what changes files. Each reads them, changes them in the
// editor, saves them and shows the first one; one request at a time.

import { existsSync } from "node:fs";
import { access, constants, stat } from "node:fs/promises";
import { dirname } from "node:path";
import * as vscode from "vscode";
import { analyse, isAnalysed, openUsers } from "./analysis.ts";
import * as documents from "./documents.ts";
import { changes, unix } from "./edits.ts";
import { BridgeError, words } from "./errors.ts";
import * as python from "./python.ts";
import { absolute, line, position } from "./places.ts";
import type { Action, Answer, FileEdit, Place } from "./protocol.ts";
import { sleep, Turns, type Deadline } from "./waiting.ts";

const MAX_OFFERED = 200;
const MAX_CHECKED = 20; // files, of a rename
const MAX_MESSAGE = 500;
const TOLD_MS = 2000; // in which the editor tells of the files that it has made
// They have a formatter: no edits of theirs means that nothing is to be done. Of others it may mean that
// there is none.
const FORMATTED = new Set([
  ...["typescript", "typescriptreact", "javascript", "javascriptreact", "json", "jsonc", "html", "css", "scss", "less"],
  ...(python.bundled() ? ["python"] : []),
]);
const turns = new Turns();

export function rename(action: Action, deadline: Deadline): Promise<Answer> {
  return turns.take(deadline, async () => {
    const place = action as unknown as Place & { new_name: string };
    const document = await documents.editable(place.path, deadline);
    const where = position(document, place);
    await analyse(document, deadline);
    await openUsers(document, where, deadline);
    let edit: vscode.WorkspaceEdit | undefined;
    try {
      const command = "vscode.executeDocumentRenameProvider";
      const asked = vscode.commands.executeCommand<vscode.WorkspaceEdit | undefined>(command, document.uri, where, place.new_name);
      edit = await deadline.within(asked, "The rename");
    } catch (error) {
      if (error instanceof BridgeError) throw error;
      throw new BridgeError("edit_conflict", `It cannot be renamed: ${words(error)}`, "Choose another place or name.");
    }
    if (!edit || edit.size === 0) {
      throw new BridgeError("edit_conflict", "There is nothing here that can be renamed.", "Choose another place.");
    }
    const check = await noNewErrors(document, edit, place.new_name, deadline);
    return { type: "rename", files: await applied(edit, deadline, { main: document.uri, check }), title: "" };
  });
}

// Language servers rename to whatever they are told: to a name that is taken, or that is none. So where that
// would be seen, in the file itself and in those that have the name already, there must be no more errors after
// it than before.
async function noNewErrors(main: vscode.TextDocument, edit: vscode.WorkspaceEdit, name: string, deadline: Deadline) {
  const looked = new Set([main]);
  for (const [uri] of edit.entries()) {
    if (looked.size >= MAX_CHECKED) break;
    const document = await deadline.within(vscode.workspace.openTextDocument(uri), "Opening files");
    if (document.getText().includes(name)) looked.add(document);
  }
  const before = new Map<vscode.TextDocument, string[]>();
  for (const one of looked) if (isAnalysed(one)) before.set(one, await errors(one, deadline));
  return async () => {
    for (const [one, known] of before) {
      const now = await errors(one, deadline);
      if (now.length <= known.length) continue;
      const fresh = now.find((text) => !known.includes(text)) ?? now[0]!;
      throw new BridgeError("edit_conflict", `As ${name} it would be wrong, so nothing was renamed: ${fresh}`, "Choose another name.");
    }
  };
}

async function errors(document: vscode.TextDocument, deadline: Deadline): Promise<string[]> {
  const { diagnostics } = await analyse(document, deadline);
  return diagnostics
    .filter((one) => one.severity === vscode.DiagnosticSeverity.Error)
    .map((one) => `${document.uri.fsPath}:${one.range.start.line + 1}: ${one.message.slice(0, MAX_MESSAGE)}`);
}

export function applyEdit(action: Action, deadline: Deadline): Promise<Answer> {
  return turns.take(deadline, async () => {
    const byFile = new Map<string, FileEdit[]>();
    for (const edit of action["edits"] as FileEdit[]) {
      const file = absolute(edit.path);
      byFile.set(file, [...(byFile.get(file) ?? []), edit]);
    }
    const edit = new vscode.WorkspaceEdit();
    let made = 0;
    for (const [file, edits] of byFile) {
      if (edits.some((one) => one.create)) {
        if (edits.length > 1) throw new BridgeError("invalid_request", `${file} is to be made, and changed too.`);
        await creatable(file);
        made += 1;
        edit.createFile(vscode.Uri.file(file), { contents: Buffer.from(edits[0]!.new) });
        continue;
      }
      const document = await documents.editable(file, deadline);
      for (const change of changes(file, unix(document.getText()), edits)) {
        edit.replace(document.uri, span(document, change.start, change.end), change.text);
      }
    }
    return { type: "apply_edit", files: await applied(edit, deadline, { made }), title: "" };
  });
}

// Offsets count one for a line's end, which may be two in the document.
function span(document: vscode.TextDocument, start: number, end: number): vscode.Range {
  if (document.eol === vscode.EndOfLine.LF) {
    return new vscode.Range(document.positionAt(start), document.positionAt(end));
  }
  const place = (offset: number) => {
    let number = 0;
    for (let left = offset; ; number++) {
      const { length } = document.lineAt(number).text;
      if (left <= length) return new vscode.Position(number, left);
      left -= length + 1;
    }
  };
  return new vscode.Range(place(start), place(end));
}

async function creatable(file: string): Promise<void> {
  if (existsSync(file)) throw new BridgeError("file_exists", `${file} exists already.`, "Edit it, by old or a range.");
  let above = dirname(file);
  while (!existsSync(above)) above = dirname(above);
  if (!(await stat(above)).isDirectory()) throw new BridgeError("not_a_directory", `${above} is no directory.`);
  try {
    await access(above, constants.W_OK);
  } catch (error) {
    throw new BridgeError("edit_conflict", `${file} cannot be made: ${words(error)}`, "Make it elsewhere.");
  }
}

export function format(action: Action, deadline: Deadline): Promise<Answer> {
  return turns.take(deadline, async () => {
    const document = await documents.editable(String(action["path"]), deadline);
    if (document.languageId.startsWith("typescript") || document.languageId.startsWith("javascript")) {
      await analyse(document, deadline); // their formatter is there once their server is
    }
    const config = vscode.workspace.getConfiguration("editor", document);
    const options = { tabSize: config.get("tabSize", 4), insertSpaces: config.get("insertSpaces", true) };
    let edits: vscode.TextEdit[] | undefined;
    python.complaint();
    try {
      const command = "vscode.executeFormatDocumentProvider";
      edits = await deadline.within(vscode.commands.executeCommand<typeof edits>(command, document.uri, options), "The formatter");
    } catch (error) {
      if (error instanceof BridgeError) throw error;
      throw new BridgeError("edit_conflict", `It cannot be formatted: ${words(error)}`, "Mend what it names.");
    }
    const complaint = python.complaint();
    if (!edits && complaint) throw complaint;
    if (!edits && !FORMATTED.has(document.languageId)) {
      throw new BridgeError("unsupported", `The editor has no formatter for ${document.languageId}, or it changes nothing.`, "Run one as a task.");
    }
    const edit = new vscode.WorkspaceEdit();
    edit.set(document.uri, edits ?? []);
    return { type: "format", files: await applied(edit, deadline, { main: document.uri }), title: "" };
  });
}

type Offered = vscode.CodeAction | vscode.Command;

export async function codeActions(action: Action, deadline: Deadline): Promise<Answer> {
  const title = action["apply"] as string | null | undefined;
  if (title == null) {
    const document = await documents.document(String(action["path"]), deadline);
    // What is offered depends on what the editor shows of a place, and it looks at what it shows.
    await documents.reveal(document);
    const actions = (await offered(document, action, deadline)).map((one) => ({
      title: one.title,
      kind: ("kind" in one && one.kind?.value) || "",
      is_preferred: ("isPreferred" in one && one.isPreferred) || false,
      disabled: ("disabled" in one && one.disabled?.reason) || "",
    }));
    return { type: "code_action_list", actions };
  }
  return turns.take(deadline, async () => {
    const document = await documents.editable(String(action["path"]), deadline);
    await documents.reveal(document);
    const all = await offered(document, action, deadline, MAX_OFFERED);
    const found = all.find((one) => one.title === title);
    if (!found) {
      const titles = all.map((one) => one.title).join("; ").slice(0, 1500);
      throw new BridgeError("invalid_request", `Nothing with that title is offered there; there is: ${titles || "nothing"}`);
    }
    if ("disabled" in found && found.disabled) {
      throw new BridgeError("edit_conflict", `It cannot be applied: ${found.disabled.reason}`, "Choose another place.");
    }
    const isCommand = typeof found.command === "string";
    const edit = (!isCommand && (found as vscode.CodeAction).edit) || new vscode.WorkspaceEdit();
    const command = isCommand ? (found as vscode.Command) : (found as vscode.CodeAction).command;
    const files = await applied(edit, deadline, { main: document.uri, command });
    return { type: "code_actions", files, title };
  });
}

async function offered(document: vscode.TextDocument, action: Action, deadline: Deadline, resolved = 0): Promise<Offered[]> {
  const first = line(document, action["line"] as number);
  const last = line(document, (action["end_line"] as number | null | undefined) ?? first.lineNumber + 1);
  if (last.lineNumber < first.lineNumber) throw new BridgeError("invalid_request", "A range ends before it begins.");
  const { diagnostics } = await analyse(document, deadline, true);
  const where = new vscode.Range(first.range.start, last.range.end);
  // It learns of it a moment later than we do.
  const shown = () => vscode.languages.getDiagnostics(document.uri).some((one) => one.range.intersection(where));
  if (diagnostics.some((one) => one.range.intersection(where))) await deadline.until(shown, 2000);
  const asked = vscode.commands.executeCommand<Offered[] | undefined>(
    "vscode.executeCodeActionProvider",
    document.uri,
    where,
    (action["kind"] as string | null | undefined) ?? undefined,
    resolved,
  );
  return ((await deadline.within(asked, "What is offered")) ?? []).slice(0, MAX_OFFERED);
}

interface Applying {
  main?: vscode.Uri;
  command?: vscode.Command | undefined;
  made?: number;
  check?: () => Promise<void>;
}

// Applies an edit and runs a command after it, saves what changed, and shows the place. Either all of it
// is done and saved, or it is undone again and raises. `made` files are new; `check` is asked before anything is saved.
async function applied(
  edit: vscode.WorkspaceEdit,
  deadline: Deadline,
  { main, command, made = 0, check }: Applying,
): Promise<{ path: string; changes: number }[]> {
  const before = new Map<string, string>(); // of the files that are known to change
  await Promise.all(
    edit.entries().map(async ([uri, edits]) => {
      if (edits.length > 0) before.set(uri.fsPath, (await documents.editable(uri.fsPath, deadline)).getText());
    }),
  );
  const wasDirty = new Set(vscode.workspace.textDocuments.filter((one) => one.isDirty));
  const counted = new Map<string, number>();
  const changed = new Map<vscode.TextDocument, vscode.Range>();
  const created: string[] = [];
  const watching = vscode.Disposable.from(
    vscode.workspace.onDidChangeTextDocument(({ document, contentChanges }) => {
      const [first] = contentChanges.toSorted((a, b) => a.rangeOffset - b.rangeOffset);
      if (document.uri.scheme !== "file" || !first) return;
      const path = document.uri.fsPath;
      counted.set(path, (counted.get(path) ?? 0) + contentChanges.length);
      if (!changed.has(document)) changed.set(document, new vscode.Range(first.range.start, first.range.start));
    }),
    vscode.workspace.onDidCreateFiles(({ files }) => created.push(...files.map((uri) => uri.fsPath))),
  );
  try {
    if (edit.size > 0 && !(await deadline.within(vscode.workspace.applyEdit(edit), "The edit"))) {
      throw new BridgeError("edit_conflict", "The editor refused the edit; a file changed meanwhile.");
    }
    if (command) {
      const args = command.arguments ?? [];
      await deadline.within(vscode.commands.executeCommand(command.command, ...args), `The command ${command.command}`);
    }
    // The events of what changed may come after the answer.
    if (before.size > 0 || command) await deadline.until(() => changed.size >= Math.max(before.size, 1), 300);
    if (made > 0) await deadline.until(() => created.length >= made, TOLD_MS);
    else if (created.length === 0 && edit.size > before.size) await sleep(20);
    await check?.();
    await documents.save([...changed.keys()].filter((one) => before.has(one.uri.fsPath) || !wasDirty.has(one)), before, deadline);
  } catch (error) {
    await undone(before, created);
    throw error;
  } finally {
    watching.dispose();
  }
  for (const path of created) if (!counted.has(path)) counted.set(path, 1);
  await shown(changed, created, main);
  return [...counted].map(([path, count]) => ({ path, changes: count }));
}

async function shown(changed: Map<vscode.TextDocument, vscode.Range>, created: string[], main?: vscode.Uri): Promise<void> {
  const all = [...changed];
  const [document, at] = all.find(([one]) => one.uri.fsPath === main?.fsPath) ?? all[0] ?? [];
  if (document && at) {
    await documents.show(document, at);
  } else if (created[0]) {
    await documents.show(await vscode.workspace.openTextDocument(created[0]), new vscode.Range(0, 0, 0, 0));
  }
}

async function undone(before: Map<string, string>, created: string[]): Promise<void> {
  const back = new vscode.WorkspaceEdit();
  for (const document of vscode.workspace.textDocuments) {
    const text = before.get(document.uri.fsPath);
    if (text === undefined || text === document.getText()) continue;
    const end = document.lineAt(document.lineCount - 1).range.end;
    back.replace(document.uri, new vscode.Range(new vscode.Position(0, 0), end), text);
  }
  for (const path of created) back.deleteFile(vscode.Uri.file(path), { ignoreIfNotExists: true });
  await Promise.race([vscode.workspace.applyEdit(back), sleep(5000)]);
  for (const document of vscode.workspace.textDocuments) {
    if (before.has(document.uri.fsPath) && document.isDirty) await Promise.race([document.save(), sleep(5000)]);
  }
}
