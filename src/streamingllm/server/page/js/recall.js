/** What the memory put back for an answer. The passages' texts stay on the server. */

/**
 * @typedef {object} Passage
 * @property {string} id of the message.
 * @property {number} saidAt since 1970, in seconds.
 * @property {string} speaker
 * @property {string[]} words of the question that the passage has.
 *
 * @typedef {object} Recall
 * @property {Passage[]} passages
 * @property {string[]} unknownWords of the question, which nobody has said.
 * @property {boolean} isNotFound
 * @property {string[]} searches that the model made itself.
 */

/**
 * Reads what an answer says of its memory; null without one.
 *
 * @param {any} view
 * @returns {Recall | null}
 */
export function recallOf(view) {
  if (!Array.isArray(view?.recalled)) return null;
  const searches = view.searches ?? [];
  const parts = [view.recalled, ...searches.map(({ recalled }) => recalled)].flat();
  const passages = parts.map((part) => ({
    id: part.message_id,
    saidAt: part.said_at,
    speaker: part.speaker,
    words: part.words,
  }));
  return {
    passages: passages.filter(({ id }, at) => passages.findIndex((other) => other.id === id) === at),
    unknownWords: view.unknown_words ?? [],
    isNotFound: Boolean(view.not_found),
    searches: searches.map(({ query }) => query),
  };
}

/** Shows a message in its place. @param {string} id */
export function showMessage(id) {
  const found = [...document.querySelectorAll("[data-message-id]")].find(
    (element) => /** @type {HTMLElement} */ (element).dataset.messageId === id,
  );
  if (!(found instanceof HTMLElement)) return;
  found.scrollIntoView({ block: "center" });
  found.focus({ preventScroll: true });
}
