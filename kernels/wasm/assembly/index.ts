/** What the host calls (src/backends/wasm*.ts). Pointers are bytes into the shared memory; every thread has its own instance. */
export { chooseTile } from "./product";
export { profileInto } from "./profile";
export { clearState, stateBytes } from "./state";
export { keys, keysScratch } from "./keys";
export { combine, queries, queriesScratch } from "./queries";
export { causal, causalScratch, partsBytes } from "./causal";
export { absorb, exactScratch, forget, heldBytes, pose } from "./exact";
export { assignRows, clearFar, farScratch, farSums } from "./far_keys";
export { farBytes } from "./far_plan";
export { nearFar, nearFarScratch } from "./near_far";
export { chunkBytes, keepRows } from "./near_top";
export { dense, denseScratch } from "./dense";
export { copyRounds, productRounds } from "./peak";
