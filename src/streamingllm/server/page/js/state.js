/** What the page shows. Components read these signals; the other modules write them. */

import { computed, signal } from "@preact/signals";

/**
 * @typedef {import("./sessions_api.js").SessionInfo} SessionInfo
 * @typedef {import("./sessions_api.js").SessionDetail} SessionDetail
 * @typedef {import("./sessions_api.js").View} View
 * @typedef {import("./running_answer.js").RunningAnswer} RunningAnswer
 * @typedef {{title: string, text: string, detail?: string, action?: {label: string, run: () => void}}} Problem
 */

/** @type {import("@preact/signals").Signal<string>} */
export const model = signal("");

/** @type {import("@preact/signals").Signal<SessionInfo[]>} */
export const sessions = signal([]);
/** @type {import("@preact/signals").Signal<string | null>} */
export const nextPage = signal(null);
export const query = signal("");
export const isListLoaded = signal(false);

/** The open session; null for one that begins with the first message.
 * @type {import("@preact/signals").Signal<SessionDetail | null>} */
export const session = signal(null);

/** Answers that run, by session.
 * @type {import("@preact/signals").Signal<Record<string, RunningAnswer>>} */
export const answers = signal({});

/** @type {import("@preact/signals").Signal<Problem | null>} */
export const problem = signal(null);

/** Text for screen readers. */
export const announcement = signal("");

/** @type {import("@preact/signals").Signal<"settings" | "help" | null>} */
export const dialog = signal(null);

export const isSidebarOpen = signal(false);

/** Text that is being written. */
export const draft = signal("");

/** Id of the message that is being edited. */
export const editedId = signal("");

export const answer = computed(() => (session.value ? answers.value[session.value.id] : undefined));

/** What the model sees of the open session, live while it answers.
 * @type {import("@preact/signals").ReadonlySignal<View | null>} */
export const view = computed(() => answer.value?.view.value ?? session.value?.streamingllm ?? null);
