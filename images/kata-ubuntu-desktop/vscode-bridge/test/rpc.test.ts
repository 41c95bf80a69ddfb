import assert from "node:assert/strict";
import test from "node:test";
import { BridgeError } from "../src/errors.ts";
import { failure, LineTooLong, Lines, MAX_LINE_BYTES, request, success } from "../src/rpc.ts";

test("lines are put together from chunks, wherever they are cut", () => {
  const bytes = Buffer.from('{"a":"é😀"}\n\n{"b":1}\n{"c"');
  for (let cut = 0; cut <= bytes.length; cut++) {
    const lines = new Lines();
    const found = [...lines.push(bytes.subarray(0, cut)), ...lines.push(bytes.subarray(cut))];
    assert.deepEqual(found, ['{"a":"é😀"}', "", '{"b":1}']);
  }
});

test("a line has a limit, whether it ends or not", () => {
  assert.deepEqual(new Lines(4).push(Buffer.from("1234\n1234\n")), ["1234", "1234"]);
  assert.throws(() => new Lines(4).push(Buffer.from("12345")), LineTooLong);
  const lines = new Lines(4);
  lines.push(Buffer.from("123"));
  assert.throws(() => lines.push(Buffer.from("45\n")), LineTooLong);
});

test("what is no request is refused by its answer", () => {
  const refused = (line: string) => {
    const found = request(line);
    return "refused" in found ? JSON.parse(found.refused).error.code : null;
  };
  assert.deepEqual(request('{"id":1,"method":"do","params":{"type":"state"}}'), { id: 1, method: "do", params: { type: "state" } });
  assert.deepEqual(request('{"id":"a","method":"hello"}'), { id: "a", method: "hello", params: {} });
  assert.equal(refused("{"), -32700);
  for (const line of ["1", "null", "[]", "{}", '{"id":{},"method":"do"}', '{"id":1}', '{"id":1,"method":"do","params":[]}']) {
    assert.equal(refused(line), -32600, line);
  }
});

test("answers are one line each, and errors say code and hint", () => {
  assert.equal(success(1, { text: "a\nb" }), '{"jsonrpc":"2.0","id":1,"result":{"text":"a\\nb"}}\n');
  const { error } = JSON.parse(failure(1, -32000, "why", new BridgeError("edit_conflict", "why", "what")));
  assert.deepEqual(error, { code: -32000, message: "why", data: { code: "edit_conflict", message: "why", hint: "what" } });
  const { error: large } = JSON.parse(success(1, "x".repeat(MAX_LINE_BYTES)));
  assert.equal(large.data.code, "too_large");
});
