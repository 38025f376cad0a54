/** Pages on what is computed, and how to judge and choose it. */
import type { Topic } from "./topic.ts";

const topic = (name: string, page: Omit<Topic, "name" | "group">): Topic => ({ name, group: "topics", ...page });

export const GENERAL_TOPICS: readonly Topic[] = [
  topic("attention", {
    summary: "what is computed: exact softmax attention, and its approximation in linear time",
    body: [
      {
        formula: [
          "exact:   out_i = Σ_j e^(S q_i·k_j) v_j / Σ_j e^(S q_i·k_j)",
          "linear:  out_i = φ(q_i)·(Σ_j φ(k_j) v_j) / φ(q_i)·(Σ_j φ(k_j))",
        ],
      },
      "q_i, k_j, v_j are rows of queries, keys and values of one head; S is 1/√d, or --scale. Exact attention compares every row with every other: twice the " +
      "length is four times the work. With features φ whose products are e^(S q·k) on average, the sums over keys are taken once, and the work grows with the " +
      "length only. The price is an error, which every run measures against exact softmax on sampled rows.",
      "The state of a head is r (d_v + 2) numbers, whatever the length. It is kept with a running maximum per feature in the log domain: no constant is " +
      "added anywhere, nothing overflows, and tiles of any size give the same result.",
    ],
    examples: ["performer attend input.npy --heads 8 -o output.npy", "performer attend qkv.npz --causal"],
    see: ["features", "error", "causal", "near-and-far"],
  }),
  topic("features", {
    summary: "which feature map φ, how many features, and what is fitted to the data",
    body: [
      {
        terms: [
          ["softmax kernel", "hyperbolic (default), positive, trigonometric, smreg, hybrid: fixed formulas"],
          ["fitted", "oprf, sderf, saderf, aderf, aderf+sderf, and hyp-… of each: less variance on your data"],
          ["own kernels", "relu, elu, cosformer, gelu, …: for models that were trained with them"],
          ["no features", "taylor1, taylor2, hermite2 (moments of the keys), softmax (exact)"],
          ["auto", "the smallest error at the arithmetic of -m positive features, by trials on the input"],
        ],
      },
      "-m R is the length of φ. The error falls with 1/√R at best: four times the work halves it. It grows exponentially with ‖x + y‖² for scaled queries x " +
      "and keys y: around 1 a few hundred features are plenty, at 4 the answer carries some signal, beyond 8 the mean of V is often nearer to the truth. " +
      "attend -v prints that number.",
      "Bidirectional runs move keys by one vector per head to where features vary least, which softmax does not see (--centre).",
    ],
    examples: [
      "performer attend qkv.npz --features hyp-aderf+sderf -m 256",
      "performer compare qkv.npz --features hyperbolic,positive,taylor1 -m 64..1024",
      "performer attend qkv.npz --features auto",
    ],
    see: ["hyperbolic", "projection", "choosing", "near-and-far"],
  }),
  topic("projection", {
    summary: "where the random rows w_a come from",
    body: [
      "Every row of the projection is distributed as N(0, 1), which is what makes features unbiased; rows may depend on each other, and the less alike they " +
      "are the less estimates vary. orthogonal is the default; performer compare --projection shows what the others do on your data.",
      "--seed N draws it, the same on every backend and runtime; --redraws R measures the error over R more draws. --norms sqrtd gives all rows the length " +
      "√d (the regularised softmax kernel), --projection-matrix FILE takes your own [m, d] or [heads, m, d].",
    ],
    examples: [
      "performer compare qkv.npz --features positive --projection iid,simplex,sobol",
      "performer attend qkv.npz --redraws 5",
    ],
    see: ["orthogonal", "features", "error"],
  }),
  topic("error", {
    summary: "what relative L2, uniform baseline and skill mean",
    body: [
      {
        formula: [
          "relative L2       = ‖Ô − O‖ / ‖O‖",
          "uniform baseline  = ‖Ō − O‖ / ‖O‖",
          "skill             = 1 − ‖Ô − O‖² / ‖Ō − O‖²",
        ],
      },
      "O is exact softmax attention and Ô this run's output, on the same sampled query rows (--check N); Ō is the mean of the values that each row sees, which is " +
      "the answer of no attention at all.",
      {
        terms: [
          ["relative L2", "0 is exact, 1 as wrong as answering 0; [low, high] is a 95 % interval over rows"],
          ["skill", "1 is exact, 0 no better than the mean of V, below 0 worse"],
        ],
      },
      "Only the two together tell: a small error with little skill means that attention hardly matters on this data; a large one with high skill that it matters " +
      "much and is mostly captured. --redraws R measures what the draw of the projection adds, --health says it per head with the causes, --max-error E makes " +
      "the exit code 1 when the error is larger.",
    ],
    examples: [
      "performer attend qkv.npz --check 1024 --redraws 5",
      "performer attend qkv.npz --health",
      "performer attend qkv.npz --max-error 5% --quiet",
    ],
    see: ["choosing", "features", "exit-codes"],
  }),
  topic("choosing", {
    summary: "which setting for this data: tune, compare, auto, and rules of thumb",
    body: [
      {
        terms: [
          ["performer tune", "the cheapest setting that reaches an error, checked on fresh rows, as a command line"],
          ["performer compare", "one line per setting: error, time, memory"],
          ["--features auto", "the best for the arithmetic of -m features, then attends with it"],
          ["--shrink auto", "blends outputs with the mean of V by a share that is fitted per head"],
        ],
      },
      "Small queries and keys (‖x + y‖² of a few; attend -v prints it): fitted features, or taylor2 and hermite2 in narrow heads. Trained softmax heads: near keys " +
      "exactly and a far field. Rows whose neighbours matter: --window. A few keys that matter to everybody: --heavy. Keys that matter by content: --far " +
      "clusters:C. A few thousand rows: exact attention.",
    ],
    examples: [
      "performer tune qkv.npz --error 5%",
      "performer compare input.npy --heads 8 -m 64..1024",
      "performer attend qkv.npz --features auto --shrink auto",
    ],
    see: ["error", "features", "near-and-far", "tune", "compare"],
  }),
  topic("causal", {
    summary: "rows that see only what came before them",
    body: [
      "With --causal row i sees the keys up to row i. No output changes, to the last bit, when later rows do, however large they are. One pass over the file is " +
      "enough, and a .npy can come through a pipe.",
      "What is fitted to data comes from a prefix of the rows (--params prefix:N), and keys are re-centred only with --centre on. --decay L weighs key j by " +
      "e^(−L (i − j)), as ALiBi does (alibi: its slopes), at no cost in state.",
    ],
    examples: [
      "performer attend qkv.npz --causal",
      "performer attend qkv.npz --causal --decay alibi",
      "performer attend - --causal --check 0 -o -",
    ],
    see: ["attention", "near-and-far", "generate"],
  }),
  topic("near-and-far", {
    summary: "near keys exactly and the others by a cheap far field, under one normaliser",
    body: [
      {
        formula: [
          "num_i = Σ_visible K_ij v_j + Σ_near (e^(t_ij) − K_ij) v_j",
          "den_i = the same without v_j,   out_i = num_i / den_i",
        ],
      },
      "K is the far field's weight, which a near key's exact one replaces. For trained softmax heads, whose few large weights random features cannot follow.",
      {
        terms: [
          ["--window W", "keys fewer than W rows away"],
          ["--heavy H", "the H keys farthest from the mean key, for every query"],
          ["--far NAME", "taylor1 (default), taylor2, hermite2, clusters:C or none"],
          ["--top K", "with clusters, all keys of the K heaviest clusters"],
        ],
      },
      "On webgpu, wasm and scalar; --top on wasm and scalar.",
    ],
    examples: [
      "performer attend qkv.npz --window 64 --heavy 64",
      "performer attend qkv.npz --window 32 --far clusters:64 --top 4",
      "performer compare qkv.npz --features taylor1,taylor2 --window 64 --heavy 64",
    ],
    see: ["taylor1", "clusters", "choosing"],
  }),
  topic("backend", {
    summary: "what computes: graphics card, cores, or plain JavaScript",
    body: [
      "--backend auto (the default) takes the first that opens, of webgpu, onnx, wasm, gpujs, scalar, and the faster of onnx and wasm. A list is tried in order; a " +
      "single name never falls back, and exits 4 where it is not available. All agree up to rounding. A variant follows a colon, as in wasm:simd.",
      "performer backends opens each, runs a golden case on it, times it, and says which one auto takes; performer bench measures speed against length.",
    ],
    examples: [
      "performer backends",
      "performer attend qkv.npz --backend webgpu,wasm",
      "performer bench --backend wasm,gpujs -L 1024,4096",
    ],
    see: ["webgpu", "onnx", "wasm", "gpujs", "scalar"],
  }),
];
