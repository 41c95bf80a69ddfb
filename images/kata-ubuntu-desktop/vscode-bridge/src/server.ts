// The socket that desktopd speaks to. Who knows the token may use the editor as its user does; so the
// socket lies in a folder of its user's alone, and whoever says anything before a right hello is cut
// off. Several requests run at once, and are answered as they end.

import { timingSafeEqual } from "node:crypto";
import { chmodSync, statSync, unlinkSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { asBridgeError, BridgeError } from "./errors.ts";
import type { Action, Answer } from "./protocol.ts";
import * as rpc from "./rpc.ts";

const MAX_CONNECTIONS = 8;
const MAX_REQUESTS = 64; // at once, of one connection
const HELLO_MS = 10_000;

export interface Service {
  hello(): object;
  // Ends by the signal at the latest soon after it.
  perform(action: Action, signal: AbortSignal): Promise<Answer>;
}

export class BridgeServer {
  readonly #server: Server;
  readonly #connections = new Set<Socket>();
  readonly #path: string;
  readonly #token: Buffer;
  readonly #service: Service;
  #inode = 0;

  constructor(path: string, token: string, service: Service) {
    this.#path = path;
    this.#token = Buffer.from(token);
    this.#service = service;
    this.#server = createServer((socket) => this.#serve(socket));
    this.#server.maxConnections = MAX_CONNECTIONS;
  }

  // Takes the socket's place from an extension host before this one.
  async listen(): Promise<void> {
    remove(this.#path);
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(this.#path, resolve);
    });
    chmodSync(this.#path, 0o600);
    this.#inode = statSync(this.#path).ino;
  }

  close(): void {
    for (const socket of this.#connections) socket.destroy();
    this.#server.close();
    try {
      // Another extension host may have taken the place already.
      if (statSync(this.#path).ino === this.#inode) unlinkSync(this.#path);
    } catch {
      // It is gone.
    }
  }

  #serve(socket: Socket): void {
    const lines = new rpc.Lines();
    const running = new Map<rpc.Id, AbortController>();
    let greeted = false;
    const patience = setTimeout(() => socket.destroy(), HELLO_MS);
    this.#connections.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      clearTimeout(patience);
      this.#connections.delete(socket);
      for (const controller of running.values()) controller.abort();
    });
    socket.on("data", (chunk) => {
      try {
        for (const line of lines.push(chunk)) {
          const request = rpc.request(line);
          if ("refused" in request) {
            if (greeted) socket.write(request.refused);
            else socket.destroy();
          } else if (greeted) {
            this.#answer(socket, request, running);
          } else if (request.method === "hello" && this.#knows(request.params["token"])) {
            greeted = true;
            clearTimeout(patience);
            socket.write(rpc.success(request.id, this.#service.hello()));
          } else {
            socket.destroy();
          }
          if (socket.destroyed) return;
        }
      } catch (error) {
        if (!(error instanceof rpc.LineTooLong)) throw error;
        socket.end(rpc.failure(null, rpc.BAD_REQUEST, error.message), () => socket.destroy());
        socket.removeAllListeners("data");
      }
    });
  }

  #knows(token: unknown): boolean {
    const given = Buffer.from(typeof token === "string" ? token : "");
    return given.length === this.#token.length && timingSafeEqual(given, this.#token);
  }

  #answer(socket: Socket, request: rpc.Request, running: Map<rpc.Id, AbortController>): void {
    const { id, method, params } = request;
    if (method === "hello") {
      socket.write(rpc.success(id, this.#service.hello()));
    } else if (method === "cancel") {
      const other = params["id"] as rpc.Id;
      running.get(other)?.abort();
      socket.write(rpc.success(id, { cancelled: running.has(other) }));
    } else if (method !== "do") {
      socket.write(rpc.failure(id, rpc.NO_METHOD, `there is no method ${method.slice(0, 100)}`));
    } else if (running.has(id) || running.size >= MAX_REQUESTS) {
      const why = running.has(id) ? "that id is in use" : `${MAX_REQUESTS} requests run already`;
      socket.write(rpc.failure(id, rpc.BAD_REQUEST, why));
    } else {
      const controller = new AbortController();
      running.set(id, controller);
      this.#service
        .perform(params as unknown as Action, controller.signal)
        .then((answer) => rpc.success(id, answer))
        .catch((error) => {
          const known = asBridgeError(error);
          return rpc.failure(id, rpc.FAILED, known.message, known);
        })
        .then((line) => {
          running.delete(id);
          if (!socket.destroyed) socket.write(line);
        });
    }
  }
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
      throw new BridgeError("ide_failed", `the socket's place ${path} is taken: ${String(error)}`);
    }
  }
}
