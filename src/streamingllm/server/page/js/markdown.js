/** Turns the markdown of a model into safe HTML with highlighted code. */

import DOMPurify from "dompurify";
import { Marked } from "marked";
import { highlight } from "./highlight.js";

const PURIFY = {
  RETURN_TRUSTED_TYPE: true,
  USE_PROFILES: { html: true },
  // Nothing that fetches, and nothing that a click could submit.
  FORBID_TAGS: ["img", "picture", "video", "audio", "source", "style", "form", "input", "button",
    "textarea", "select", "iframe", "object", "embed", "link", "meta", "base"],
  FORBID_ATTR: ["style", "id", "name", "srcset", "src", "background", "poster"],
};

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    code({ text, lang }) {
      const language = (lang ?? "").match(/^[\w+#-]+/)?.[0] ?? "";
      return `<pre data-language="${language}"><code>${highlight(text, language)}</code></pre>`;
    },
    image({ href, text }) {
      return `<a href="${escape(href)}">${escape(text || "image")}</a>`;
    },
    html({ text }) {
      return escape(text); // a model that writes HTML means the letters
    },
    checkbox({ checked }) {
      return checked ? "☑ " : "☐ ";
    },
  },
});

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer");
});

/**
 * @param {string} text
 * @returns {TrustedHTML | string}
 */
export function markdown(text) {
  return DOMPurify.sanitize(/** @type {string} */ (marked.parse(text)), PURIFY);
}

/** @param {string} text */
function escape(text) {
  /** @type {Record<string, string>} */
  const names = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (character) => names[character]);
}
