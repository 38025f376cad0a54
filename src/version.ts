/** The version of the program, the same as in package.json (a test checks). */
export const VERSION = "0.1.0";
