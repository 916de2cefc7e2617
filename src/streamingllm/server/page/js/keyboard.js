/** Runs commands by single keys, while no field is written in and no dialog is open. */

import { commands } from "./commands.js";
import { settings } from "./settings.js";
import { isSidebarOpen, dialog, editedId } from "./state.js";

export function listenToKeys() {
  window.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.isComposing || dialog.value) return;
    const target = /** @type {HTMLElement} */ (event.target);
    const isWriting = target.matches("input, textarea, select, [contenteditable]");
    if (event.key === "Escape" && leave(target, isWriting)) return;
    if (isWriting || !(settings.value.hasShortcuts || event.key === "Escape")) return;
    const command = commands().find(({ key }) => key === event.key);
    if (!command) return;
    event.preventDefault();
    command.run();
  });
}

/**
 * Closes what is open around a field.
 *
 * @param {HTMLElement} target
 * @param {boolean} isWriting
 */
function leave(target, isWriting) {
  if (editedId.value) editedId.value = "";
  else if (isSidebarOpen.value) isSidebarOpen.value = false;
  else if (isWriting) target.blur();
  else return false;
  return true;
}
