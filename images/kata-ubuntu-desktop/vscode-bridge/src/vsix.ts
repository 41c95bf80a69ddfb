// Who an extension is, from the VSIX that it comes in.

import * as yauzl from "yauzl";
import { BridgeError, words } from "./errors.ts";

const MANIFEST = "extension/package.json";
const MAX_MANIFEST = 4 << 20;

// Raises invalid_request for what is no VSIX.
export async function manifest(path: string): Promise<{ id: string; version: string }> {
  let read: { publisher?: unknown; name?: unknown; version?: unknown };
  try {
    read = JSON.parse(await entry(path));
  } catch (error) {
    throw new BridgeError("invalid_request", `${path} is no VSIX: ${words(error)}`, "Give a file that vsce packed.");
  }
  const { publisher, name, version } = read;
  if (typeof publisher !== "string" || typeof name !== "string" || typeof version !== "string") {
    throw new BridgeError("invalid_request", `${path} has no publisher, name and version.`, "Pack it by vsce.");
  }
  return { id: `${publisher}.${name}`, version };
}

function entry(path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    yauzl.open(path, { lazyEntries: true }, (error, zip) => {
      if (error || !zip) return reject(error);
      const fail = (why: unknown) => {
        zip.close();
        reject(why);
      };
      zip.on("error", fail);
      zip.on("end", () => fail(new Error(`it has no ${MANIFEST}`)));
      zip.on("entry", (found: yauzl.Entry) => {
        if (found.fileName !== MANIFEST) return zip.readEntry();
        if (found.uncompressedSize > MAX_MANIFEST) return fail(new Error(`its ${MANIFEST} is too large`));
        zip.openReadStream(found, (refused, stream) => {
          if (refused || !stream) return fail(refused);
          const parts: Buffer[] = [];
          stream.on("data", (part: Buffer) => parts.push(part));
          stream.on("error", fail);
          stream.on("end", () => {
            zip.close();
            resolve(Buffer.concat(parts).toString("utf8"));
          });
        });
      });
      zip.readEntry();
    });
  });
}
