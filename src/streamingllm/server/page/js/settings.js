/** Settings of this browser. */

import { effect, signal } from "@preact/signals";
import { load, save } from "./storage.js";

/**
 * @typedef {object} Settings
 * @property {string} systemPrompt of new sessions; pinned.
 * @property {number | null} temperature null for the server's default.
 * @property {number | null} topP null for the server's default.
 * @property {number | null} maxTokens of an answer; null for the server's default.
 * @property {boolean} isStreaming whether the model may forget; off, the window is a hard limit.
 * @property {string} apiKey sent with each request, if the server wants one.
 * @property {"auto" | "light" | "dark"} theme
 * @property {boolean} hasShortcuts whether single keys are commands.
 * @property {boolean} isHintSeen
 */

/** @type {Settings} */
const DEFAULTS = {
  systemPrompt: "You are a helpful assistant.",
  temperature: null,
  topP: null,
  maxTokens: null,
  isStreaming: true,
  apiKey: "",
  theme: "auto",
  hasShortcuts: true,
  isHintSeen: false,
};

/** @type {import("@preact/signals").Signal<Settings>} */
export const settings = signal({ ...DEFAULTS, ...load("settings", {}) });

/** @param {Partial<Settings>} changes */
export function change(changes) {
  settings.value = { ...settings.value, ...changes };
}

/** Returns to the defaults, except for the key. */
export function reset() {
  settings.value = { ...DEFAULTS, apiKey: settings.value.apiKey, isHintSeen: true };
}

/** Goes from the system's colours to light, to dark, and back. */
export function nextTheme() {
  const order = /** @type {const} */ (["auto", "light", "dark"]);
  change({ theme: order[(order.indexOf(settings.value.theme) + 1) % order.length] });
}

effect(() => save("settings", settings.value));
effect(() => {
  document.documentElement.dataset.theme = settings.value.theme;
});
