/** Binds htm to preact, so that components are written as tagged templates without a build step. */

import { h } from "preact";
import htm from "htm";

export const html = htm.bind(h);
