/** Explains errors to people, with what to do next. */

import { ApiError } from "./api.js";
import { can } from "./capabilities.js";
import { change } from "./settings.js";
import { announcement, dialog, problem } from "./state.js";

/** @typedef {import("./state.js").Problem} Problem */

/** @type {Problem} */
const LIMIT = {
  title: "The window is full, and streaming mode is off.",
  text:
    "Nothing may be forgotten now, so the conversation ends here, as it does with other servers. " +
    "Switch streaming mode on, and the model goes on: it forgets the oldest messages and says " +
    "which. Or rewind to an earlier message.",
  action: { label: "Switch streaming mode on", run: () => change({ isStreaming: true }) },
};

/** @type {Problem} */
const OTHERS_LIMIT = {
  title: "The context of the server is full.",
  text: "The gateway leaves out the oldest messages if it is started with --context-limit. Or begin a new session.",
};

/** @param {unknown} error */
export function explain(error) {
  problem.value = explanation(error);
  announcement.value = problem.value.title;
}

/**
 * @param {unknown} error
 * @returns {Problem}
 */
export function explanation(error) {
  const code = /** @type {any} */ (error)?.code ?? null;
  const message = /** @type {any} */ (error)?.message ?? String(error);
  if (code === "context_length_exceeded") {
    return { ...(can("truncation") ? LIMIT : OTHERS_LIMIT), detail: message };
  }
  if (!(error instanceof ApiError)) return { title: "The answer failed.", text: message };
  if (error.status === 401) {
    const action = { label: "Open settings", run: () => { dialog.value = "settings"; } };
    return { title: "The server wants an API key.", text: "Enter it in the settings.", action };
  }
  if (error.status === 429) return { title: "The server is busy.", text: `${message} Try again.` };
  if (error.status === 404) return { title: "It is not there any more.", text: message };
  if (error.status === 0) {
    return { title: message, text: "What was said is safe there. Reload when it is back." };
  }
  return { title: "The server refused this.", text: message };
}
