/** The keyboard map. */

import { commands } from "../commands.js";
import { html } from "../html.js";
import { settings } from "../settings.js";
import { Dialog } from "./dialog.js";

export function HelpDialog() {
  return html`
    <${Dialog} title="Keyboard map">
      ${!settings.value.hasShortcuts && html`<p>Single keys are off; the settings switch them on.</p>`}
      <dl class="keys">
        ${commands().map(({ key, label }) => html`
          <div><dt><kbd>${key === "Escape" ? "Esc" : key}</kbd></dt><dd>${label}</dd></div>
        `)}
        <div><dt><kbd>Enter</kbd></dt><dd>Send; with <kbd>Shift</kbd> a new line</dd></div>
      </dl>
    <//>
  `;
}
