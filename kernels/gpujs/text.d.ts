/** Kernels of gpu.js are imported as text: `import text from "./product.gpu.js" with { type: "text" }`. */
declare module "*.gpu.js" {
  const text: string;
  export default text;
}
