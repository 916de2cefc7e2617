/** The head of the open session: its title, the picture of its stream, the page's own commands. */

import { html } from "../html.js";
import { nextTheme, settings } from "../settings.js";
import { dialog, isSidebarOpen, model, session } from "../state.js";
import { IconButton } from "./icon.js";
import { StreamPicture } from "./stream_picture.js";

export function Header() {
  const title = session.value?.metadata.title || (session.value ? "Untitled" : "New session");
  const show = (name) => () => { dialog.value = name; };
  const toggle = () => { isSidebarOpen.value = !isSidebarOpen.value; };
  return html`
    <header class="header">
      <div class="header-row">
        <${IconButton} icon="menu" label="Sessions" class="only-narrow" onClick=${toggle} />
        <h1 class="title">${title}</h1>
        <span class="model" title="Model">${model.value}</span>
        <${IconButton}
          icon="theme"
          label=${`Colours: ${settings.value.theme}. Change them`}
          onClick=${nextTheme}
        />
        <${IconButton} icon="settings" label="Settings" onClick=${show("settings")} />
        <${IconButton} icon="help" label="Keyboard map" onClick=${show("help")} />
      </div>
      <${StreamPicture} />
    </header>
  `;
}
