// What a list of edits makes of a file's text: pure. Texts have "\n" for every line's end; places are
// the editor's own, lines and characters from 0.

import { BridgeError } from "./errors.ts";
import type { FileEdit } from "./protocol.ts";

export interface Change {
  start: number; // offsets into the text, the end excluded
  end: number;
  text: string;
}

export function unix(text: string): string {
  return text.replace(/\r\n?/g, "\n");
}

// Raises edit_conflict where the text is not as the edit takes it to be. All edits are of the text as
// it stands: the second one does not see what the first one did.
export function changes(path: string, text: string, edits: FileEdit[]): Change[] {
  const starts = lineStarts(text);
  const all = edits.flatMap((edit) =>
    edit.old != null ? replacements(path, text, edit) : [ranged(path, text, starts, edit)],
  );
  all.sort((a, b) => a.start - b.start || a.end - b.end);
  for (let i = 1; i < all.length; i++) {
    if (all[i]!.start < all[i - 1]!.end) {
      const line = lineAt(starts, all[i]!.start);
      throw new BridgeError("invalid_request", `Two edits of ${path} overlap at line ${line}.`);
    }
  }
  return all;
}

export function applied(text: string, all: Change[]): string {
  let result = "";
  let from = 0;
  for (const change of all) {
    result += text.slice(from, change.start) + change.text;
    from = change.end;
  }
  return result + text.slice(from);
}

function replacements(path: string, text: string, edit: FileEdit): Change[] {
  const old = unix(edit.old!);
  const found: number[] = [];
  for (let at = text.indexOf(old); at >= 0; at = text.indexOf(old, at + old.length)) found.push(at);
  if (found.length === 0) {
    throw new BridgeError("edit_conflict", `${path} has nothing like: ${shown(old)}`);
  }
  if (found.length > 1 && !edit.all) {
    const lines = found.slice(0, 10).map((at) => lineAt(lineStarts(text), at));
    throw new BridgeError(
      "edit_conflict",
      `${path} has that text ${found.length} times, in lines ${lines.join(", ")}.`,
      "Give more of the text around it, a range, or all.",
    );
  }
  return found.map((start) => ({ start, end: start + old.length, text: unix(edit.new) }));
}

function ranged(path: string, text: string, starts: number[], edit: FileEdit): Change {
  const wholeLines = edit.column == null;
  const start = offset(path, text, starts, edit.line!, edit.column ?? 1);
  let end: number;
  if (wholeLines) {
    offset(path, text, starts, edit.end_line!, 1); // it must be there
    end = starts[edit.end_line!] ?? text.length;
  } else {
    end = offset(path, text, starts, edit.end_line!, edit.end_column!);
  }
  if (end < start) throw new BridgeError("invalid_request", "A range ends before it begins.");
  const standing = text.slice(start, end);
  let fresh = unix(edit.new);
  if (edit.expected != null) {
    const expected = unix(edit.expected);
    // Of whole lines the last line's end may be left out.
    if (standing !== expected && !(wholeLines && standing === `${expected}\n`)) {
      throw new BridgeError("edit_conflict", `${path} has there: ${shown(standing)}`);
    }
  }
  if (wholeLines && standing.endsWith("\n") && fresh !== "" && !fresh.endsWith("\n")) fresh += "\n";
  return { start, end, text: fresh };
}

export function lineStarts(text: string): number[] {
  const starts = [0];
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) starts.push(at + 1);
  return starts;
}

// The line, from 1, that an offset is in.
export function lineAt(starts: number[], offset: number): number {
  let low = 0;
  let high = starts.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (starts[middle]! <= offset) low = middle;
    else high = middle;
  }
  return low + 1;
}

function offset(path: string, text: string, starts: number[], line: number, column: number): number {
  const start = starts[line - 1];
  if (start === undefined) {
    throw new BridgeError("edit_conflict", `${path} has ${starts.length} lines, not ${line}.`);
  }
  const end = line < starts.length ? starts[line]! - 1 : text.length;
  if (start + column - 1 > end) {
    const columns = end - start + 1;
    throw new BridgeError("edit_conflict", `Line ${line} of ${path} ends at column ${columns}.`);
  }
  return start + column - 1;
}

function shown(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}...` : text);
}
