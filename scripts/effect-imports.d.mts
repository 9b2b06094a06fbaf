import type { Plugin } from "esbuild"

export declare const effectImports: Plugin
