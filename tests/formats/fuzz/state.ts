/** States (src/state_file.ts): refused, or exactly the numbers that the bytes say, with fingerprint and digest as taken here once more. */
import { createHash } from "node:crypto";
import { readState, writeState } from "../../../src/state_file.ts";
import { projectionHash, type StoredSettings, type StoredState, storedState } from "../../../src/stored_state.ts";
import { attentionWith, fitWith, rowsWith, sizesWith } from "../../stored_states.ts";
import { bytesOf, type Kind, refusedOr, requireEqual, requireNumbers } from "./case.ts";
import { damagedJson, DEEP } from "./json.ts";
import { damagedSafetensors, safetensors } from "./mutate.ts";
import { one, type Pick } from "./random.ts";
import { elementsOf, secondReading } from "./second.ts";

const SIZES = sizesWith(9, 4);
const ROWS = rowsWith(SIZES);
const W = { path: "w.npy", matrices: 1, headDim: 5, data: Float64Array.from({ length: 35 }, (_, at) => Math.sin(at)) };

/** A state of numbers that keys could have left. */
function made(changes: Parameters<typeof attentionWith>[0], fitted = false): StoredState {
  const attention = attentionWith(changes);
  const { kvHeads, valueDim } = SIZES;
  const empty = { path: "", rows: 0, state: { heads: 0, features: 0, valueDim: 0 } } as unknown as StoredState;
  const fit = fitted ? fitWith(attention, SIZES, ROWS) : null;
  const features = storedState(attention, SIZES, fit, empty).settings.numFeatures;
  const sums = (length: number) => Float64Array.from({ length }, (_, i) => 0.1 + Math.sin(i) ** 2);
  const state = {
    heads: kvHeads,
    features,
    valueDim,
    c: sums(kvHeads * features).map((value) => value - 1),
    z: sums(kvHeads * features),
    S: sums(kvHeads * features * valueDim).map((value) => 0.5 - value),
    keys: 7,
  };
  return storedState(attention, SIZES, fit, { path: "", rows: 9, state });
}

const STATES: Readonly<Record<string, StoredState>> = {
  "positive": made({ features: "positive" }),
  "decaying": made({ features: "relu", decay: [0.1, 0] }),
  "elu": made({ features: "elu" }),
  "signed": made({ features: "trigonometric" }),
  "fitted": made({ features: "hyp-aderf+sderf" }, true),
  "diagonal": made({ features: "saderf" }, true),
  "fixed": made({ features: "oprf" }),
  "centred": made({ features: "hyperbolic" }, true),
  "given W": made({ given: W }),
};

const sha256 = (...parts: (string | Float64Array)[]): string => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(typeof part === "string" ? part : new Uint8Array(part.buffer));
  return hash.digest("hex");
};

/** What the bytes of a state say. */
interface Said {
  readonly metadata: Record<string, string>;
  readonly tensors: ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: Float64Array }>;
}

function saidIn(bytes: Uint8Array): Said {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const { __metadata__: metadata } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const tensors = secondReading(bytes)!.map((
    seen,
  ) => [seen.name, { shape: seen.shape, data: elementsOf(seen).numbers }]);
  return { metadata, tensors: new Map(tensors as []) };
}

/** SHA-256 of a drawn W by the settings that decide it; a made-up one that would cost too much is not drawn. */
function drawnHash(settings: StoredSettings): string {
  const { kvHeads, headDim, projections, numFeatures } = settings;
  const numbers = Math.max(Number(projections), Number(numFeatures)) * Number(headDim) * Number(kvHeads);
  if (!(numbers >= 1 && numbers < 1e5)) throw new Error("not worth it");
  return projectionHash({ settings, given: null } as StoredState) ?? "none";
}

/** docs/state.md: over the settings, W as drawn and the numbers fitted. */
function fingerprintIn({ metadata, tensors }: Said): string {
  const W = tensors.get("W");
  const parts = ["shift", "balance", "inverse", "exponents", "directions"].flatMap((part) => {
    const found = tensors.get(`fit.${part}`);
    return found ? [`${part} ${sha256(found.data)}`] : [];
  });
  const projection = W ? sha256(W.data) : drawnHash(JSON.parse(metadata.settings));
  return sha256([metadata.schema, metadata.settings, `projection ${projection}`, ...parts].join("\n"));
}

/** Over rows, keys, c, z and S. */
function digestIn({ metadata: { rows, keys }, tensors }: Said): string {
  return sha256(`${rows} ${keys}\n`, ...["c", "z", "S"].map((name) => tensors.get(name)!.data));
}

/** Numbers that sums may be made to hold. */
const NUMBERS = [NaN, Infinity, -Infinity, -0, 0, 5e-324, -5e-324, 2.2e-308, 1e308, -1, 0.125, 1e-300];

/** A header and data that were changed by `change`. */
function changed(
  bytes: Uint8Array,
  change: (
    header: Record<string, { data_offsets: number[] }> & { __metadata__: Record<string, string> },
    data: Uint8Array,
  ) => string | void,
): Uint8Array {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const data = bytes.slice(8 + length);
  const text = change(header, data);
  return safetensors(text ?? JSON.stringify(header), data);
}

function aimed(bytes: Uint8Array, pick: Pick): Uint8Array {
  switch (pick(5)) {
    case 0:
      return damagedSafetensors(bytes, pick);
    case 1:
      return changed(bytes, (header) => damagedJson(header, pick));
    case 2:
      return changed(bytes, (header) => {
        const metadata = header.__metadata__;
        metadata.settings = damagedJson(JSON.parse(metadata.settings), pick);
      });
    case 3:
      return changed(bytes, (header) => {
        const metadata = header.__metadata__;
        const [name, other] = [one(pick, Object.keys(metadata)), one(pick, Object.keys(metadata))];
        metadata[name] = one(pick, [
          metadata[other],
          "",
          "-1",
          "1e3",
          "٣",
          "9".repeat(30),
          "9".repeat(5000),
          " 9",
          "NaN",
        ]);
      });
    default:
      return changed(bytes, (header, data) => {
        const names = Object.keys(header).filter((name) => name !== "__metadata__");
        const [from, to] = header[one(pick, names)].data_offsets;
        new DataView(data.buffer).setFloat64(from + 8 * pick((to - from) / 8), one(pick, NUMBERS), true);
      });
  }
}

function forged(bytes: Uint8Array, pick: Pick): Uint8Array {
  const damaged = aimed(bytes, pick);
  if (damaged.length > DEEP) return damaged;
  try {
    return changed(damaged, (header) => {
      const said = saidIn(damaged);
      header.__metadata__.digest = digestIn(said);
      header.__metadata__.fingerprint = fingerprintIn(said);
    });
  } catch {
    return damaged;
  }
}

async function judge(path: string, bytes: Uint8Array, step: (name: string) => void): Promise<string> {
  step("read");
  const found = await refusedOr(path, () => readState(path));
  if (!found) return "refused";
  const said = saidIn(bytes);
  const { metadata, tensors } = said;
  requireEqual("fingerprint", [found.fingerprint, metadata.fingerprint], Array(2).fill(fingerprintIn(said)));
  requireEqual("digest", [found.digest, metadata.digest], Array(2).fill(digestIn(said)));
  requireEqual("settings", found.settings, JSON.parse(metadata.settings));
  requireEqual("rows and keys", [found.rows, found.state.keys], [Number(metadata.rows), Number(metadata.keys)]);
  for (const name of ["c", "z", "S"] as const) requireNumbers(name, found.state[name], tensors.get(name)!.data);
  if (found.given) requireNumbers("W", found.given.data, tensors.get("W")!.data);
  step("write");
  const again = await bytesOf("again.safetensors", (name) => writeState(name, found, found.notes));
  const back = saidIn(again);
  requireEqual("tensors", [...back.tensors.keys()].sort(), [...tensors.keys()].sort());
  for (const [name, { data }] of tensors) requireNumbers(name, back.tensors.get(name)!.data, data);
  requireEqual("digest of what was written", back.metadata.digest, metadata.digest);
  return "read";
}

const bases = Object.entries(STATES).map(async ([name, stored]) => ({
  name: `state, ${name}`,
  bytes: await bytesOf(
    "made.safetensors",
    (path) => writeState(path, stored, { shard: '{"plan":"x","start":0,"end":1}' }),
  ),
}));

export const state: Kind = { file: "fuzz.safetensors", bases: await Promise.all(bases), aimed, forged, judge };
