/**
 * Small changes to a source file, each of which some test should see: operators, constants, calls
 * and statements, in TypeScript and in the WGSL of its template strings.
 *
 * @module
 */

/** One change: `length` characters from `at` on become `text`. */
export interface Mutant {
  readonly file: string;
  readonly at: number;
  readonly length: number;
  readonly text: string;
  /** What is changed, e.g. `< → <=`. */
  readonly kind: string;
}

/** A pattern, and what becomes of a match; null leaves it. */
interface Rule {
  readonly pattern: RegExp;
  readonly change: (match: RegExpMatchArray) => string | null;
  readonly kind?: string;
}

const SWAPS: readonly [string, string][] = [
  ...[[" < ", " <= "], [" <= ", " < "], [" > ", " >= "], [" >= ", " > "]],
  ...[[" + ", " - "], [" - ", " + "], [" * ", " / "], [" / ", " * "], [" += ", " -= "]],
  ...[[" === ", " !== "], [" !== ", " === "], [" == ", " != "], [" != ", " == "]],
  ...[[" && ", " || "], [" || ", " && "], ["true", "false"], ["false", "true"]],
  ...[["max(", "min("], ["min(", "max("], ["sqrt(", "("], ["Math.sqrt(", "("]],
] as [string, string][];

const RULES: readonly Rule[] = [
  ...SWAPS.map(([from, to]): Rule => ({
    pattern: new RegExp(`${/^\w/.test(from) ? "(?<![\\w.])" : ""}${escaped(from)}`, "g"),
    change: () => to,
    kind: `${from.trim()} → ${to.trim()}`,
  })),
  {
    // Not a part of a name, a type (vec4, array<f32, 4>) or a number with a point.
    pattern: /(?<![\w.$@#<"])\d+(?=u?\b)(?![\w.]*[.\w]\d)/g,
    change: ([n]) => String(Number(n) + 1),
    kind: "constant + 1",
  },
  {
    pattern: /(?<=^[ ]+)(?:await )?[\w.#]+\((?!.*=>).*\);$/gm,
    change: () => ";",
    kind: "call removed",
  },
  { pattern: /(?<=^[ ]+)[\w.#[\]]+ [+*|-]?= [^;{]*;$/gm, change: () => ";", kind: "set removed" },
  {
    pattern: /(?<=^[ ]+)if \(.*\) (?:return|continue|break|throw)[^{]*;$/gm,
    change: () => "",
    kind: "guard removed",
  },
  {
    pattern: /(?<=\w\()(\w+), (\w+)(?=\))/g,
    change: ([, a, b]) => a === b ? null : `${b}, ${a}`,
    kind: "arguments swapped",
  },
  {
    pattern: /(?<=\): (?:void|Promise<void>) \{)$/gm,
    change: () => " return;",
    kind: "returns early",
  },
];

/** All changes of a file, in the order of their places. */
export function mutantsOf(file: string, source: string): Mutant[] {
  const code = codeOf(source, file.startsWith("src/kernels/"));
  const found = RULES.flatMap(({ pattern, change, kind = "" }) =>
    [...code.matchAll(pattern)].flatMap((match): Mutant[] => {
      const text = change(match);
      const [at, { length }] = [match.index, match[0]];
      return text === null ? [] : [{ file, at, length, text, kind }];
    })
  );
  return found.sort((a, b) => a.at - b.at || a.kind.localeCompare(b.kind));
}

/** The source with a change in it. */
export function plant(source: string, { at, length, text }: Mutant): string {
  return source.slice(0, at) + text + source.slice(at + length);
}

/** The line of a change, from 1, before and after it. */
export function lineOf(source: string, mutant: Mutant): {
  line: number;
  before: string;
  after: string;
} {
  const line = source.slice(0, mutant.at).split("\n").length;
  const before = source.split("\n")[line - 1].trim();
  return { line, before, after: plant(source, mutant).split("\n")[line - 1].trim() };
}

/**
 * The source with comments, imports and texts as blanks, so that places stay the same. What a
 * template string inserts is code; all of it is where it holds WGSL.
 */
export function codeOf(source: string, isWgsl: boolean): string {
  const out = [...source.replace(/^import [^;]*;$/gm, (all) => all.replace(/[^\n]/g, " "))]
    .join("");
  const blank = (text: string) => text.replace(/[^\n]/g, " ");
  let code = "";
  // Open template strings: how many braces are open in what each inserts.
  const templates: number[] = [];
  let isText = false;
  for (let i = 0; i < out.length;) {
    const rest = out.slice(i, i + 2);
    const comment = /^(?:\/\/.*|\/\*[^]*?\*\/)/;
    const quoted = /^(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')/;
    const canComment = !isText || isWgsl;
    const match = canComment && (rest === "//" || rest === "/*")
      ? out.slice(i).match(comment)
      : !isText && /["']/.test(out[i])
      ? out.slice(i).match(quoted)
      : null;
    if (match) {
      code += blank(match[0]);
      i += match[0].length;
      continue;
    }
    if (isText && rest === "${") {
      [isText, templates[templates.length - 1]] = [false, 1];
      code += "  ";
      i += 2;
      continue;
    }
    const char = out[i++];
    if (char === "\\" && isText) {
      code += isWgsl ? char : " ";
      continue;
    }
    if (char === "`") {
      if (isText) templates.pop();
      else templates.push(0);
      isText = !isText;
    } else if (!isText && templates.length) {
      if (char === "{") templates[templates.length - 1]++;
      if (char === "}" && --templates[templates.length - 1] === 0) isText = true;
    }
    code += isText && !isWgsl && char !== "\n" ? " " : char;
  }
  return code;
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
