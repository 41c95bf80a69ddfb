// Which runner a project's tests have, and its command. Pure.

import { BridgeError } from "./errors.ts";
import { quoted } from "./quoting.ts";

export type Runner = "pytest" | "unittest" | "vitest" | "jest" | "node";

export interface Package {
  scripts?: Record<string, string>;
  dependencies?: Record<string, string>;
  devDependencies?: Record<string, string>;
}

const PYTHON = /(^|\/)(test_[^/]*|[^/]*_test)\.py$/;
const SCRIPT = /(^|\/)([^/]*[._-](test|spec)|test|test-[^/]*)\.[cm]?[jt]sx?$|(^|\/)(test|__tests__)\/.*\.[cm]?[jt]sx?$/;

// By the file that is asked for, or the names of the files that there are.
export function language(path: string | null, files: string[]): "python" | "script" {
  if (path !== null && /\.py$/.test(path)) return "python";
  if (path !== null && /\.[cm]?[jt]sx?$/.test(path)) return "script";
  const python = files.some((file) => PYTHON.test(file));
  const script = files.some((file) => SCRIPT.test(file));
  if (python && script) {
    throw new BridgeError("invalid_request", "There are tests of Python and of JavaScript.", "Give the path of those to run.");
  }
  if (!python && !script) {
    throw new BridgeError("file_not_found", "There are no tests by the names that runners look for.", "Give a path, or run a command as a task.");
  }
  return python ? "python" : "script";
}

export function scriptRunner(manifest: Package | null): Runner {
  const names = { ...manifest?.dependencies, ...manifest?.devDependencies };
  const test = manifest?.scripts?.["test"] ?? "";
  for (const runner of ["vitest", "jest"] as const) {
    if (new RegExp(`\\b${runner}\\b`).test(test)) return runner;
  }
  if (/\bnode\b.*--test/.test(test)) return "node";
  return "vitest" in names ? "vitest" : "jest" in names ? "jest" : "node";
}

// Those of the files that hold tests of JavaScript or TypeScript, by their names.
export function scripts(files: string[]): string[] {
  return files.filter((file) => SCRIPT.test(file));
}

export interface Wanted {
  path: string | null;
  files?: string[] | undefined; // those in it that hold tests, if it is a folder: Node takes no folders
  pattern: string | null;
  report: string; // the file that it is to write
  python: string;
}

export function command(runner: Runner, { path, files, pattern, report, python }: Wanted): string {
  const parts: (string | false | null)[] = {
    pytest: [
      ...[python, "-m", "pytest", "-o", "junit_family=xunit1", `--junitxml=${report}`],
      ...[pattern !== null && "-k", pattern, path],
    ],
    unittest: [
      ...[python, "-m", "unittest"],
      ...(path?.endsWith(".py") ? [path] : ["discover", path !== null && "-s", path]),
      ...[pattern !== null && "-k", pattern],
    ],
    node: [
      ...["node", "--test", "--test-reporter=spec", "--test-reporter-destination=stdout"],
      ...["--test-reporter=junit", `--test-reporter-destination=${report}`],
      ...[pattern !== null && `--test-name-pattern=${pattern}`, ...(files ?? [path])],
    ],
    vitest: [
      ...["npx", "--no-install", "vitest", "run", "--reporter=default", "--reporter=junit"],
      ...[`--outputFile.junit=${report}`, pattern !== null && "-t", pattern, path],
    ],
    jest: [
      ...["npx", "--no-install", "jest", "--ci", "--json", `--outputFile=${report}`],
      ...[pattern !== null && "-t", pattern, path],
    ],
  }[runner];
  return parts.filter((part) => typeof part === "string").map(quoted).join(" ");
}
