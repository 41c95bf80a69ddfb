// Words for bash. Pure.

export function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

export function escaped(word: string): string {
  return word.replace(/[^\w@%+=:,./-]/g, "\\$&");
}
