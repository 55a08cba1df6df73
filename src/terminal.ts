/**
 * Text for a terminal that may come from outside: a file's name, an argument, an answer. What would move the cursor, turn
 * the direction of reading or be obeyed otherwise is shown instead.
 */
export function printable(text: string): string {
  return text.replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) =>
    character === '\n' ? character : `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
  )
}
