/** Pins facts to the open session, corrects them, and forgets messages. */

import { forgetStats } from "./answer_stats.js";
import * as api from "./memory_api.js";
import { explain } from "./problems.js";
import { refreshList, reload } from "./session_actions.js";
import * as state from "./state.js";

/**
 * @param {string} text
 * @param {string} messageId that the fact comes from.
 */
export const pin = (text, messageId) =>
  change((id) => api.pinFact(id, text, messageId), "The fact is pinned; the model reads the session again.");

/**
 * @param {string} factId
 * @param {string} text
 */
export const correct = (factId, text) =>
  change((id) => api.correctFact(id, factId, text), "The fact is corrected.");

/** @param {string} factId */
export const unpin = (factId) => change((id) => api.unpinFact(id, factId), "The fact is no longer pinned.");

/** @param {string} messageId */
export const forget = (messageId) =>
  change(async (id) => {
    await api.forgetMessages(id, [messageId]);
    forgetStats(messageId);
  }, "The message is forgotten for good.");

/**
 * @param {(sessionId: string) => Promise<unknown>} action
 * @param {string} told
 * @returns {Promise<boolean>} whether the server did it.
 */
async function change(action, told) {
  const id = state.session.value?.id;
  if (!id || state.answer.value) return false;
  state.problem.value = null;
  try {
    await action(id);
    await reload(id);
    await refreshList();
  } catch (error) {
    explain(error);
    return false;
  }
  state.announcement.value = told;
  return true;
}
