/** Highlights code in the languages that are vendored. */

import hljs from "../vendor/highlight/core.js";
import bash from "../vendor/highlight/bash.js";
import c from "../vendor/highlight/c.js";
import cpp from "../vendor/highlight/cpp.js";
import css from "../vendor/highlight/css.js";
import diff from "../vendor/highlight/diff.js";
import go from "../vendor/highlight/go.js";
import ini from "../vendor/highlight/ini.js";
import java from "../vendor/highlight/java.js";
import javascript from "../vendor/highlight/javascript.js";
import json from "../vendor/highlight/json.js";
import markdown from "../vendor/highlight/markdown.js";
import python from "../vendor/highlight/python.js";
import rust from "../vendor/highlight/rust.js";
import sql from "../vendor/highlight/sql.js";
import typescript from "../vendor/highlight/typescript.js";
import xml from "../vendor/highlight/xml.js";
import yaml from "../vendor/highlight/yaml.js";

const LANGUAGES = {
  bash, c, cpp, css, diff, go, ini, java, javascript, json, markdown, python, rust, sql,
  typescript, xml, yaml,
};

for (const [name, language] of Object.entries(LANGUAGES)) hljs.registerLanguage(name, language);

/**
 * @param {string} code
 * @param {string} language as the model named it.
 * @returns {string} HTML; plain text if the language is unknown.
 */
export function highlight(code, language) {
  const name = hljs.getLanguage(language) ? language : "plaintext";
  if (name === "plaintext") return code.replace(/[&<>]/g, (c) => `&#${c.charCodeAt(0)};`);
  return hljs.highlight(code, { language: name, ignoreIllegals: true }).value;
}
