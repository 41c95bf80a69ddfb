// install_extension and command.

import { stat } from "node:fs/promises";
import * as vscode from "vscode";
import { BridgeError, words } from "./errors.ts";
import { absolute } from "./places.ts";
import type { Action, Answer } from "./protocol.ts";
import { manifest } from "./vsix.ts";
import type { Deadline } from "./waiting.ts";

const INSTALL = "workbench.extensions.installExtension";
const MAX_VALUE = 1_000_000; // characters of JSON
const SEEN_MS = 5000;

export async function install(action: Action, deadline: Deadline): Promise<Answer> {
  let id = String(action["id"]);
  let version = "";
  let what: vscode.Uri | string = id;
  if (action["path"] != null) {
    const path = absolute(String(action["path"]));
    const found = await stat(path).catch(() => null);
    if (!found) throw new BridgeError("file_not_found", `There is no file ${path}.`);
    if (!found.isFile()) throw new BridgeError("invalid_request", `${path} is no file.`);
    ({ id, version } = await deadline.within(manifest(path), "Reading the VSIX"));
    what = vscode.Uri.file(path);
  }
  try {
    await deadline.within(vscode.commands.executeCommand(INSTALL, what), "The installation");
  } catch (error) {
    if (error instanceof BridgeError) throw error;
    throw new BridgeError("ide_failed", `It cannot be installed: ${words(error)}`, "Check its id, or bring its VSIX.");
  }
  // One that replaces another is seen after a restart of the extension host only.
  await deadline.until(() => vscode.extensions.getExtension(id) !== undefined, SEEN_MS);
  return { type: "install_extension", id, version: version || (vscode.extensions.getExtension(id)?.packageJSON.version ?? "") };
}

export async function command(action: Action, deadline: Deadline): Promise<Answer> {
  const id = String(action["id"]);
  let value: unknown;
  try {
    const args = (action["args"] as unknown[] | undefined) ?? [];
    value = await deadline.within(vscode.commands.executeCommand(id, ...args), `The command ${id}`);
  } catch (error) {
    if (error instanceof BridgeError) throw error;
    if (words(error) === `command '${id}' not found`) {
      throw new BridgeError("invalid_request", `The editor has no command ${id}.`);
    }
    throw new BridgeError("ide_failed", `The command ${id} failed: ${words(error)}`);
  }
  return { type: "command", value: plain(value) };
}

// What JSON can say of a value; null where it cannot, or where that is too long.
function plain(value: unknown): unknown {
  try {
    const text = JSON.stringify(value);
    return text === undefined || text.length > MAX_VALUE ? null : JSON.parse(text);
  } catch {
    return null;
  }
}
