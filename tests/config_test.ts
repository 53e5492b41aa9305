import assert from "node:assert/strict";
import {
  configKeys,
  describeFields,
  fields,
  parseOverrides,
  resolveConfig,
} from "../src/config/config.ts";
import { type Field, groups } from "../src/config/fields.ts";
import { presets } from "../src/config/presets.ts";
import { savedConfig } from "../src/config/saved_config.ts";
import { stageFields } from "../src/config/stage_fields.ts";
import { suggest } from "../src/text/suggest.ts";
import { userError } from "./user_error.ts";

Deno.test("preset, then experiment, then typed keys", () => {
  const base = { preset: "tiny", lr: 5e-4, steps: 700 } as const;
  const config = resolveConfig(base, ["steps=1_000", "clip=none", "tieWordEmbeddings=true"]);
  assert.equal(config.hiddenSize, presets.tiny.hiddenSize);
  assert.equal(config.lr, 5e-4);
  assert.equal(config.steps, 1000);
  assert.equal(config.clip, null);
  assert.equal(config.tieWordEmbeddings, true);
  assert.equal(resolveConfig(base, ["preset=small"]).hiddenSize, presets.small.hiddenSize);
  assert.equal(resolveConfig({ lr: undefined }).lr, fields.lr.default);
  // As JSON has it, from which a run reads it again.
  assert(Object.is(resolveConfig({}, ["clip=-0"]).clip, 0));
});

Deno.test("every preset resolves, and a resolved configuration resolves to itself", () => {
  for (const preset of Object.keys(presets)) {
    for (const attention of ["mha", "gqa", "mla", "mosa"]) {
      const config = resolveConfig({}, [`preset=${preset}`, `attention=${attention}`]);
      assert.deepEqual(resolveConfig(JSON.parse(JSON.stringify(config))), config);
      assert.deepEqual(Object.keys(config).sort(), [...configKeys, "stages"].sort());
    }
  }
});

Deno.test("values that nobody gave follow from others", () => {
  const mla = resolveConfig({}, ["steps=50"]);
  assert.equal(mla.warmupSteps, 5);
  assert.equal(mla.ropeInterleave, true);
  const gqa = resolveConfig({}, ["attention=gqa", "hiddenSize=96", "numAttentionHeads=6"]);
  assert.deepEqual([gqa.numKeyValueHeads, gqa.headDim, gqa.ropeInterleave], [3, 16, false]);
  assert.equal(resolveConfig({}, ["attention=gqa", "numAttentionHeads=1"]).numKeyValueHeads, 1);
});

Deno.test("a vocabulary belongs to its tokenizer and data", () => {
  const size = (base: Parameters<typeof resolveConfig>[0], ...typed: string[]) =>
    resolveConfig(base, typed).vocabSize;
  assert.equal(size({}), 256);
  assert.equal(size({ preset: "small" }), 4096);
  assert.equal(size({ preset: "small" }, "data=some.txt"), 4096);
  assert.equal(size({ preset: "small" }, "tokenizer=byte"), 256);
  assert.equal(size({ preset: "small" }, "tokenizer=byte", "vocabSize=300"), 300);
  assert.equal(size({ preset: "small" }, "data=recall", "taskVocab=80"), 80);
  const saved = resolveConfig({ tokenizer: "char", vocabSize: 87 });
  assert.equal(size(saved, "lr=1e-4"), 87);
  assert.equal(size(saved, "data=other.txt"), 0);
});

Deno.test("numbers, lists, texts and none are read as written", () => {
  assert.deepEqual(
    parseOverrides(["lr=3e-4", "steps=10_000", "adamEps=.5", "minLr=0", "qLoraRank=null"]),
    { lr: 3e-4, steps: 10_000, adamEps: 0.5, minLr: 0, qLoraRank: null },
  );
  assert.deepEqual(parseOverrides(["samplePrompt=a=b", "needleDepths=0,.5,1", "name=7"]), {
    samplePrompt: "a=b",
    needleDepths: [0, 0.5, 1],
    name: "7",
  });
  assert.deepEqual(parseOverrides(["lr=1", "warmup.steps=20", "sparse.from=none"]), {
    lr: 1,
    stages: [{ name: "warmup", steps: 20 }, { name: "sparse", from: null }],
  });
});

Deno.test("a mistyped key gets the nearest one", () => {
  const random = Math.floor(Math.random() * 1e9);
  for (const key of configKeys) {
    const at = random % key.length;
    const typo = key.slice(0, at) + key.slice(at + 1);
    if (typo.length < 3 || Object.hasOwn(fields, typo)) continue;
    const near = suggest(typo, configKeys);
    assert(near !== null && Math.abs(near.length - typo.length) <= 1, `${typo}: ${near}`);
  }
  assert.match(userError(() => resolveConfig({}, ["kvLoraRnak=8"])), /kvLoraRnak.*kvLoraRank\?/);
  assert.match(userError(() => resolveConfig({}, ["index_topk=8"])), /indexTopk\?/);
  assert.match(userError(() => resolveConfig({}, ["xyzzy=8"])), /"xyzzy".*--help/);
  assert.match(userError(() => resolveConfig({ stepz: 3 } as never)), /"stepz".*steps\?/);
});

Deno.test("a wrong value says what was expected", () => {
  const cases: [string, RegExp][] = [
    ["steps=abc", /steps=abc: expected a whole number from 1/],
    ["steps=1.5", /whole number/],
    ["steps=0x10", /whole number/],
    ["steps=", /steps=: expected/],
    ["steps=1e99", /whole number/],
    ["lr=0", /lr=0: expected a number above 0/],
    ["lr=nan", /lr=nan/],
    ["minLr=1.1", /from 0 to 1/],
    ["clip=-1", /clip=-1.*or none/],
    ["profile=yes", /true or false/],
    ["device=gpu", /auto \| webgpu \| cpu/],
    ["preset=tinny", /did you mean tiny\?/],
    ["needleDepths=0,2", /needleDepths=0,2: expected numbers from 0 to 1/],
    ["seed=-1", /seed=-1/],
    ["lr", /key=value/],
    ["=3", /key=value/],
    ["--steps=3", /write steps=3, without dashes/],
    ["warmpu.steps=200", /no stage "warmpu", did you mean warmup\?/],
    ["warmup.lr=fast", /warmup\.lr=fast: expected a number from 0/],
    ["warmup.step=2", /warmup\.step: did you mean warmup\.steps\?/],
    [".steps=2", /did you mean steps\?/],
  ];
  for (const [word, expected] of cases) {
    assert.match(userError(() => resolveConfig({}, [word])), expected);
  }
});

Deno.test("values that do not fit each other are refused with a way out", () => {
  const cases: [string, RegExp][] = [
    ["qkRopeHeadDim=7", /qkRopeHeadDim=7.*use 8/],
    ["numKeyValueHeads=2", /numKeyValueHeads=2 with attention=mla/],
    ["attention=mha numKeyValueHeads=2", /attention=gqa/],
    ["attention=gqa numKeyValueHeads=3", /divide numAttentionHeads=4; use one of 1, 2, 4/],
    [
      "attention=mha numAttentionHeads=3 hiddenSize=95",
      /hiddenSize=95 with numAttentionHeads=3.*96/,
    ],
    ["attention=mha headDim=9", /headDim=9.*headDim=10/],
    ["attention=mosa mosaDenseHeads=4", /mosaDenseHeads=4 with numAttentionHeads=4: no head is/],
    ["attention=mosa headDim=9", /headDim=9.*headDim=10/],
    ["attention=mosa numKeyValueHeads=2", /numKeyValueHeads=2 with attention=mosa.*attention=gqa/],
    ["attention=gqa recipe=dsa", /recipe=dsa with attention=gqa.*recipe=dense/],
    ["qLoraRank=none indexInput=qLatent", /indexInput=qLatent with qLoraRank=none.*=hidden/],
    ["indexKeyInput=kvLatent latentRope=onLatent", /kvLatent with latentRope=onLatent.*=hidden/],
    ["indexLoss=lm", /indexLoss=lm with indexActivation=relu.*indexActivation=none/],
    ["indexLoss=both indexActivation=none indexShare=2", /indexLoss=both with indexShare=2.*=1/],
    ["indexGroups=3", /indexGroups=3: must divide numAttentionHeads=4; use one of 1, 2, or/],
    ["indexGroups=4", /indexGroups=4: must divide indexNHeads=2; use one of 1, 2, or/],
    ["indexGroups=3 indexKeyInput=native", /numAttentionHeads=4; use one of 1, 2, 4, or/],
    ["indexLoss=lm indexKeyInput=native", /indexLoss=lm with indexKeyInput=native/],
    ["indexKeyInput=native indexBits=8", /indexBits=8 with indexKeyInput=native.*latentBits/],
    ["attention=gqa latentBits=8", /latentBits=8 with attention=gqa.*attention=mla/],
    ["latentRope=onLatent latentBits=4", /latentBits=4 with latentRope=onLatent.*decoupled/],
    ["hadamard=true", /hadamard=true: .*latentBits or indexBits/],
    ["latentBits=3", /latentBits=3: expected 2 \| 4 \| 8 \| 16 \| fp8/],
    ["indexKeyInput=native selector=block", /selector=block with indexKeyInput=native.*=learned/],
    ["indexTies=last", /indexTies=last: expected oldest \| newest/],
    ["indexHeadDim=4", /indexHeadDim=4: .*qkRopeHeadDim=8.*indexHeadDim=8 or indexRope=none/],
    ["klHeads=each indexNHeads=3", /klHeads=each with indexNHeads=3: .*use indexNHeads=4/],
    ["steps=10 warmupSteps=11", /warmupSteps=11.*steps=10/],
    ["schedule=wsd steps=10 warmupSteps=5 decaySteps=6", /decaySteps=6/],
    ["tokenizer=bpe vocabSize=100", /vocabSize=100/],
    ["name=../x", /name="..\/x"/],
    ["data=", /data/],
  ];
  for (const [words, expected] of cases) {
    assert.match(userError(() => resolveConfig({}, words.split(" "))), expected);
  }
  const allowed = [
    "schedule=cosine steps=10 warmupSteps=5 decaySteps=6",
    "qLoraRank=none",
    "indexHeadDim=4 indexRope=none",
    "indexHeadDim=4 recipe=dense",
    "indexTopk=9999",
    "indexGroups=4 indexKeyInput=native",
    "indexGroups=2",
  ];
  for (const words of allowed) resolveConfig({}, words.split(" "));
});

Deno.test("the help text has every key once, with a line of meaning", () => {
  const help = describeFields();
  const [keys, stageKeys] = help.split(/^stage .*\n/m);
  const tables: [string, Record<string, Field<unknown>>][] = [
    [keys, fields],
    [stageKeys, stageFields],
  ];
  for (const [text, table] of tables) {
    for (const [key, field] of Object.entries(table)) {
      assert(groups.includes(field.group));
      assert.equal(
        text.match(new RegExp(`^  ${key}(\\*|\\(\\*\\))? .*${"\\["}`, "gm"))?.length,
        1,
        key,
      );
      assert(field.describe.length > 4 && !field.describe.includes("\n"), key);
    }
    assert.equal(text.match(/^ {2}\w/gm)?.length, Object.keys(table).length);
  }
});

Deno.test("saved runs of mosa without the keys of its causal form look ahead", () => {
  const old = savedConfig({ attention: "mosa", recipe: "dense" }, "config.json");
  assert.deepEqual([old.mosaCausal, old.mosaDenseHeads], [false, 0]);
  const saved = savedConfig(resolveConfig({ attention: "mosa" }), "config.json");
  assert.deepEqual([saved.mosaCausal, saved.mosaDenseHeads], [true, 1]);
});
