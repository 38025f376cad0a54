/** Where axes begin and end, and which values are written beside them. */
import type { Axis } from "./chart.ts";

/** Ends of an axis that shows all values, with a little room; one value alone gets room on both sides. */
export function domainOf(values: readonly number[], { scale, domain }: Axis): [number, number] {
  if (domain) return [domain[0], domain[1]];
  const at = scale === "log" ? Math.log : (value: number) => value;
  const back = scale === "log" ? Math.exp : (value: number) => value;
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    low = Math.min(low, at(value));
    high = Math.max(high, at(value));
  }
  if (!(high > low)) {
    return scale === "log"
      ? [values[0] / 2, values[0] * 2]
      : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  }
  const room = 0.05 * (high - low);
  return [back(low - room), back(high + room)];
}

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** 10⁻⁵, 0.02, 512, 65,536. */
export function tickText(value: number): string {
  const power = Math.log10(Math.abs(value));
  const whole = Math.abs(power - Math.round(power)) < 1e-9;
  const exact = Number.isInteger(value) && Math.abs(value) < 1e8 && value % 1e4 !== 0; // 1,048,576
  if (value !== 0 && (power < -3.5 || power > 5.5) && !exact) {
    const exponent = Math.floor(power + 1e-9);
    const digits = String(Math.abs(exponent)).replace(/\d/g, (digit) => SUPERSCRIPTS[Number(digit)]);
    const ten = `10${exponent < 0 ? "⁻" : ""}${digits}`;
    return whole ? (value < 0 ? `−${ten}` : ten) : `${Number((value / 10 ** exponent).toPrecision(3))}·${ten}`;
  }
  const text = String(Number.isInteger(value) ? value : Number(value.toPrecision(4)));
  const [integer, decimals] = text.split(".");
  return integer.replace(/\B(?=(\d{3})+(?!\d))/g, ",").replace("-", "−") + (decimals ? `.${decimals}` : "");
}

/** Labelled values of a logarithmic axis: powers of ten, with 2 and 5 between them where there are few; null leaves it to the drawing. */
export function logTicks([low, high]: readonly [number, number], most = 8): number[] | null {
  const between = (steps: readonly number[]) => {
    const ticks: number[] = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      ticks.push(...steps.map((step) => Number(`${step}e${power}`)));
    }
    return ticks.filter((value) => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9));
  };
  const tens = between([1]);
  const ticks = tens.length >= 3 ? tens : between([1, 2, 5]);
  if (ticks.length < 3) return null;
  const every = Math.ceil(ticks.length / most);
  return ticks.filter((_, i) => i % every === Math.floor((ticks.length - 1) % every / 2));
}
