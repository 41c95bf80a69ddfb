// What is asked and answered, as Carrel's vocabulary says it (workspace/ide.py). Lines and columns
// count from 1, columns in UTF-16 code units; the end of a range is excluded.

export type Severity = "error" | "warning" | "information" | "hint";

export interface Range {
  line: number;
  column: number;
  end_line: number;
  end_column: number;
}

export interface Location {
  path: string;
  range: Range;
  text: string;
}

export interface FileEdit {
  path: string;
  new: string;
  old?: string | null;
  all?: boolean;
  line?: number | null;
  column?: number | null;
  end_line?: number | null;
  end_column?: number | null;
  expected?: string | null;
  create?: boolean;
}

// An action has been checked against its model before it comes here; what it leaves out has the
// default that the model says.
export interface Action {
  type: string;
  seconds?: number;
  [field: string]: unknown;
}

export interface Answer {
  type: string;
  [field: string]: unknown;
}

export interface Place {
  path: string;
  line: number;
  column?: number | null;
  symbol?: string | null;
}

export interface Paged {
  limit?: number;
  after?: number;
}

export interface FailedTest {
  name: string;
  message: string;
  path: string;
  line: number | null;
}

export interface Counts {
  passed: number | null;
  failed: number | null;
  skipped: number | null;
  failures: FailedTest[];
}

export const MAX_FILE_BYTES = 8 << 20;
export const MAX_OUTPUT_CHARS = 200_000;
export const DEFAULT_LIMIT = 100;

// One page of what there is, and where the next begins.
export function page<T>(all: T[], { limit = DEFAULT_LIMIT, after = 0 }: Paged) {
  const rows = all.slice(after, after + limit);
  const end = after + rows.length;
  return { rows, total: all.length, next: end < all.length ? end : null };
}
