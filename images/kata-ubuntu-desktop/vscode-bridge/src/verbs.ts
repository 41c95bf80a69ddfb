// Which part does which verb, and that each ends in time.

import * as debugging from "./debugging.ts";
import * as editing from "./editing.ts";
import { BridgeError } from "./errors.ts";
import * as extensions from "./extensions.ts";
import * as opening from "./opening.ts";
import type { Action, Answer } from "./protocol.ts";
import * as reading from "./reading.ts";
import * as running from "./running.ts";
import * as terminals from "./terminals.ts";
import * as testing from "./testing.ts";
import { Deadline } from "./waiting.ts";

type Verb = (action: Action, deadline: Deadline) => Promise<Answer> | Answer;

const TABLE: Record<string, Verb> = {
  open: opening.open,
  open_folder: opening.openFolder,
  state: opening.state,
  diagnostics: reading.diagnostics,
  symbols: reading.symbols,
  definition: (action, deadline) => reading.places("definition", action, deadline),
  references: (action, deadline) => reading.places("references", action, deadline),
  hover: reading.hover,
  rename: editing.rename,
  apply_edit: editing.applyEdit,
  format: editing.format,
  code_actions: editing.codeActions,
  run_task: running.runTask,
  run_tests: testing.runTests,
  debug: debugging.debug,
  terminal: terminals.terminal,
  install_extension: extensions.install,
  command: extensions.command,
};

export const VERBS = Object.keys(TABLE);
const DEFAULT_SECONDS = 20;
// What runs programs ends them at its seconds and answers what there was: that takes a moment more.
const RUNS = new Set(["run_task", "run_tests", "debug", "terminal"]);
const GRACE = 10;

export async function perform(action: Action, signal: AbortSignal): Promise<Answer> {
  const verb = Object.hasOwn(TABLE, action.type) ? TABLE[action.type] : undefined;
  if (!verb) {
    throw new BridgeError("unsupported", `The editor knows no ${String(action.type).slice(0, 100)}.`, `It can: ${VERBS.join(", ")}.`);
  }
  const seconds = action.seconds ?? DEFAULT_SECONDS;
  const deadline = new Deadline(seconds, signal);
  const whole = new Deadline(RUNS.has(action.type) ? seconds + GRACE : seconds, signal);
  return whole.within(Promise.resolve().then(() => verb(action, deadline)), `The editor's ${action.type}`);
}
