/** Copies text. */

import { announcement } from "./state.js";

/**
 * @param {string} text
 * @returns {Promise<boolean>} whether the browser allowed it.
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    announcement.value = "Copied.";
    return true;
  } catch {
    announcement.value = "The browser does not allow copying here.";
    return false;
  }
}
