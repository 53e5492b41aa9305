/**
 * What a JSON value must look like, so that nobody reads numbers out of a file that has none.
 *
 * @module
 */

/** Says what is wrong with a value, `<where> is …`; null: nothing. */
export type Shape = (value: unknown, where: string) => string | null;

/** A text. */
export const aText: Shape = when((value) => typeof value === "string", "a text");
/** A number; JSON's `1e999` is none. */
export const aNumber: Shape = when(Number.isFinite, "a number");
/** True or false. */
export const aFlag: Shape = when((value) => typeof value === "boolean", "true or false");
/** Null, `NaN` as JSON has it among others. */
export const aNull: Shape = when((value) => value === null, "null");

/** One of a few texts. */
export function oneOf(...values: readonly string[]): Shape {
  return when((value) => values.includes(value as string), values.join(" or "));
}

/** A value of one shape or another; the complaint is the last one's. */
export function either(...shapes: readonly Shape[]): Shape {
  return (value, where) => {
    const complaints = shapes.map((shape) => shape(value, where));
    return complaints.includes(null) ? null : complaints[complaints.length - 1];
  };
}

/** A list, all of one shape. */
export function aList(shape: Shape): Shape {
  return (value, where) => {
    if (!Array.isArray(value)) return complaint(value, where, "a list");
    return first(value.map((item, i) => () => shape(item, `${where}[${i}]`)));
  };
}

/** An object of any keys, whose values have one shape. */
export function aRecord(shape: Shape): Shape {
  return (value, where) => {
    if (!isObject(value)) return complaint(value, where, "an object");
    return first(Object.keys(value).map((key) => () => shape(value[key], `${where}.${key}`)));
  };
}

/** An object with certain keys; what else it has is not looked at. */
export function anObject(
  required: Readonly<Record<string, Shape>>,
  optional: Readonly<Record<string, Shape>> = {},
): Shape {
  return (value, where) => {
    if (!isObject(value)) return complaint(value, where, "an object");
    const check = (key: string, shape: Shape, isOptional: boolean) => () => {
      if (Object.hasOwn(value, key)) return shape(value[key], `${where}.${key}`);
      return isOptional ? null : `${where}.${key} is missing`;
    };
    return first([
      ...Object.entries(required).map(([key, shape]) => check(key, shape, false)),
      ...Object.entries(optional).map(([key, shape]) => check(key, shape, true)),
    ]);
  };
}

function when(isRight: (value: unknown) => boolean, expected: string): Shape {
  return (value, where) => isRight(value) ? null : complaint(value, where, expected);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function complaint(value: unknown, where: string, expected: string): string {
  const shown = JSON.stringify(value) ?? "nothing";
  return `${where} is ${shown.length > 40 ? `${shown.slice(0, 40)}…` : shown}, not ${expected}`;
}

function first(checks: readonly (() => string | null)[]): string | null {
  for (const check of checks) {
    const found = check();
    if (found) return found;
  }
  return null;
}
