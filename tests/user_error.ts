/** The errors that people see: one plain line that starts with a capital and has no full stop. */
import assert from "node:assert/strict";
import { UserError } from "../src/errors.ts";

function messageOf(error: unknown): string {
  assert(error instanceof UserError, `not a UserError: ${error}`);
  assert.match(error.message, /^[A-Z][^\n]*[^.\n]$/);
  return error.message;
}

/** The message of the UserError that `body` throws. */
export function userError(body: () => unknown): string {
  try {
    body();
  } catch (error) {
    return messageOf(error);
  }
  throw new assert.AssertionError({ message: "nothing was thrown" });
}

/** Expects that `action` rejects with a UserError that says `message`. */
export async function refuses(action: () => Promise<unknown>, message: RegExp): Promise<void> {
  await assert.rejects(action, (error) => {
    assert.match(messageOf(error), message);
    return true;
  });
}
