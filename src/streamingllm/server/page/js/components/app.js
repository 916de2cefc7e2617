/** The whole page: sessions at the left, the open one at the right, dialogs above. */

import { html } from "../html.js";
import { announcement, dialog, isSidebarOpen } from "../state.js";
import { Composer } from "./composer.js";
import { Header } from "./header.js";
import { HelpDialog } from "./help_dialog.js";
import { ProblemBar } from "./problem_bar.js";
import { SettingsDialog } from "./settings_dialog.js";
import { Sidebar } from "./sidebar.js";
import { Thread } from "./thread.js";

export function App() {
  const close = () => { isSidebarOpen.value = false; };
  return html`
    <a class="skip" href="#composer" onClick=${skip}>Write a message</a>
    <div class="app" data-sidebar=${isSidebarOpen.value ? "open" : "closed"}>
      <${Sidebar} />
      <div class="scrim" onClick=${close}></div>
      <main class="main">
        <${Header} />
        <${Thread} />
        <${ProblemBar} />
        <${Composer} />
      </main>
    </div>
    ${dialog.value === "settings" && html`<${SettingsDialog} />`}
    ${dialog.value === "help" && html`<${HelpDialog} />`}
    <div class="unseen" role="status" aria-live="polite">${announcement.value}</div>
  `;
}

/** The address belongs to the session, so the link moves the focus only. @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("composer")?.focus();
}
