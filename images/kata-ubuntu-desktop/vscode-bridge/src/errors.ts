// Errors as Carrel says them: a stable code, what failed and why, and what to do next.

export type Code =
  | "invalid_request"
  | "file_not_found"
  | "is_a_directory"
  | "not_a_directory"
  | "file_exists"
  | "too_large"
  | "unsupported"
  | "edit_conflict"
  | "not_debugging"
  | "timed_out"
  | "ide_not_ready"
  | "ide_failed";

const HINTS: Partial<Record<Code, string>> = {
  invalid_request: "Correct the request and send it again.",
  file_not_found: "List the folder to see what is there.",
  edit_conflict: "Read the file again, then edit it as it stands now.",
  not_debugging: "Start debugging, and let the program come to a breakpoint.",
  timed_out: "Give it more seconds, or look at the window to see what it waits for.",
  ide_failed: "Look at the window to see what the editor says.",
};

export class BridgeError extends Error {
  readonly code: Code;
  readonly hint: string;

  constructor(code: Code, message: string, hint?: string) {
    super(message);
    this.code = code;
    this.hint = hint ?? HINTS[code] ?? "";
  }
}

// What VS Code and language servers throw is no error of ours: their words are passed on, cut.
export function words(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.length > 2000 ? `${text.slice(0, 2000)}...` : text;
}

export function asBridgeError(error: unknown): BridgeError {
  return error instanceof BridgeError ? error : new BridgeError("ide_failed", words(error));
}
