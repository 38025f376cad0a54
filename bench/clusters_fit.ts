/** Power laws of the error of clustered far fields: what holds of it when L grows. */

/** One setting on the first `rows` rows of one data set. */
export interface Measured {
  readonly name: string;
  readonly causal: boolean;
  readonly rows: number;
  readonly features: string;
  readonly window: number;
  readonly heavy: number;
  /** 0 without clusters. */
  readonly clusters: number;
  /** Clusters whose keys are all near. */
  readonly top: number;
  /** Relative L2 with its 95 % interval. */
  readonly error: number;
  readonly low: number;
  readonly high: number;
  readonly uniform: number;
  readonly skill: number;
}

/** Fewer keys per cluster, or a larger share of exact rows in a causal run, say nothing of long sequences. */
const KEYS_PER_CLUSTER = 32;

/** error ≈ factor · L^grows / C^falls. */
export interface Law {
  readonly factor: number;
  readonly grows: number;
  readonly falls: number;
}

type Of = (point: Measured) => number;
const errorOf: Of = ({ error }) => error;
/** The mean of V may come nearer to the exact answer, or drift from it, as L grows: what is left of its error. */
const shareOf: Of = ({ error, uniform }) => error / uniform;

/** Least squares of ln error on ln L and ln C; null where there are too few lengths or numbers of clusters. */
export function lawOf(points: readonly Measured[], of: Of = errorOf): Law | null {
  const distinct = (key: Of) => new Set(points.map(key)).size;
  if (distinct(({ rows }) => rows) < 2 || distinct(({ clusters }) => clusters) < 2) return null;
  const mean = (value: Of) => points.reduce((sum, point) => sum + value(point), 0) / points.length;
  const x: Of = ({ rows }) => Math.log(rows), y: Of = ({ clusters }) => Math.log(clusters);
  const z: Of = (point) => Math.log(of(point));
  const [mx, my, mz] = [mean(x), mean(y), mean(z)];
  const product = (a: Of, ma: number, b: Of, mb: number) => mean((p) => (a(p) - ma) * (b(p) - mb));
  const [xx, xy, yy] = [product(x, mx, x, mx), product(x, mx, y, my), product(y, my, y, my)];
  const [xz, yz] = [product(x, mx, z, mz), product(y, my, z, mz)];
  const determinant = xx * yy - xy * xy;
  const grows = (xz * yy - yz * xy) / determinant;
  const slope = (yz * xx - xz * xy) / determinant;
  return { factor: Math.exp(mz - grows * mx - slope * my), grows, falls: -slope };
}

/** Clusters that have the error wanted, on the line through the two measured ones around it; null where none has. */
export function clustersAt(points: readonly Measured[], wanted: number): number | null {
  const sorted = [...points].sort((a, b) => a.clusters - b.clusters);
  const at = sorted.findIndex(({ error }) => error <= wanted);
  if (at < 0) return null;
  if (at === 0) return sorted[0].clusters;
  const [before, after] = [sorted[at - 1], sorted[at]];
  const part = Math.log(before.error / wanted) / Math.log(before.error / after.error);
  return before.clusters * (after.clusters / before.clusters) ** part;
}

const figure = (value: number) => value.toPrecision(3);
const row = (cells: readonly (string | number)[]) => `| ${cells.join(" | ")} |`;
const table = (head: readonly (string | number)[], body: readonly (readonly (string | number)[])[]) => {
  return [row(head), row(head.map(() => "---")), ...body.map(row)].join("\n");
};
const words = ({ name, causal }: Measured) => causal ? `${name}, causal` : name;
const groupsOf = <T, K>(items: readonly T[], key: (item: T) => K): Map<K, T[]> => {
  const groups = new Map<K, T[]>();
  for (const item of items) groups.set(key(item), [...groups.get(key(item)) ?? [], item]);
  return groups;
};

/** Errors by L and C, what else was measured, and the laws, as Markdown. */
export function fitLaws(found: readonly Measured[]): string {
  const plain = found.filter(({ window, heavy, clusters, top }) => {
    return window === 32 && heavy === 0 && clusters > 0 && !top;
  });
  const counts = [...new Set(plain.map(({ clusters }) => clusters))].sort((a, b) => a - b);
  const errors: (string | number)[][] = [], needed: (string | number)[][] = [], laws: (string | number)[][] = [];
  for (const [name, points] of groupsOf(plain, words)) {
    const lengths = groupsOf(points, ({ rows }) => rows);
    const shortest = lengths.get(Math.min(...lengths.keys()))!;
    const goals = [64, 256].flatMap((count) => {
      return shortest.filter(({ clusters, rows }) => clusters === count && count * KEYS_PER_CLUSTER <= rows);
    });
    for (const [rows, here] of lengths) {
      const errorAt = (count: number) => here.find(({ clusters }) => clusters === count)?.error;
      errors.push([
        name,
        rows,
        figure(here[0].uniform),
        ...counts.map((count) => {
          const error = errorAt(count);
          return error === undefined ? "" : figure(error);
        }),
      ]);
      if (goals.length < 2) continue;
      needed.push([
        name,
        rows,
        ...goals.flatMap(({ error }) => {
          const count = clustersAt(here, error);
          return [figure(error), count === null ? `> ${Math.max(...here.map((p) => p.clusters))}` : Math.round(count)];
        }),
      ]);
    }
    const used = points.filter(({ rows, clusters }) => clusters * KEYS_PER_CLUSTER <= rows);
    const cells = [errorOf, shareOf].flatMap((of) => {
      const law = lawOf(used, of);
      if (!law) return [];
      const parts = [...lengths.keys()].map((left) => lawOf(used.filter(({ rows }) => rows !== left), of));
      const exponents = parts.flatMap((part) => part ? [part.grows / part.falls] : []);
      const spread = `${figure(Math.min(...exponents))} … ${figure(Math.max(...exponents))}`;
      return [figure(law.grows), figure(law.falls), `${figure(law.grows / law.falls)} (${spread})`];
    });
    if (cells.length > 0) laws.push([name, ...cells]);
  }
  const others = found.filter((point) => !plain.includes(point)).map((point) => {
    const { rows, features, window, heavy, clusters, top, error, uniform, skill } = point;
    const far = clusters > 0 ? `clusters:${clusters}${top ? ` top ${top}` : ""}` : features;
    return [words(point), rows, far, window, heavy, figure(error), figure(uniform), skill.toFixed(2)];
  });
  return [
    "Relative L2 error of `--window 32 --far clusters:C`",
    table(["data", "L", "mean of V", ...counts.map((count) => `C = ${count}`)], errors),
    "Clusters that keep the error which 64 and 256 of them have at the shortest L",
    table(["data", "L", "error wanted", "C", "error wanted", "C"], needed),
    `error ∝ L^b / C^c over ${KEYS_PER_CLUSTER} keys per cluster and more, so that the same error needs C ∝ L^(b/c) (range: one L left ` +
    "out); then the same of error / error of the mean of V",
    table(["data", "b", "c", "b/c", "b", "c", "b/c"], laws),
    "Other settings",
    table(["data", "L", "far field", "window", "heavy", "error", "mean of V", "skill"], others),
  ].join("\n\n");
}
