// Newline-delimited JSON-RPC 2.0: lines out of chunks, requests out of lines. Pure.

import type { BridgeError } from "./errors.ts";

export const MAX_LINE_BYTES = 16 << 20;

export class LineTooLong extends Error {}

// Puts chunks together to lines. What is not yet a whole line is kept, up to the limit.
export class Lines {
  #parts: Buffer[] = [];
  #size = 0;
  readonly #limit: number;

  constructor(limit = MAX_LINE_BYTES) {
    this.#limit = limit;
  }

  push(chunk: Buffer): string[] {
    const lines: string[] = [];
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      this.#keep(chunk.subarray(start, end));
      lines.push(Buffer.concat(this.#parts).toString("utf8"));
      this.#parts = [];
      this.#size = 0;
      start = end + 1;
    }
    if (start < chunk.length) this.#keep(chunk.subarray(start));
    return lines;
  }

  #keep(part: Buffer): void {
    this.#size += part.length;
    if (this.#size > this.#limit) throw new LineTooLong(`a line has more than ${this.#limit} bytes`);
    this.#parts.push(part);
  }
}

export type Id = string | number;

export interface Request {
  id: Id;
  method: string;
  params: Record<string, unknown>;
}

export const PARSE_ERROR = -32700;
export const BAD_REQUEST = -32600;
export const NO_METHOD = -32601;
export const FAILED = -32000;

// The request in a line, or the answer that says why it is none.
export function request(line: string): Request | { refused: string } {
  let message: unknown;
  try {
    message = JSON.parse(line);
  } catch {
    return { refused: failure(null, PARSE_ERROR, "that is not JSON") };
  }
  if (typeof message !== "object" || message === null || Array.isArray(message)) {
    return { refused: failure(null, BAD_REQUEST, "a request is an object") };
  }
  const { id, method, params = {} } = message as Record<string, unknown>;
  if (typeof id !== "string" && typeof id !== "number") {
    return { refused: failure(null, BAD_REQUEST, "a request has an id") };
  }
  if (typeof method !== "string") {
    return { refused: failure(id, BAD_REQUEST, "a request has a method") };
  }
  if (typeof params !== "object" || params === null || Array.isArray(params)) {
    return { refused: failure(id, BAD_REQUEST, "params are an object") };
  }
  return { id, method, params: params as Record<string, unknown> };
}

export function success(id: Id, result: unknown): string {
  const line = `${JSON.stringify({ jsonrpc: "2.0", id, result })}\n`;
  if (Buffer.byteLength(line) <= MAX_LINE_BYTES) return line;
  const data = { code: "too_large", message: "The answer has more than 16 MiB.", hint: "Ask for less." };
  return `${JSON.stringify({ jsonrpc: "2.0", id, error: { code: FAILED, message: data.message, data } })}\n`;
}

export function failure(id: Id | null, code: number, message: string, error?: BridgeError): string {
  const data = error
    ? { code: error.code, message: error.message, hint: error.hint }
    : { code: "invalid_request", message, hint: "" };
  return `${JSON.stringify({ jsonrpc: "2.0", id, error: { code, message, data } })}\n`;
}
