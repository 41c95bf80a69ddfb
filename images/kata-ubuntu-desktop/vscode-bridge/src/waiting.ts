// Time, as every verb has it: what VS Code and its extensions do may never end, so nothing is awaited
// but within a request's own seconds.

import { BridgeError } from "./errors.ts";

export class Deadline {
  readonly signal: AbortSignal;
  readonly seconds: number;
  readonly #end: number;

  constructor(seconds: number, signal: AbortSignal) {
    this.seconds = seconds;
    this.signal = signal;
    this.#end = performance.now() + seconds * 1000;
  }

  get leftMs(): number {
    return Math.max(0, this.#end - performance.now());
  }

  // The promise's value, or an error that says what was waited for.
  async within<T>(promise: PromiseLike<T>, what: string, ms = Infinity): Promise<T> {
    let stop = () => {};
    const over = new Promise<never>((_, reject) => {
      const cancelled = () => reject(new BridgeError("timed_out", "The request was cancelled."));
      if (this.signal.aborted) return cancelled();
      const late = () => {
        const seconds = Math.round(Math.min(ms / 1000, this.seconds) * 10) / 10;
        reject(new BridgeError("timed_out", `${what} took more than ${seconds} s.`));
      };
      const timer = setTimeout(late, Math.min(this.leftMs, ms));
      this.signal.addEventListener("abort", cancelled, { once: true });
      stop = () => {
        clearTimeout(timer);
        this.signal.removeEventListener("abort", cancelled);
      };
    });
    try {
      return await Promise.race([promise, over]);
    } finally {
      stop();
    }
  }

  // Whether it came to be so within the milliseconds; looked at now and again.
  async until(isSo: () => boolean, ms: number, everyMs = 20): Promise<boolean> {
    const end = performance.now() + Math.min(ms, this.leftMs);
    while (!isSo()) {
      if (this.signal.aborted) throw new BridgeError("timed_out", "The request was cancelled.");
      if (performance.now() >= end) return false;
      await sleep(everyMs);
    }
    return true;
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

// One after the other: what changes files reads them first, and nobody else may change them between; and
// one program is debugged at a time.
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  async take<T>(deadline: Deadline, work: () => Promise<T>, what = "What other requests do to files"): Promise<T> {
    const before = this.#last;
    let done = () => {};
    this.#last = new Promise<void>((resolve) => (done = resolve)).then(() => before);
    try {
      await deadline.within(before, what);
      return await work();
    } finally {
      done();
    }
  }
}
