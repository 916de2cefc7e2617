/** The page's commands by key: what the keyboard map lists and the keyboard runs. */

import { can } from "./capabilities.js";
import { startNew, open, fork, rewind } from "./session_actions.js";
import { change, nextTheme, settings } from "./settings.js";
import * as state from "./state.js";
import { regenerate, stop } from "./turn.js";

/**
 * @typedef {object} Command
 * @property {string} key as the browser names it.
 * @property {string} label
 * @property {import("./capabilities.js").Capability} [needs]
 * @property {() => void} run
 */

/** @param {string} selector */
const focus = (selector) => /** @type {HTMLElement | null} */ (document.querySelector(selector))?.focus();

/** @type {Command[]} */
const COMMANDS = [
  { key: "?", label: "Show this map", run: () => show("help") },
  { key: "n", label: "New session", run: () => { startNew(); focus("#composer"); } },
  { key: "c", label: "Write a message", run: () => focus("#composer") },
  { key: "/", label: "Search the sessions", run: searchSessions },
  { key: "[", label: "Previous session", run: () => openNeighbour(-1) },
  { key: "]", label: "Next session", run: () => openNeighbour(1) },
  { key: "j", label: "Next message", run: () => focusMessage(1) },
  { key: "k", label: "Previous message", run: () => focusMessage(-1) },
  { key: "e", label: "Edit the message, or the last one of yours", needs: "fork", run: edit },
  { key: "r", label: "Regenerate the answer, or the last one", needs: "fork", run: again },
  { key: "f", label: "Fork at the message", needs: "fork", run: () => atMessage(fork) },
  { key: "w", label: "Rewind to the message", needs: "rewind", run: () => atMessage(rewind) },
  { key: "m", label: "Switch streaming mode", needs: "truncation", run: switchMode },
  { key: "t", label: "Change the colours", run: nextTheme },
  { key: ",", label: "Settings", run: () => show("settings") },
  { key: "Escape", label: "Stop the answer; leave a field", run: () => void stop() },
];

/** Commands that can be done here. */
export const commands = () => COMMANDS.filter(({ needs }) => !needs || can(needs));

/** @param {"help" | "settings"} name */
function show(name) {
  state.dialog.value = name;
}

function searchSessions() {
  state.isSidebarOpen.value = true;
  requestAnimationFrame(() => focus("#search"));
}

function switchMode() {
  change({ isStreaming: !settings.value.isStreaming });
  state.announcement.value = `Streaming mode is ${settings.value.isStreaming ? "on" : "off"}.`;
}

/** @param {number} step */
function openNeighbour(step) {
  const all = state.sessions.value;
  const at = all.findIndex(({ id }) => id === state.session.value?.id);
  const next = all[at < 0 ? 0 : at + step];
  if (next) open(next.id);
}

const messageElements = () =>
  /** @type {HTMLElement[]} */ ([...document.querySelectorAll("[data-message-id]")]);

/** @param {number} step */
function focusMessage(step) {
  const all = messageElements();
  const at = all.findIndex((element) => element.contains(document.activeElement));
  const next = at < 0 ? all.length - 1 : Math.min(all.length - 1, Math.max(0, at + step));
  all[next]?.focus();
}

/** @returns {string | undefined} id of the message that has the focus. */
const focusedId = () =>
  messageElements().find((element) => element.contains(document.activeElement))?.dataset.messageId;

/** @param {(messageId: string) => unknown} action */
function atMessage(action) {
  const id = focusedId();
  if (id && !state.answer.value) action(id);
}

function edit() {
  if (state.answer.value) return;
  const messages = state.session.value?.messages ?? [];
  const focused = messages.find(({ id, role }) => id === focusedId() && role === "user");
  const target = focused ?? messages.findLast(({ role }) => role === "user");
  if (target) state.editedId.value = target.id;
}

function again() {
  if (state.answer.value) return;
  const messages = state.session.value?.messages ?? [];
  const focused = messages.findIndex(({ id }) => id === focusedId());
  if (messages.length) regenerate(focused < 0 ? messages.length - 1 : focused);
}
