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

/** An error that the GPU reported, or its loss: nothing that was computed since is to be trusted. */
export class GpuError extends Error {
  /** The name of the class, for printed errors. */
  override readonly name = "GpuError";

  /**
   * An error of one line.
   *
   * @param message as the driver words it: line ends are written as spaces
   */
  constructor(message: string, options?: ErrorOptions) {
    super(message.trim().replaceAll(/\s*[\r\n]+\s*/g, " "), options);
  }
}
