/** Shaders are imported as text: `import text from "./keys.wgsl" with { type: "text" }`. */
declare module "*.wgsl" {
  const text: string;
  export default text;
}
