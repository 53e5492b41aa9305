/**
 * A mistake of the person at the keyboard: wrong usage, configuration or input file. Commands
 * print its one line (what, which value, the way out) without a stack trace and exit with 2.
 */
export class UserError extends Error {
  /** The name of the class, for printed errors. */
  override readonly name = "UserError";

  /**
   * An error of one line.
   *
   * @param message line ends in what it quotes are written as `\\n`
   */
  constructor(message: string, options?: ErrorOptions) {
    super(message.replaceAll("\r", "\\r").replaceAll("\n", "\\n"), options);
  }
}

/** Memory that the adapter does not have; the message says how much for what. */
export class MemoryError extends RangeError {
  /** Tells it from other errors where classes are not compared. */
  override readonly name = "MemoryError";
}

/** A file or folder that cannot be written, e.g. on a full disk: one line, with the way out. */
export class WriteError extends Error {
  /** The name of the class, for printed errors. */
  override readonly name = "WriteError";
}
