import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import test from "node:test";
import { escaped, quoted } from "../src/quoting.ts";
import { command, language, scriptRunner, scripts } from "../src/runners.ts";

const code = (work: () => unknown) => {
  try {
    work();
  } catch (error) {
    return (error as { code: string }).code;
  }
  return null;
};

test("the language is that of the file, or of the tests that there are", () => {
  assert.equal(language("tests/test_a.py", []), "python");
  assert.equal(language("a.test.ts", ["test_a.py"]), "script");
  for (const file of ["test_a.py", "tests/a_test.py"]) assert.equal(language(null, [file, "a.ts"]), "python");
  for (const file of ["a.test.ts", "src/a.spec.jsx", "test/a.js", "test.mjs", "a-test.js"]) assert.equal(language(null, [file, "a.py"]), "script");
  assert.equal(code(() => language(null, ["test_a.py", "a.test.ts"])), "invalid_request");
  assert.equal(code(() => language(null, ["a.py", "latest.ts", "contest.js", "LATEST.ts", "aZtest.js"])), "file_not_found");
});

test("the runner is that of the package's test script, then of what it depends on", () => {
  assert.equal(scriptRunner(null), "node");
  assert.equal(scriptRunner({ devDependencies: { jest: "1" } }), "jest");
  assert.equal(scriptRunner({ scripts: { test: "vitest run" }, devDependencies: { jest: "1" } }), "vitest");
  assert.equal(scriptRunner({ scripts: { test: "node --test" }, devDependencies: { jest: "1" } }), "node");
});

test("Node is given the files of a folder", () => {
  const files = scripts(["t/a.test.ts", "t/b.ts", "t/c-test.mjs"]);
  const line = command("node", { path: "t", files, pattern: null, report: "/r", python: "" });
  assert.deepEqual(line.split(" ").slice(-2), ["t/a.test.ts", "t/c-test.mjs"]);
});

test("what is asked for is one word of the command, whatever is in it", () => {
  const nasty = `a b'"$(touch x)\`;*\n\\`;
  const wanted = { path: nasty, pattern: nasty, report: "/tmp/r", python: "python3" };
  for (const runner of ["pytest", "unittest", "node", "vitest", "jest"] as const) {
    const line = command(runner, wanted);
    const words = execFileSync("bash", ["-c", `printf '%s\\0' ${line}`]).toString().split("\0");
    assert.ok(words.some((word) => word.endsWith(nasty)), runner);
  }
  for (const quote of [quoted, escaped]) {
    const word = nasty.replace("\n", "");
    assert.equal(execFileSync("bash", ["-c", `printf %s ${quote(word)}`]).toString(), word);
  }
});
