/** Feature maps that differ to kernels. */
import { FEATURE_MAPS } from "../src/feature_map.ts";

/**
 * Fitted maps and `smreg` are `positive` or `hyperbolic` with other numbers, and `cosformer` is relu of rows that were transformed:
 * `hybrid` is of the scalar backend alone (tests/math/hybrid.test.ts);
 * tests/math/fitted.test.ts and tests/conformance/fitted.test.ts have their own tests.
 */
export const KERNEL_MAPS = FEATURE_MAPS.filter((map) => !map.fitted && !map.norms && !map.angular && !map.signs);
