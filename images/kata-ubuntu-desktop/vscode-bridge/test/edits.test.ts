import assert from "node:assert/strict";
import test from "node:test";
import { applied, changes, unix } from "../src/edits.ts";
import type { FileEdit } from "../src/protocol.ts";

const TEXT = "one\ntwo\nthree two\n";

const after = (text: string, ...edits: Partial<FileEdit>[]) =>
  applied(text, changes("f", text, edits.map((edit) => ({ path: "f", new: "", ...edit }))));

const code = (text: string, ...edits: Partial<FileEdit>[]) => {
  try {
    after(text, ...edits);
  } catch (error) {
    return (error as { code: string }).code;
  }
  return null;
};

test("old text is replaced where it stands once", () => {
  assert.equal(after(TEXT, { old: "three", new: "3" }), "one\ntwo\n3 two\n");
  assert.equal(after(TEXT, { old: "one\r\ntwo", new: "1\r\n2" }), "1\n2\nthree two\n");
  assert.equal(code(TEXT, { old: "four" }), "edit_conflict");
  assert.equal(code(TEXT, { old: "two" }), "edit_conflict");
});

test("or everywhere, if that is asked for", () => {
  assert.equal(after(TEXT, { old: "two", new: "2", all: true }), "one\n2\nthree 2\n");
  assert.equal(after("aaa", { old: "a", new: "aa", all: true }), "aaaaaa");
  assert.equal(code(TEXT, { old: "four", all: true }), "edit_conflict");
});

test("a range of columns, its end excluded", () => {
  const edit = { line: 3, column: 1, end_line: 3, end_column: 6 };
  assert.equal(after(TEXT, { ...edit, new: "3" }), "one\ntwo\n3 two\n");
  assert.equal(after(TEXT, { ...edit, new: "3", expected: "three" }), "one\ntwo\n3 two\n");
  assert.equal(code(TEXT, { ...edit, expected: "four" }), "edit_conflict");
  assert.equal(after("a😀b", { line: 1, column: 2, end_line: 1, end_column: 4, new: "x" }), "axb");
  assert.equal(code(TEXT, { ...edit, end_column: 20 }), "edit_conflict");
  assert.equal(code(TEXT, { line: 3, column: 6, end_line: 3, end_column: 1 }), "invalid_request");
});

test("a range of whole lines, with or without the last one's end", () => {
  assert.equal(after(TEXT, { line: 2, end_line: 2, new: "2" }), "one\n2\nthree two\n");
  assert.equal(after(TEXT, { line: 2, end_line: 2, new: "2\n" }), "one\n2\nthree two\n");
  assert.equal(after(TEXT, { line: 1, end_line: 2, new: "", expected: "one\ntwo" }), "three two\n");
  assert.equal(after("a\nb", { line: 2, end_line: 2, new: "c" }), "a\nc");
  assert.equal(after(TEXT, { line: 4, end_line: 4, new: "four\n" }), `${TEXT}four\n`);
  assert.equal(code(TEXT, { line: 5, end_line: 5 }), "edit_conflict");
});

test("several edits are of the text as it stands", () => {
  assert.equal(after(TEXT, { old: "one", new: "two" }, { line: 2, end_line: 2, new: "2" }), "two\n2\nthree two\n");
  assert.equal(code(TEXT, { old: "one\ntwo" }, { line: 2, end_line: 2 }), "invalid_request");
});

test("lines end as Unix has them", () => {
  assert.equal(unix("a\r\nb\rc\n"), "a\nb\nc\n");
});
