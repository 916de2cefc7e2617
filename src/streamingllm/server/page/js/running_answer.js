/** An answer while it is generated: what has come so far, and how fast. */

import { signal } from "@preact/signals";
import { recallOf } from "./recall.js";

/** @typedef {import("./sessions_api.js").View} View */

export class RunningAnswer {
  /**
   * @param {string} sessionId
   * @param {string} question text of the user, not stored yet; "" if it is.
   * @param {View | null} view before the turn.
   * @param {number} cacheSize 0 if it is not known.
   */
  constructor(sessionId, question, view, cacheSize) {
    this.sessionId = sessionId;
    this.question = question;
    this.cacheSize = cacheSize;
    this.responseId = "";
    /** @type {AbortController | null} that ends an answer which ends with this page. */
    this.controller = null;
    this.sequenceNumber = -1;
    this.text = signal("");
    this.reasoning = signal("");
    this.numTokens = signal(0);
    this.tokensPerSecond = signal(0);
    this.view = signal(view);
    /** @type {import("@preact/signals").Signal<import("./recall.js").Recall | null>} */
    this.recall = signal(null);
    /** @type {string[]} */
    this.notices = [];
    /** @type {"running" | "completed" | "incomplete" | "failed" | "cancelled"} */
    this.status = "running";
    /** @type {{code: string | null, message: string} | null} */
    this.error = null;
    this.reason = "";
    this.startedAt = performance.now();
    this.firstTokenAt = 0;
  }

  /**
   * Takes in an event of the stream.
   *
   * @param {any} event
   */
  accept(event) {
    if (typeof event.sequence_number === "number") this.sequenceNumber = event.sequence_number;
    switch (event.type) {
      case "response.output_text.delta":
        this.text.value += event.delta;
        this.#countToken();
        break;
      case "response.reasoning.delta":
      case "response.reasoning_text.delta":
        this.reasoning.value += event.delta;
        this.#countToken();
        break;
      case "streamingllm.visibility":
        this.#see(event.streamingllm ?? event);
        break;
      case "error":
        this.#fail(event.error ?? event);
        break;
      default:
        if (event.response) this.#acceptResponse(event.response);
    }
  }

  /** Whether the answer was not ended by us or by the server. */
  get isRunning() {
    return this.status === "running";
  }

  get seconds() {
    return (performance.now() - this.startedAt) / 1000;
  }

  /** @param {any} response */
  #acceptResponse(response) {
    this.responseId = response.id;
    this.#see(response.streamingllm);
    if (["queued", "in_progress"].includes(response.status)) return;
    this.status = response.status;
    this.reason = response.incomplete_details?.reason ?? "";
    if (response.error) this.#fail(response.error);
    if (response.usage) {
      this.numTokens.value = response.usage.output_tokens;
      this.#measure();
    }
  }

  /** @param {View | undefined} view */
  #see(view) {
    if (typeof view?.seen_tokens !== "number") return;
    this.view.value = view;
    this.recall.value = recallOf(view) ?? this.recall.value;
    for (const notice of view.notices ?? []) {
      if (!this.notices.includes(notice)) this.notices = [...this.notices, notice];
    }
  }

  /** @param {{code?: string | null, message: string}} error */
  #fail(error) {
    this.status = "failed";
    this.error = { code: error.code ?? null, message: error.message };
  }

  /** A delta is a token, nearly always; the end of the answer brings the exact count. */
  #countToken() {
    if (!this.firstTokenAt) this.firstTokenAt = performance.now();
    this.numTokens.value += 1;
    this.#measure();
    if (this.view.value) this.view.value = oneTokenLater(this.view.value, this.cacheSize);
  }

  #measure() {
    const seconds = (performance.now() - this.firstTokenAt) / 1000;
    if (this.firstTokenAt && seconds > 0.2) {
      this.tokensPerSecond.value = (this.numTokens.value - 1) / seconds;
    }
  }
}

/**
 * @param {View} view
 * @param {number} cacheSize
 * @returns {View}
 */
function oneTokenLater(view, cacheSize) {
  const isFull = cacheSize > 0 && view.visible_tokens >= cacheSize;
  return {
    ...view,
    seen_tokens: view.seen_tokens + 1,
    visible_tokens: view.visible_tokens + (isFull ? 0 : 1),
    forgotten_tokens: view.forgotten_tokens + (isFull ? 1 : 0),
  };
}
