// Carrel's bridge into VS Code: what an agent may ask of an editor, served on a unix socket. It does
// nothing where no desktop has started the editor, that is without CARREL_IDE_DIR and CARREL_IDE_TOKEN.

import { join } from "node:path";
import * as vscode from "vscode";
import * as analysis from "./analysis.ts";
import * as debugging from "./debugging.ts";
import * as documents from "./documents.ts";
import { folder } from "./places.ts";
import * as processes from "./processes.ts";
import * as python from "./python.ts";
import { BridgeServer } from "./server.ts";
import * as terminals from "./terminals.ts";
import { perform, VERBS } from "./verbs.ts";

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const { CARREL_IDE_DIR: dir, CARREL_IDE_TOKEN: token } = process.env;
  if (!dir || !token) return;
  // Nobody but this extension is to know it: not what it starts, nor what terminals and tasks run.
  delete process.env["CARREL_IDE_TOKEN"];
  context.environmentVariableCollection.persistent = false;
  context.environmentVariableCollection.replace("CARREL_IDE_TOKEN", "");

  context.subscriptions.push(
    ...[documents, analysis, processes, terminals, debugging].map((part) => part.follow()),
  );
  const server = new BridgeServer(join(dir, "bridge.sock"), token, {
    hello: () => ({ name: vscode.env.appName, version: vscode.version, folder: folder(), can: VERBS, pid: process.pid }),
    perform,
  });
  context.subscriptions.push({ dispose: () => server.close() });
  python.activate(context);
  await server.listen();
}
