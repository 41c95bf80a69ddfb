// What test runners write of their runs, read into Carrel's words: JUnit's XML, Jest's JSON, and the
// text of unittest. Pure; a report was written by the project's own programs, and may be anything.

import { SaxesParser } from "saxes";
import type { Counts, FailedTest } from "./protocol.ts";

const MAX_FAILURES = 200;
const MAX_MESSAGE = 4000;
const MAX_NAME = 500;
const NOTHING: Counts = { passed: null, failed: null, skipped: null, failures: [] };

interface Case {
  attributes: Record<string, string>;
  suites: string[];
  outcome: "passed" | "failed" | "skipped";
  message: string;
}

export function junit(xml: string): Counts {
  const cases: Case[] = [];
  const suites: string[] = [];
  let current: Case | null = null;
  let text: string | null = null; // of the failure that is being read
  let isBroken = false;
  const parser = new SaxesParser();
  parser.on("error", () => (isBroken = true));
  parser.on("opentag", ({ name, attributes }) => {
    const given = attributes as Record<string, string>;
    if (name === "testsuite") suites.push(given["name"] ?? "");
    if (name === "testcase") current = { attributes: given, suites: [...suites], outcome: "passed", message: "" };
    if (!current) return;
    if (name === "failure" || name === "error") {
      current.outcome = "failed";
      current.message ||= given["message"] ?? "";
      text = "";
    }
    if (name === "skipped" && current.outcome === "passed") current.outcome = "skipped";
  });
  const take = (part: string) => {
    if (text !== null) text += part;
  };
  parser.on("text", take);
  parser.on("cdata", take);
  parser.on("closetag", ({ name }) => {
    if (name === "testsuite") suites.pop();
    if (name === "testcase" && current) {
      cases.push(current);
      current = null;
    }
    if ((name === "failure" || name === "error") && current) {
      if (text?.trim()) current.message = text.trim();
      text = null;
    }
  });
  parser.write(xml).close();
  if (isBroken) return NOTHING;
  const count = (outcome: Case["outcome"]) => cases.filter((one) => one.outcome === outcome).length;
  const failures = cases.filter((one) => one.outcome === "failed").slice(0, MAX_FAILURES).map(failed);
  return { passed: count("passed"), failed: count("failed"), skipped: count("skipped"), failures };
}

function failed({ attributes, suites, message }: Case): FailedTest {
  const { name = "", classname = "", file = "", line } = attributes;
  const where = place(message, file);
  const inside = suites.filter((suite) => suite !== classname); // Vitest has a suite for each file
  return {
    name: (file.endsWith(".py") ? nodeId(file, classname, name) : [...inside, name].join(" > ")).slice(0, MAX_NAME),
    message: shortened(message),
    path: where?.path ?? file,
    line: where?.line ?? (line === undefined ? null : Number(line) + 1), // pytest's own begin with 0
  };
}

// As pytest takes it on its command line.
function nodeId(file: string, classname: string, name: string): string {
  const module = file.slice(0, -3).replaceAll("/", ".");
  const inside = classname.startsWith(`${module}.`) ? classname.slice(module.length + 1).split(".") : [];
  return [file, ...inside, name].join("::");
}

// Where it failed: in a traceback of pytest the last place, in a stack of JavaScript's the first.
function place(message: string, file: string): { path: string; line: number } | null {
  if (file.endsWith(".py")) {
    const last = [...message.matchAll(/^(\S+\.py):(\d+): /gm)].at(-1);
    return last ? { path: last[1]!, line: Number(last[2]) } : null;
  }
  for (const [, path, line] of message.matchAll(/(?:file:\/\/|\(|\s)(\/[^\s():]+):(\d+):\d+/g)) {
    if (!path!.includes("/node_modules/")) return { path: path!, line: Number(line) };
  }
  return null;
}

interface JestReport {
  numPassedTests?: number;
  numFailedTests?: number;
  numPendingTests?: number;
  numTodoTests?: number;
  testResults?: {
    name?: string;
    message?: string;
    status?: string;
    assertionResults?: { fullName?: string; status?: string; failureMessages?: string[] }[];
  }[];
}

export function jest(json: string): Counts {
  let report: JestReport;
  try {
    report = JSON.parse(json);
  } catch {
    return NOTHING;
  }
  if (typeof report !== "object" || report === null || typeof report.numPassedTests !== "number") return NOTHING;
  const failures: FailedTest[] = [];
  let broken = 0; // files that could not be run have no tests of their own
  for (const file of report.testResults ?? []) {
    const results = file.assertionResults ?? [];
    const path = file.name ?? "";
    if (file.status === "failed" && results.length === 0) {
      broken += 1;
      failures.push({ name: path, message: shortened(file.message ?? ""), path, line: null });
    }
    for (const result of results.filter((one) => one.status === "failed")) {
      const message = (result.failureMessages ?? []).join("\n");
      const where = place(message, "");
      failures.push({
        name: (result.fullName ?? "").slice(0, MAX_NAME),
        message: shortened(message),
        path: where?.path ?? path,
        line: where?.line ?? null,
      });
    }
  }
  return {
    passed: report.numPassedTests,
    failed: (report.numFailedTests ?? 0) + broken,
    skipped: (report.numPendingTests ?? 0) + (report.numTodoTests ?? 0),
    failures: failures.slice(0, MAX_FAILURES),
  };
}

export function unittest(output: string): Counts {
  const ran = output.match(/^Ran (\d+) tests? in /m);
  const end = output.match(/^(?:OK|FAILED|NO TESTS RAN)(?: \(([^)]*)\))?\s*$/m);
  if (!ran || !end) return NOTHING;
  const told: Record<string, number> = {};
  for (const [, what, number] of (end[1] ?? "").matchAll(/([a-z ]+)=(\d+)/g)) told[what!.trim()] = Number(number);
  const failed = (told["failures"] ?? 0) + (told["errors"] ?? 0) + (told["unexpected successes"] ?? 0);
  const skipped = (told["skipped"] ?? 0) + (told["expected failures"] ?? 0);
  const failures: FailedTest[] = [];
  const block = /^={70}\n(?:FAIL|ERROR): (\S+)(?: \(([^)]*)\))?.*\n(?:.*\n)??-{70}\n([\s\S]*?)(?=\n={70}\n|\n-{70}\nRan )/gm;
  for (const [, method, of, trace] of output.matchAll(block)) {
    const at = [...trace!.matchAll(/^ {2}File "([^"]+)", line (\d+)/gm)].at(-1);
    const name = of && !of.endsWith(`.${method}`) ? `${of}.${method}` : (of ?? method!);
    failures.push({ name, message: shortened(trace!.trim()), path: at?.[1] ?? "", line: at ? Number(at[2]) : null });
  }
  return { passed: Math.max(0, Number(ran[1]) - failed - skipped), failed, skipped, failures: failures.slice(0, MAX_FAILURES) };
}

function shortened(message: string): string {
  if (message.length <= MAX_MESSAGE) return message;
  return `${message.slice(0, MAX_MESSAGE / 2)}\n...\n${message.slice(-MAX_MESSAGE / 2)}`;
}
