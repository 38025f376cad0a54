/** PerformerEncDec: an encoder PerformerLM, and a causal one with cross attention inside an AutoregressiveWrapper. */
import { Arguments } from "../arguments.ts";
import type { Description } from "../description.ts";
import { Keys } from "../keys.ts";
import { type Family, prefixesOf, withTensor } from "./family.ts";
import { openRules, readLanguageModel, rulesOf } from "./performer_lm.ts";

export const encDec: Family = {
  title: "PerformerEncDec",
  prefixes: (names) =>
    withTensor(prefixesOf(names, /^((?:.*\.)?)enc\.token_emb\.weight$/), names, "dec.net.token_emb.weight"),
  describe(candidate, prefix): Description {
    const enc = readLanguageModel(candidate, `${prefix}enc.`, { argumentPrefix: "enc_", crossing: false });
    const dec = readLanguageModel(candidate, `${prefix}dec.net.`, {
      argumentPrefix: "dec_",
      causal: true,
      crossing: true,
    });
    dec.args.accept("causal", "cross_attend");
    const both = new Arguments(candidate.path, candidate.configuration);
    both.fact("dim", dec.layout.dim, `its decoder`);
    both.refuseUnknown([enc.args, dec.args]);
    openRules(dec.args, dec.versions);
    const named = (part: string, facts: Readonly<Record<string, unknown>>) =>
      Object.fromEntries(Object.entries(facts).map(([name, value]) => [part + name, value]));
    const outside = new Keys(candidate.path, "PerformerEncDec", prefix, candidate.headers);
    const strangers = outside.names.filter((name) => !/^(enc|dec\.net)\./.test(name));
    const reason = enc.reason ?? dec.reason;
    return {
      family: "performer-enc-dec",
      title: "PerformerEncDec (lucidrains/performer-pytorch)",
      prefix,
      versions: dec.versions,
      rules: rulesOf(dec.versions),
      architecture: { ...named("enc_", enc.args.facts), ...named("dec_", dec.args.facts) },
      assumed: [...enc.args.assumed, ...dec.args.assumed],
      unknown: [...enc.args.unknown, ...dec.args.unknown],
      extra: [
        ...enc.keys.extra(),
        ...dec.keys.extra(),
        ...strangers.map((name) => ({ name: prefix + name, nearest: null })),
      ],
      layout: reason ? null : { ...dec.layout, encoder: enc.layout },
      reason,
    };
  },
};
