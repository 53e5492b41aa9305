/**
 * A mistake of the person at the keyboard: wrong usage, configuration or input file. Commands
 * print its one line (what, which value, the way out) without a stack trace and exit with 2.
 */
export class UserError extends Error {
  /** The name of the class, for printed errors. */
  override readonly name = "UserError";
}
