/** Sends what the user says, listens to the answer, stops it, and finds it again after a reload. */

import { ApiError } from "./api.js";
import { remember } from "./answer_stats.js";
import { can, isGateway } from "./capabilities.js";
import { startChat } from "./chat_api.js";
import { titleOf } from "./format.js";
import { open as openAt } from "./location.js";
import { explain } from "./problems.js";
import { cancelResponse, resumeResponse, startResponse } from "./responses_api.js";
import { RunningAnswer } from "./running_answer.js";
import * as actions from "./session_actions.js";
import { createSession, stopSession } from "./sessions_api.js";
import { settings } from "./settings.js";
import * as state from "./state.js";
import { load, save } from "./storage.js";

const MAX_RETRIES = 5;
const WATCH_MS = 1500;

/**
 * Sends a message to the open session, or to a new one.
 *
 * @param {string} text
 * @returns {Promise<boolean>} whether the server took it.
 */
export async function send(text) {
  if (state.answer.value) return false;
  state.problem.value = null;
  /** @type {RunningAnswer | undefined} */
  let answer;
  try {
    if (!state.session.value) await beginSession(text);
    const session = /** @type {import("./sessions_api.js").SessionDetail} */ (state.session.value);
    answer = new RunningAnswer(session.id, text, session.streamingllm, session.cache_size);
    show(answer);
    try {
      listen(answer, await start(answer, session, text));
      return true;
    } catch (error) {
      hide(answer);
      throw error;
    }
  } catch (error) {
    if (!answer?.controller?.signal.aborted) explain(error);
    return false;
  }
}

/**
 * @param {RunningAnswer} answer
 * @param {import("./sessions_api.js").SessionDetail} session
 * @param {string} text
 */
function start(answer, session, text) {
  const model = state.model.value;
  if (!isGateway()) return startResponse({ model, sessionId: session.id, text });
  answer.controller = new AbortController();
  return startChat({ model, session, text, signal: answer.controller.signal });
}

/**
 * Says something else in place of a message, on a branch of its own.
 *
 * @param {number} number of the user's message.
 * @param {string} text
 */
export async function resend(number, text) {
  const messages = state.session.value?.messages ?? [];
  state.editedId.value = "";
  if (number === 0) actions.startNew();
  else if (!(await actions.fork(messages[number - 1].id))) return;
  await send(text);
}

/** Answers the last question again, on a branch of its own. @param {number} number of the answer */
export async function regenerate(number) {
  const messages = state.session.value?.messages ?? [];
  for (let at = number; at >= 0; at -= 1) {
    if (messages[at].role === "user") return resend(at, messages[at].text);
  }
}

/** Ends the running answer. What has come so far stays, except behind a gateway. */
export async function stop() {
  const answer = state.answer.value;
  if (!answer) {
    if (state.session.value?.is_running && can("stop")) await stopSession(state.session.value.id);
    return;
  }
  if (answer.controller) {
    answer.controller.abort();
    return;
  }
  try {
    if (answer.responseId) await cancelResponse(answer.responseId);
    else await stopSession(answer.sessionId);
  } catch (error) {
    // The answer may have ended in the meantime; the stream tells.
    if (!(error instanceof ApiError && error.status < 500 && error.status > 0)) explain(error);
  }
}

/** Listens again to an answer that ran when the page was left. @param {string} sessionId */
export async function resume(sessionId) {
  const responseId = runningIds()[sessionId];
  const detail = state.session.value;
  if (state.answers.value[sessionId] || detail?.id !== sessionId) return;
  if (!responseId) {
    await watch(sessionId);
    return;
  }
  const answer = new RunningAnswer(sessionId, "", detail.streamingllm, detail.cache_size);
  answer.responseId = responseId;
  try {
    const stream = await resumeResponse(responseId, -1);
    show(answer);
    state.announcement.value = "The answer goes on.";
    await listen(answer, stream);
  } catch (error) {
    const isGone = error instanceof ApiError && error.status === 404;
    if (isGone) forgetRunning(sessionId); // it ended, and was read with the session
    else explain(error);
  }
}

/** Reads a session again while another page or program asks it. @param {string} sessionId */
async function watch(sessionId) {
  const isBusy = () => state.session.value?.id === sessionId && state.session.value.is_running;
  while (isBusy() && !state.answers.value[sessionId]) {
    await pause(WATCH_MS);
    if (isBusy()) await actions.reload(sessionId).catch(explain);
  }
}

/** @param {string} text first message */
async function beginSession(text) {
  const { systemPrompt } = settings.value;
  const metadata = { title: titleOf(text) };
  const body = { metadata, ...(systemPrompt ? { system_prompt: systemPrompt } : {}) };
  const detail = await createSession(body);
  state.session.value = detail;
  openAt(detail.id);
  actions.refreshList().catch(explain);
}

/**
 * @param {RunningAnswer} answer
 * @param {AsyncGenerator<any>} stream
 */
async function listen(answer, stream) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      for await (const event of stream) {
        answer.accept(event);
        if (answer.responseId) rememberRunning(answer);
      }
      if (!answer.isRunning || !answer.responseId) break;
      // Cancelled answers end without a closing event; others that end so are asked for again.
      if (attempt >= 1) break;
    } catch (error) {
      if (attempt >= MAX_RETRIES || !answer.responseId) {
        explain(error);
        break;
      }
    }
    await pause(200 * 2 ** attempt);
    try {
      stream = await resumeResponse(answer.responseId, answer.sequenceNumber);
    } catch (error) {
      if (error instanceof ApiError && error.status > 0) break;
      stream = failed(error);
    }
  }
  await settle(answer);
}

/** @param {number} milliseconds */
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** @param {unknown} error @returns {AsyncGenerator<any>} */
async function* failed(error) {
  throw error;
}

/** Reads the session as the answer left it. @param {RunningAnswer} answer */
async function settle(answer) {
  forgetRunning(answer.sessionId);
  try {
    const detail = await actions.reload(answer.sessionId);
    const last = detail.messages.at(-1);
    const isWhole = ["completed", "incomplete"].includes(answer.status);
    const isKept = isWhole || !answer.controller;
    if (!isKept) state.draft.value ||= answer.question;
    else if (last?.role === "assistant" && answer.firstTokenAt) remember(last.id, statsOf(answer));
    state.announcement.value = isWhole ? `Answer: ${last?.text ?? ""}` : "The answer was stopped.";
    await actions.refreshList();
  } catch (error) {
    explain(error);
  }
  hide(answer);
  if (answer.error) explain(answer.error);
}

/** @param {RunningAnswer} answer */
function statsOf(answer) {
  return {
    endedAt: Date.now() / 1000,
    seconds: answer.seconds,
    tokensPerSecond: answer.tokensPerSecond.value,
    status: answer.status,
    reason: answer.reason,
    notices: answer.notices,
    recall: answer.recall.value,
  };
}

/** @param {RunningAnswer} answer */
function show(answer) {
  state.answers.value = { ...state.answers.value, [answer.sessionId]: answer };
}

/** @param {RunningAnswer} answer */
function hide(answer) {
  const { [answer.sessionId]: _, ...others } = state.answers.value;
  state.answers.value = others;
}

/** Ids of the responses that run, by session. @returns {Record<string, string>} */
const runningIds = () => load("running", {});

/** @param {RunningAnswer} answer */
function rememberRunning(answer) {
  const running = runningIds();
  if (running[answer.sessionId] === answer.responseId) return;
  save("running", { ...running, [answer.sessionId]: answer.responseId });
}

/** @param {string} sessionId */
function forgetRunning(sessionId) {
  const { [sessionId]: _, ...others } = runningIds();
  save("running", others);
}
