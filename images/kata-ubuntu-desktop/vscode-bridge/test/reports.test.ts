import assert from "node:assert/strict";
import test from "node:test";
import { jest, junit, unittest } from "../src/reports.ts";

const NOTHING = { passed: null, failed: null, skipped: null, failures: [] };

test("pytest's report", () => {
  const counts = junit(`<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" tests="4">
    <testcase classname="tests.test_a.TestIt" name="test_ok[1&#x3c;2]" file="tests/test_a.py" line="3" time="0.1"/>
    <testcase classname="tests.test_a.TestIt" name="test_bad" file="tests/test_a.py" line="7"><failure message="assert 1 == 2">def test_bad():
&gt;       f()

tests/test_a.py:9:
_ _ _
src/a.py:2: AssertionError</failure></testcase>
    <testcase classname="tests.test_a" name="test_broken" file="tests/test_a.py" line="11"><error message="failed on setup"/></testcase>
    <testcase classname="tests.test_a" name="test_not" file="tests/test_a.py" line="13"><skipped type="pytest.skip" message="no">no</skipped></testcase>
  </testsuite></testsuites>`);
  assert.deepEqual([counts.passed, counts.failed, counts.skipped], [1, 2, 1]);
  const [bad, broken] = counts.failures;
  assert.equal(bad?.name, "tests/test_a.py::TestIt::test_bad");
  assert.deepEqual([bad?.path, bad?.line], ["src/a.py", 2]);
  assert.match(bad!.message, /^def test_bad/);
  assert.deepEqual([broken?.message, broken?.path, broken?.line], ["failed on setup", "tests/test_a.py", 12]);
});

test("the report of node --test", () => {
  const counts = junit(`<?xml version="1.0" encoding="utf-8"?>
<testsuites>
	<testsuite name="sums" tests="2" failures="1" skipped="0" hostname="h">
		<testcase name="adds" time="0.1" classname="test"/>
		<testcase name="takes" time="0.1" classname="test" failure="1 == 2">
			<failure type="testCodeFailure" message="1 == 2">
[Error [ERR_TEST_FAILURE]: 1 == 2] {
  cause: AssertionError: 1 == 2
      at lib (/p/node_modules/x/i.js:1:1)
      at TestContext.&lt;anonymous&gt; (file:///p/a.test.ts:4:28)
}
			</failure>
		</testcase>
	</testsuite>
	<testcase name="alone" time="0.1" classname="test"><skipped type="skipped" message="true"/></testcase>
	<!-- tests 3 -->
</testsuites>`);
  assert.deepEqual([counts.passed, counts.failed, counts.skipped], [1, 1, 1]);
  assert.equal(counts.failures[0]?.name, "sums > takes");
  assert.deepEqual([counts.failures[0]?.path, counts.failures[0]?.line], ["/p/a.test.ts", 4]);
});

test("Jest's report", () => {
  const counts = jest(
    JSON.stringify({
      ...{ numPassedTests: 2, numFailedTests: 1, numPendingTests: 1, numTodoTests: 0 },
      testResults: [
        {
          ...{ name: "/p/a.test.js", status: "failed" },
          assertionResults: [{ fullName: "a b", status: "failed", failureMessages: ["Error: x\n    at f (/p/a.js:3:4)"] }],
        },
        { name: "/p/b.test.js", status: "failed", message: "SyntaxError", assertionResults: [] },
      ],
    }),
  );
  assert.deepEqual([counts.passed, counts.failed, counts.skipped], [2, 2, 1]);
  assert.deepEqual(counts.failures.map((one) => [one.name, one.path, one.line]), [
    ["a b", "/p/a.js", 3],
    ["/p/b.test.js", "/p/b.test.js", null],
  ]);
});

test("what unittest prints", () => {
  const line = "-".repeat(70);
  const counts = unittest(`.F.s
${"=".repeat(70)}
FAIL: test_bad (tests.test_a.TestIt.test_bad)
${line}
Traceback (most recent call last):
  File "/p/tests/test_a.py", line 8, in test_bad
    self.assertEqual(1, 2)
AssertionError: 1 != 2

${line}
Ran 4 tests in 0.001s

FAILED (failures=1, skipped=1)
`);
  assert.deepEqual([counts.passed, counts.failed, counts.skipped], [2, 1, 1]);
  assert.deepEqual([counts.failures[0]?.name, counts.failures[0]?.line], ["tests.test_a.TestIt.test_bad", 8]);
  assert.equal(unittest(`${line}\nRan 2 tests in 0.1s\n\nOK\n`).passed, 2);
});

test("what is no report says nothing, whatever it is", () => {
  for (const text of ["", "nope", "<testsuites><testcase", "<a></b>", '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>']) {
    assert.deepEqual(junit(text), text === "" ? junit("") : NOTHING, text);
  }
  for (const text of ["", "{}", "[]", "null", "1"]) assert.deepEqual(jest(text), NOTHING);
  assert.deepEqual(unittest("Traceback"), NOTHING);
});

test("a report is read to its limits", () => {
  const one = `<testcase name="t"><failure message="m">${"x".repeat(10_000)}</failure></testcase>`;
  const counts = junit(`<testsuites>${one.repeat(300)}</testsuites>`);
  assert.equal(counts.failed, 300);
  assert.equal(counts.failures.length, 200);
  assert.ok(counts.failures[0]!.message.length < 4100);
});
