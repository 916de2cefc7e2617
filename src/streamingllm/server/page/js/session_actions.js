/** Opens, makes and changes sessions. */

import { batch } from "@preact/signals";
import * as api from "./sessions_api.js";
import { explain } from "./problems.js";
import { clear, open as openAt, sessionIdOfPage } from "./location.js";
import * as state from "./state.js";

/** Loads the list from its beginning. */
export async function refreshList() {
  const query = state.query.value;
  const page = await api.listSessions({ query });
  if (query !== state.query.value) return; // a later search is on its way
  batch(() => {
    state.sessions.value = page.data;
    state.nextPage.value = page.next;
    state.isListLoaded.value = true;
  });
}

/** Loads the next page of the list. */
export async function loadMore() {
  const page = await api.listSessions({ query: state.query.value, after: state.nextPage.value });
  batch(() => {
    state.sessions.value = [...state.sessions.value, ...page.data];
    state.nextPage.value = page.next;
  });
}

/** @param {string} text */
export async function search(text) {
  state.query.value = text;
  await attempt(refreshList);
  const found = `${state.sessions.value.length}${state.nextPage.value ? " or more" : ""}`;
  state.announcement.value = `${found} sessions found`;
}

/** @param {string} id */
export async function open(id) {
  await attempt(async () => {
    const detail = await api.getSession(id);
    batch(() => {
      state.session.value = detail;
      state.problem.value = null;
      state.editedId.value = "";
      state.isSidebarOpen.value = false;
    });
    openAt(id);
  });
}

/** Begins a session that is created with its first message. */
export function startNew() {
  batch(() => {
    state.session.value = null;
    state.problem.value = null;
    state.editedId.value = "";
    state.isSidebarOpen.value = false;
  });
  clear();
}

/** Reads the open session again, if it is still the open one. @param {string} id */
export async function reload(id) {
  const detail = await api.getSession(id);
  if (sessionIdOfPage() === id) state.session.value = detail;
  return detail;
}

/**
 * @param {import("./sessions_api.js").SessionInfo} info
 * @param {string} title
 */
export async function rename(info, title) {
  await attempt(async () => {
    await api.updateSession(info.id, { ...info.metadata, title });
    await refreshList();
    if (state.session.value?.id === info.id) await reload(info.id);
  });
}

/** @param {string} id */
export async function remove(id) {
  await attempt(async () => {
    await api.deleteSession(id);
    if (state.session.value?.id === id) startNew();
    await refreshList();
    state.announcement.value = "The session is deleted.";
  });
}

/**
 * Takes back all that follows a message.
 *
 * @param {string} messageId the last one that stays.
 */
export async function rewind(messageId) {
  const id = /** @type {string} */ (state.session.value?.id);
  await attempt(async () => {
    await api.rewindSession(id, messageId);
    await reload(id);
    state.announcement.value = "What followed is taken back; the model never saw it.";
    await refreshList();
  });
}

/**
 * Opens a branch that shares the messages up to one.
 *
 * @param {string} messageId the last one that is shared.
 * @returns {Promise<string | null>} id of the branch.
 */
export async function fork(messageId) {
  const id = /** @type {string} */ (state.session.value?.id);
  let branch = null;
  await attempt(async () => {
    branch = (await api.forkSession(id, messageId)).id;
    await open(branch);
    await refreshList();
    state.announcement.value = "A branch is open; the other one stays as it is.";
  });
  return branch;
}

/** @param {import("./sessions_api.js").SessionInfo} info */
export async function download(info) {
  await attempt(async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await api.exportSession(info.id));
    link.download = `${info.metadata.title || info.id}.json`.replace(/[/\\:]/g, "-");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}

/** @param {File} file */
export async function upload(file) {
  await attempt(async () => {
    const { id } = await api.importSession(file);
    await refreshList();
    await open(id);
    state.announcement.value = "The session is imported.";
  });
}

/** @param {() => Promise<void>} action */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    explain(error);
  }
}
